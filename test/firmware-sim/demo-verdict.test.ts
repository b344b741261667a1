// Why: the demo's verdict must not be kinder than the facts, and its view must not spoil a terminal or a pipe.
// Trusts: nothing. Must never: start a process; demo.test.ts does that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { nextCommands } from '../../firmware-sim/demo/next-commands.ts';
import {
  type DemoFacts,
  type DeviceFacts,
  type RolloutFacts,
  summarise,
} from '../../firmware-sim/demo/summary.ts';
import { createView, type Scene, summaryText } from '../../firmware-sim/demo/view.ts';
import { createWitness } from '../../firmware-sim/demo/witness.ts';
import type { RolloutDeviceState, RolloutStatus, WaveState } from '../../shared/wire/rollouts.ts';

const devices = ['a', 'b', 'c'].map((letter) => letter.repeat(32));
const [canary = '', second = '', third = ''] = devices;

interface Seen {
  waves: WaveState[];
  /** Of the three devices; the first is the canary where there are two waves. */
  states: RolloutDeviceState[];
  runs: string[];
  state?: RolloutStatus['state'];
  reasons?: (string | null)[];
  reason?: string | null;
  failedGate?: 'probe' | 'success';
}

function statusOf(version: string, seen: Seen): RolloutStatus {
  const waveOf = (at: number): number => (seen.waves.length > 1 && at > 0 ? 1 : 0);
  return {
    id: `r-${version}`,
    name: 'demo',
    release: `demo/m@${version}`,
    state: seen.state ?? 'running',
    reason: seen.reason ?? null,
    waves: seen.waves.map((state, index) => ({ index, state, reason: null, devices: { total: 1 } })),
    gates:
      seen.failedGate === undefined
        ? []
        : [{ wave: 0, gate: seen.failedGate, limit: 1, value: 0, devices: 1, verdict: 'fail' }],
    approvals: [],
    devices: devices.map((id, at) => ({
      id,
      wave: waveOf(at),
      state: seen.states[at] ?? 'pending',
      reason: seen.reasons?.[at] ?? null,
      release: `demo/m@${seen.runs[at]}`,
    })),
  };
}

function witnessed(version: string, path: Seen[]): RolloutFacts['testimony'] {
  const witness = createWitness();
  for (const seen of path) witness.see(statusOf(version, seen));
  return witness.testify();
}

const alone: Seen = {
  waves: ['soaking', 'pending'],
  states: ['soaking', 'pending', 'pending'],
  runs: ['2.0.0', '1.0.0', '1.0.0'],
};
const all: Seen = {
  waves: ['passed', 'passed'],
  states: ['committed', 'committed', 'committed'],
  runs: ['2.0.0', '2.0.0', '2.0.0'],
  state: 'succeeded',
};

test('witness: the canary went first only where it was seen alone and nobody was seen early', () => {
  assert.deepEqual(witnessed('2.0.0', [alone, all]), { canary, canaryFirst: true, untouched: [] });
  assert.equal(witnessed('2.0.0', [all]).canaryFirst, false, 'the end alone proves nothing');
  const early: Seen = { ...alone, states: ['soaking', 'fetching', 'pending'] };
  assert.equal(witnessed('2.0.0', [alone, early, all]).canaryFirst, false);
  const switched: Seen = { ...alone, runs: ['2.0.0', '2.0.0', '1.0.0'] };
  assert.equal(witnessed('2.0.0', [alone, switched, all]).canaryFirst, false);
  assert.deepEqual(witnessed('1.0.0', [{ ...all, waves: ['passed'] }]), {
    canary: null,
    canaryFirst: null,
    untouched: [],
  });
});

test('witness: a device that was touched once stays touched', () => {
  const touched: Seen = { ...alone, states: ['soaking', 'offered', 'pending'] };
  assert.deepEqual(witnessed('3.0.0', [alone, touched, alone]).untouched, [third]);
  assert.deepEqual(witnessed('3.0.0', [alone]).untouched, [second, third]);
});

