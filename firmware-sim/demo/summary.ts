// Why: the verdict of the demo: what the issue promises, counted and compared, with every shortfall named.
// Trusts: facts from the API and the agents. Must never: be good where a number is missing.

import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import type { Testimony } from './witness.ts';

/** What one rollout came to. `committedBy` are devices whose own agent says that it serves the release. */
export interface RolloutFacts {
  version: string;
  status: RolloutStatus;
  testimony: Testimony;
  committedBy: string[];
  /** Devices whose own agent, after the end, serves the release before this one and was offered nothing else. */
  keptBefore: string[];
}

export interface DeviceFacts {
  device: string;
  /** As the application saw it. */
  answered: number;
  failed: number;
  firstFailure: string | null;
  /** As the agent counted it. */
  agentAnswered: number;
  agentFailed: number;
  telemetry: { produced: number; acknowledged: number; stored: number; dropped: number };
  /** Records of the application whose append was answered, and those it had to give up. */
  appended: number;
  lost: number;
}

export interface ReleaseSummary {
  release: string;
  rollout: string;
  state: string;
  reason: string | null;
  devices: number;
  committed: number;
  canary: string | null;
  canaryFirst: boolean | null;
  /** The gate that failed, null where none did. */
  failedGate: string | null;
  /** What the canary reported, null where it refused nothing. */
  canaryRefused: { code: string; detail: string } | null;
  untouched: number;
}

export interface DemoSummary {
  ok: boolean;
  /** In words, empty where all is well. */
  problems: string[];
  durationMs: number;
  agents: { enrolled: number; devices: string[] };
  releases: ReleaseSummary[];
  inference: {
    answered: number;
    failed: number;
    devices: {
      device: string;
      answered: number;
      failed: number;
      agentAnswered: number;
      agentFailed: number;
    }[];
    /** Part of the live answers that were the truth, by release version. */
    rightOnLiveData: Record<string, number>;
  };
  telemetry: {
    equal: boolean;
    devices: ({ device: string } & DeviceFacts['telemetry'])[];
  };
}

export interface DemoFacts {
  durationMs: number;
  /** Device ids as the agents said them, and those that the registry lists as active. */
  agents: string[];
  enrolled: string[];
  rollouts: RolloutFacts[];
  devices: DeviceFacts[];
  rightOnLiveData: Record<string, number>;
}

/** How each rollout is to end. */
export const expectedEnds = { '1.0.0': 'everywhere', '2.0.0': 'canary-first', '3.0.0': 'stopped' } as const;
const agentsExpected = 3;

function releaseSummary(facts: RolloutFacts): ReleaseSummary {
  const { status, testimony } = facts;
  const canary = status.devices.find(({ id }) => id === testimony.canary);
  const reason = canary?.reason ?? null;
  const [code = '', ...detail] = reason === null ? [] : reason.split(': ');
  return {
    release: status.release,
    rollout: status.id,
    state: status.state,
    reason: status.reason,
    devices: status.devices.length,
    committed: facts.committedBy.length,
    canary: testimony.canary,
    canaryFirst: testimony.canaryFirst,
    failedGate: status.gates.find(({ verdict }) => verdict === 'fail')?.gate ?? null,
    canaryRefused: reason === null ? null : { code, detail: detail.join(': ') },
    untouched: testimony.untouched.filter((id) => facts.keptBefore.includes(id)).length,
  };
}

function releaseProblems(release: ReleaseSummary, end: string): string[] {
  const problems: string[] = [];
  const expect = (holds: boolean, what: string): void => {
    if (!holds) problems.push(`${release.release}: ${what}`);
  };
  expect(release.devices === agentsExpected, `${release.devices} devices in its rollout`);
  if (end === 'stopped') {
    expect(release.state === 'failed', `its rollout is ${release.state}, not failed`);
    expect(release.failedGate === 'probe', `the gate that failed is ${release.failedGate}, not probe`);
    expect(release.reason?.includes('probe') === true, 'its rollout does not name the gate probe');
    expect(
      release.canaryRefused?.code === 'probe-golden-failed',
      'the canary did not refuse it by its probe',
    );
    expect(release.untouched === agentsExpected - 1, `${release.untouched} devices were left alone`);
    expect(release.committed === 0, `${release.committed} devices run it`);
    return problems;
  }
  expect(release.state === 'succeeded', `its rollout is ${release.state}: ${release.reason}`);
  expect(release.committed === agentsExpected, `committed on ${release.committed} of ${agentsExpected}`);
  if (end === 'canary-first') expect(release.canaryFirst === true, 'the canary was not seen to go first');
  return problems;
}

function deviceProblems(facts: DeviceFacts): string[] {
  const problems: string[] = [];
  const expect = (holds: boolean, what: string): void => {
    if (!holds) problems.push(`device ${facts.device}: ${what}`);
  };
  expect(facts.answered > 0, 'no request was answered');
  expect(facts.failed === 0, `${facts.failed} requests failed, the first: ${facts.firstFailure}`);
  expect(
    facts.agentAnswered === facts.answered && facts.agentFailed === facts.failed,
    `its agent counted ${facts.agentAnswered} answered and ${facts.agentFailed} failed, the application ${facts.answered} and ${facts.failed}`,
  );
  const { produced, acknowledged, stored, dropped } = facts.telemetry;
  expect(produced > 0, 'no record was produced');
  expect(
    produced === acknowledged && acknowledged === stored,
    `${produced} records produced, ${acknowledged} acknowledged, ${stored} stored`,
  );
  expect(dropped === 0 && facts.lost === 0, `${dropped + facts.lost} records dropped`);
  expect(facts.appended > 0 && facts.appended <= produced, `${facts.appended} appends answered`);
  return problems;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

export function summarise(facts: DemoFacts): DemoSummary {
  const releases = facts.rollouts.map(releaseSummary);
  const problems: string[] = [];
  const enrolled = facts.agents.filter((id) => facts.enrolled.includes(id));
  if (new Set(enrolled).size !== agentsExpected) problems.push(`${enrolled.length} agents are enrolled`);
  for (const [version, end] of Object.entries(expectedEnds)) {
    const release = releases[facts.rollouts.findIndex((one) => one.version === version)];
    if (release === undefined) problems.push(`release ${version} was not rolled out`);
    else problems.push(...releaseProblems(release, end));
  }
  if (facts.devices.length !== agentsExpected) problems.push(`counters of ${facts.devices.length} devices`);
  for (const device of facts.devices) problems.push(...deviceProblems(device));
  return {
    ok: problems.length === 0,
    problems,
    durationMs: Math.round(facts.durationMs),
    agents: { enrolled: enrolled.length, devices: enrolled },
    releases,
    inference: {
      answered: sum(facts.devices.map(({ answered }) => answered)),
      failed: sum(facts.devices.map(({ failed }) => failed)),
      devices: facts.devices.map(({ device, answered, failed, agentAnswered, agentFailed }) => ({
        device,
        answered,
        failed,
        agentAnswered,
        agentFailed,
      })),
      rightOnLiveData: facts.rightOnLiveData,
    },
    telemetry: {
      equal:
        facts.devices.length > 0 &&
        facts.devices.every(
          ({ telemetry: { produced, acknowledged, stored } }) =>
            produced === acknowledged && acknowledged === stored,
        ),
      devices: facts.devices.map(({ device, telemetry }) => ({ device, ...telemetry })),
    },
  };
}
