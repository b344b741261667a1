// Why: what a person sees of the demo: the fleet and its rollouts redrawn on a terminal, plain lines in a pipe.
// Trusts: the scene it is given. Must never: write a control code into a pipe, or wider than the terminal.

import { spoken, table } from '../../registry/cli/output.ts';
import { speaker } from '../../shared/host/speech.ts';
import { displayWidth } from '../../shared/wire/display-width.ts';
import type { DeviceView } from '../../shared/wire/http.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import type { ApplicationCounts } from '../sensors/application.ts';
import { percent } from './releases.ts';
import type { DemoSummary } from './summary.ts';

export interface SceneDevice {
  /** Of the machine it stands at. */
  name: string;
  id: string;
  view: DeviceView | null;
  application: ApplicationCounts | null;
}

export interface Scene {
  registry: string;
  devices: SceneDevice[];
  rollouts: { what: string; status: RolloutStatus }[];
}

export interface Stage {
  write(text: string): void;
  /** Null where nobody watches: plain lines then. */
  terminal: (() => { columns: number; rows: number }) | null;
}

const storyLines = 12;

export function clockText(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** `wave 0: 1 soaking; wave 1: 2 pending`. */
function wavesText(status: RolloutStatus): string {
  return status.waves
    .map(({ index, state, devices }) => {
      const states = Object.entries(devices).filter(([name, count]) => name !== 'total' && count > 0);
      const counts = states.map(([name, count]) => `${count} ${name}`).join(', ');
      return `wave ${index} ${state}${counts === '' ? '' : ` (${counts})`}`;
    })
    .join('; ');
}

/** One rollout in one line. */
export function rolloutLine(status: RolloutStatus): string {
  const { release, state, reason } = status;
  const failed = state === 'failed' || state === 'rolling-back' ? ` [${reason}]` : '';
  return `${release} ${speaker().word(state)}: ${wavesText(status)}${failed}`;
}

function applicationCells(application: ApplicationCounts | null): string[] {
  if (application === null) return ['-', '-', '-', '-'];
  const { last } = application;
  return [
    last === null ? '-' : `wear ${(100 * last.wear).toFixed(0)} %`,
    last === null ? '-' : `${last.regime}${last.regime === last.truth ? '' : ` (is ${last.truth})`}`,
    `${application.answered}`,
    `${application.failed}`,
  ];
}

export function deviceTable(devices: readonly SceneDevice[]): string {
  return table(
    ['DEVICE', 'AT', 'MACHINE', 'MODEL SAYS', 'ANSWERED', 'FAILED', 'RUNS', 'UPDATE', 'RECORDS', 'ACKED'],
    devices.map(({ name, id, view, application }) => {
      const model = view?.models[0];
      return [
        id.slice(0, 8),
        name,
        ...applicationCells(application),
        model?.active?.split('@')[1] ?? '-',
        model === undefined ? '-' : `${model.state}${model.reason === null ? '' : ` ${model.reason.code}`}`,
        `${view?.outbox.producedRecords ?? 0}`,
        `${view?.outbox.acknowledgedRecords ?? 0}`,
      ];
    }),
  );
}

function screen(scene: Scene, story: readonly string[], elapsedMs: number): string[] {
  const rollouts = scene.rollouts.map(({ what, status }) => `  ${rolloutLine(status)}   (${what})`);
  return [
    `Lepton Fleet demo  ${clockText(elapsedMs)}  registry ${scene.registry}`,
    '',
    ...(scene.devices.length === 0 ? [] : [...deviceTable(scene.devices).split('\n'), '']),
    ...(rollouts.length === 0 ? [] : ['rollouts', ...rollouts, '']),
    ...story.slice(-storyLines),
  ].map(spoken);
}

export interface View {
  /** Clears the screen where there is one. */
  begin(): void;
  /** Something happened. */
  say(line: string, elapsedMs: number): void;
  /** A rollout moved; in a pipe one line for each change. */
  rollout(status: RolloutStatus, elapsedMs: number): void;
  /** Draws the scene where somebody watches. */
  draw(scene: Scene, elapsedMs: number): void;
  /** The last word, below everything. */
  end(text: string): void;
}

export function createView(stage: Stage): View {
  const { terminal } = stage;
  const story: string[] = [];
  let shownRollout = '';
  const say = (line: string, elapsedMs: number): void => {
    const timed = `${clockText(elapsedMs).padStart(5)}  ${spoken(line)}`;
    story.push(timed);
    if (terminal === null) stage.write(`${timed}\n`);
  };
  return {
    begin: () => {
      if (terminal !== null) stage.write('\u001b[2J\u001b[H');
    },
    say,
    rollout: (status, elapsedMs) => {
      const line = rolloutLine(status);
      if (line === shownRollout) return;
      shownRollout = line;
      if (terminal === null) stage.write(`${clockText(elapsedMs).padStart(5)}    ${spoken(line)}\n`);
    },
    draw: (scene, elapsedMs) => {
      if (terminal === null) return;
      const { columns, rows } = terminal();
      const lines = screen(scene, story, elapsedMs).slice(0, rows - 1);
      // Home, then each line over the old one: clearing the whole screen first would flicker.
      const drawn = lines.map((line) => `${cut(line, columns)}\u001b[K`).join('\n');
      stage.write(`\u001b[H${drawn}\n\u001b[J`);
    },
    end: (text) => stage.write(`${spoken(text)}\n`),
  };
}

function cut(line: string, columns: number): string {
  if (displayWidth(line) <= columns) return line;
  let kept = '';
  for (const sign of line) {
    if (displayWidth(kept) + displayWidth(sign) > columns - 1) break;
    kept += sign;
  }
  return `${kept}…`;
}

/** The summary for a person. */
export function summaryText(summary: DemoSummary): string {
  const releases = table(
    ['RELEASE', 'ROLLOUT', 'COMMITTED', 'WHY'],
    summary.releases.map((release) => [
      release.release,
      release.state,
      `${release.committed} of ${release.devices}`,
      release.failedGate !== null
        ? `gate ${release.failedGate}: the canary refused it (${release.canaryRefused?.code}), ${release.untouched} others untouched`
        : release.canaryFirst === true
          ? `canary ${release.canary?.slice(0, 8)} first, then all`
          : (release.reason ?? 'all at once'),
    ]),
  );
  const telemetry = table(
    ['DEVICE', 'REQUESTS', 'FAILED', 'RECORDS PRODUCED', 'ACKNOWLEDGED', 'STORED'],
    summary.telemetry.devices.map((device) => {
      const requests = summary.inference.devices.find((one) => one.device === device.device);
      return [
        device.device.slice(0, 8),
        `${requests?.answered ?? 0}`,
        `${requests?.failed ?? 0}`,
        `${device.produced}`,
        `${device.acknowledged}`,
        `${device.stored}`,
      ];
    }),
  );
  const right = Object.entries(summary.inference.rightOnLiveData)
    .map(([version, fraction]) => `${version} ${percent(fraction)}`)
    .join(', ');
  const verdict = summary.ok
    ? `all as promised, in ${clockText(summary.durationMs)}`
    : ['NOT as promised:', ...summary.problems.map((problem) => `  ${problem}`)].join('\n');
  return ['', releases, '', telemetry, '', `right about the live machines: ${right}`, verdict].join('\n');
}