function deviceFacts(device: string): DeviceFacts {
  return {
    device,
    answered: 100,
    failed: 0,
    firstFailure: null,
    agentAnswered: 100,
    agentFailed: 0,
    telemetry: { produced: 110, acknowledged: 110, stored: 110, dropped: 0 },
    appended: 100,
    lost: 0,
  };
}

const reason = 'gate probe of wave 0: 1 of 1 devices failed their probe';

function goodFacts(): DemoFacts {
  const refused = statusOf('3.0.0', {
    waves: ['failed', 'pending'],
    states: ['idle', 'pending', 'pending'],
    runs: ['2.0.0', '2.0.0', '2.0.0'],
    state: 'failed',
    reason,
    reasons: ['probe-golden-failed: 0 of 12', null, null],
    failedGate: 'probe',
  });
  const rollout = (version: string, facts: Omit<RolloutFacts, 'version'>): RolloutFacts => ({
    version,
    ...facts,
  });
  const none = { canary: null, canaryFirst: null, untouched: [] };
  return {
    durationMs: 60_000,
    agents: [...devices],
    enrolled: [...devices],
    rollouts: [
      rollout('1.0.0', {
        status: statusOf('1.0.0', { ...all, waves: ['passed'] }),
        testimony: none,
        committedBy: [...devices],
        keptBefore: [],
      }),
      rollout('2.0.0', {
        status: statusOf('2.0.0', all),
        testimony: { canary, canaryFirst: true, untouched: [] },
        committedBy: [...devices],
        keptBefore: [],
      }),
      rollout('3.0.0', {
        status: refused,
        testimony: { canary, canaryFirst: true, untouched: [second, third] },
        committedBy: [],
        keptBefore: [second, third],
      }),
    ],
    devices: devices.map(deviceFacts),
    rightOnLiveData: { '1.0.0': 0.7, '2.0.0': 0.95 },
  };
}

test('summary: good facts are ok, with the numbers counted together', () => {
  const summary = summarise(goodFacts());
  assert.deepEqual([summary.ok, summary.problems], [true, []]);
  assert.deepEqual(
    [summary.agents.enrolled, summary.inference.answered, summary.inference.failed],
    [3, 300, 0],
  );
  assert.equal(summary.telemetry.equal, true);
  const [, , third_] = summary.releases;
  assert.deepEqual(
    [third_?.state, third_?.failedGate, third_?.untouched, third_?.canaryRefused],
    ['failed', 'probe', 2, { code: 'probe-golden-failed', detail: '0 of 12' }],
  );
});

test('summary: each shortfall makes it bad and is named', () => {
  const broken: [string, RegExp, (facts: DemoFacts) => void][] = [
    ['an agent less', /2 agents are enrolled/, (f) => f.enrolled.pop()],
    ['a release not rolled out', /release 3.0.0 was not/, (f) => f.rollouts.pop()],
    ['not committed', /@1.0.0: committed on 2 of 3/, (f) => f.rollouts[0]?.committedBy.pop()],
    [
      'not the canary first',
      /@2.0.0: the canary was not seen/,
      (f) => Object.assign(f.rollouts[1]?.testimony ?? {}, { canaryFirst: false }),
    ],
    [
      'a bad release that went through',
      /@3.0.0: its rollout is succeeded/,
      (f) => Object.assign(f.rollouts[2]?.status ?? {}, { state: 'succeeded' }),
    ],
    [
      'another gate',
      /@3.0.0: the gate that failed is null/,
      (f) => Object.assign(f.rollouts[2]?.status ?? {}, { gates: [] }),
    ],
    ['others touched', /1 devices were left alone/, (f) => f.rollouts[2]?.keptBefore.pop()],
    [
      'a failed request',
      /1 requests failed, the first: HTTP 503/,
      (f) => {
        Object.assign(f.devices[0] ?? {}, { failed: 1, agentFailed: 1, firstFailure: 'HTTP 503' });
      },
    ],
    [
      'counters that differ',
      /its agent counted 99 answered/,
      (f) => {
        Object.assign(f.devices[1] ?? {}, { agentAnswered: 99 });
      },
    ],
    [
      'a record not stored',
      /110 acknowledged, 109 stored/,
      (f) => {
        Object.assign(f.devices[2]?.telemetry ?? {}, { stored: 109 });
      },
    ],
    ['dropped records', /4 records dropped/, (f) => Object.assign(f.devices[2] ?? {}, { lost: 4 })],
    [
      'more appended than produced',
      /111 appends answered/,
      (f) => {
        Object.assign(f.devices[2] ?? {}, { appended: 111 });
      },
    ],
    ['no counters', /counters of 0 devices/, (f) => f.devices.splice(0)],
  ];
  for (const [what, message, damage] of broken) {
    const facts = goodFacts();
    damage(facts);
    const summary = summarise(facts);
    assert.equal(summary.ok, false, what);
    assert.ok(
      summary.problems.some((problem) => message.test(problem)),
      `${what}: ${summary.problems.join('; ')}`,
    );
    assert.match(summaryText(summary), /NOT as promised/);
  }
});

