// Why: `lepton rollout plan`: what a rollout file would do, before anybody does it.
// Trusts: the registry's answer, validated. Must never: hide that there is more than is shown.

import type { Command } from 'commander';
import { type RolloutPlan, rolloutPlanSchema } from '../../shared/wire/rollout-plan.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags, positive } from './flags.ts';
import { print, size, table, when, withWord } from './output.ts';
import { stageLines } from './region-rollout-text.ts';
import { readRolloutFile } from './rollout-file.ts';

const shownMax = 20;

function lasting(ms: number | null): string {
  if (ms === null) return '?';
  const minutes = Math.floor(ms / 60_000);
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.ceil(ms / 1_000)} s`;
}

/** A title with its rows: the first of them, and how many more there are. */
function section(title: (count: number) => string, head: string[], rows: string[][]): string[] {
  if (rows.length === 0) return [];
  const rest = rows.length - shownMax;
  return [
    '',
    title(rows.length),
    table(head, rows.slice(0, shownMax)),
    ...(rest > 0 ? [`… and ${rest} more (--json shows all)`] : []),
  ];
}

export function planText(plan: RolloutPlan): string {
  const { devices, waves, incompatible } = plan;
  const done = devices.filter((one) => one.done);
  const away = devices.filter((one) => one.offlineSinceMs !== null);
  const conflicts = devices.flatMap(({ id, conflict }) => (conflict === null ? [] : [{ id, conflict }]));
  return [
    `${plan.name}: ${plan.releases?.join(withWord()) ?? `${plan.release} as ${plan.as}`} on ${devices.length} ${devices.length === 1 ? 'device' : 'devices'}, ${size(plan.bytes)}, ${plan.minMs === null ? 'time not told' : `at least ${lasting(plan.minMs)}`}`,
    table(
      ['WAVE', 'DEVICES', 'BYTES', 'AT LEAST', 'APPROVALS'],
      waves.map((one) => [
        `${one.index}`,
        `${one.devices}`,
        size(one.bytes),
        lasting(one.minMs),
        `${one.approvals}`,
      ]),
    ),
    ...stageLines(plan),
    ...section(
      (count) => `to do: ${count}`,
      ['DEVICE', 'WAVE', 'RUNS', 'FETCHES', 'WAY'],
      devices
        .filter((one) => !one.done)
        .map(({ id, wave, runs, bytes, way }) => [id, `${wave}`, runs ?? '-', size(bytes), way]),
    ),
    ...section(
      (count) => `done already: ${count}`,
      ['DEVICE', 'WAVE'],
      done.map(({ id, wave }) => [id, `${wave}`]),
    ),
    ...section(
      (count) => `offline: ${count}`,
      ['DEVICE', 'WAVE', 'SINCE'],
      away.map(({ id, wave, offlineSinceMs }) => [id, `${wave}`, when(offlineSinceMs)]),
    ),
    ...section(
      (count) => `in another rollout: ${count}`,
      ['DEVICE', 'ROLLOUT', 'STATE', 'THIS ONE'],
      conflicts.map(({ id, conflict }) => [
        id,
        conflict.rollout,
        conflict.state,
        conflict.outcome === 'waits' ? 'waits for it' : 'takes the device over',
      ]),
    ),
    ...section(
      (count) => `incompatible: ${count}`,
      ['DEVICE', 'WHY'],
      incompatible.map(({ id, reason }) => [id, reason]),
    ),
    '',
    'this rests on:',
    ...plan.restsOn.map((line) => `  ${line}`),
  ].join('\n');
}

export function addRolloutPlan(rollout: Command): void {
  connected(rollout.command('plan'))
    .description('what a rollout file would do: who gets it when, who cannot, what it costs; nothing is done')
    .requiredOption('-f, --file <file>', 'rollout file (YAML or JSON), - for standard input')
    .option('--rate <bytes>', 'bytes that one device fetches in a second, for an estimate of time', positive)
    .action(async (flags: GlobalFlags & { file: string; rate?: number }) => {
      const { text: file } = readRolloutFile(flags.file);
      const body = { file, ...(flags.rate === undefined ? {} : { bytesPerSecond: flags.rate }) };
      const plan = await connect(flags).send('POST', '/api/v1/rollouts/plan', body, rolloutPlanSchema);
      print({ json: flags.json === true }, plan, () => planText(plan));
    });
}