function sceneOf(): Scene {
  return {
    registry: 'http://127.0.0.1:1234',
    devices: devices.map((id, at) => ({ name: `press-${at}`, id, view: null, application: null })),
    rollouts: [{ what: 'better', status: statusOf('2.0.0', alone) }],
  };
}

test('view: in a pipe plain lines, each change once, no control codes', () => {
  let text = '';
  const view = createView({ write: (part) => (text += part), terminal: null });
  view.begin();
  view.say('a registry starts', 0);
  view.rollout(statusOf('2.0.0', alone), 61_000);
  view.rollout(statusOf('2.0.0', alone), 62_000);
  view.rollout(statusOf('2.0.0', all), 63_000);
  view.draw(sceneOf(), 64_000);
  assert.ok([...text].every((letter) => letter === '\n' || letter >= ' '));
  assert.deepEqual(text.trimEnd().split('\n').length, 3);
  assert.match(
    text,
    /^ 0:00 {2}a registry starts\n 1:01 {4}demo\/m@2.0.0 running: wave 0 soaking; wave 1 pending\n/,
  );
});

test('view: on a terminal everything is redrawn within its width and height', () => {
  const written: string[] = [];
  const view = createView({
    write: (part) => void written.push(part),
    terminal: () => ({ columns: 60, rows: 12 }),
  });
  view.begin();
  for (let line = 0; line < 40; line += 1) view.say(`line ${line} ${'x'.repeat(100)}`, line * 1_000);
  view.draw(sceneOf(), 50_000);
  const [cleared, drawn = ''] = [written[0], written.at(-1)];
  assert.equal(cleared, '\u001b[2J\u001b[H');
  const lines = stripVTControlCharacters(drawn).trimEnd().split('\n');
  assert.equal(lines.length, 11);
  for (const line of lines) assert.ok(line.length <= 60, line);
  assert.match(lines[0] ?? '', /0:50 {2}registry http:\/\/127.0.0.1:1234/);
  assert.ok(lines.some((line) => line.includes('press-1')));
  assert.ok(lines.some((line) => line.includes('demo/m@2.0.0 running')));
});

test('the commands to try name real addresses and paths, and no token', () => {
  const text = nextCommands({
    registry: 'http://127.0.0.1:1',
    tokenFile: '/tmp/x/admin.token',
    folder: '/tmp/x',
    model: 'demo/m',
    stations: [{ id: canary, agentUrl: 'http://127.0.0.1:2', stateFolder: '/tmp/x/agents/a' }],
    rollouts: ['r1', 'r3'],
  });
  assert.match(text, /export LEPTON_TOKEN=\$\(cat \/tmp\/x\/admin\.token\)/);
  assert.match(text, /rollout status r3\n/);
  assert.match(text, /curl http:\/\/127\.0\.0\.1:2\/v2\/models\/m\n/);
});
