// Why: the table of states of ARCHITECTURE.md, made of the code's own, so that it cannot tell of others.
// Trusts: registry/rollout/states.ts and the update machine's table. Must never: hold a word of its own about a change.

import { transitions } from '../../firmware-sim/explore/expected.ts';
import { type Change, partChanges, rolloutChanges, waveChanges } from '../../registry/rollout/states.ts';

const begin = '<!-- rollout-states:begin -->';
const end = '<!-- rollout-states:end -->';

function rows(title: string, changes: readonly Change<string>[]): string[] {
  const lines = ['', `${title}:`, '', '| from | to | when |', '|---|---|---|'];
  const froms = new Map<string, string[]>();
  for (const { from, to, when } of changes) {
    const key = `${to}\n${when}`;
    froms.set(key, [...(froms.get(key) ?? []), from]);
  }
  for (const [key, from] of froms) {
    const [to, when] = key.split('\n');
    lines.push(`| ${from.join(', ')} | ${to} | ${when} |`);
  }
  return lines;
}

function machineRows(): string[] {
  const next = new Map<string, string[]>();
  for (const [from, to] of transitions) next.set(from, [...(next.get(from) ?? []), to]);
  return [
    '',
    'A device’s update (`agent/update/machine.ts`); in a rollout it may also be `pending`, `unreachable` or `incompatible`:',
    '',
    '| state | may be followed by |',
    '|---|---|',
    ...[...next].map(([from, to]) => `| ${from} | ${[...new Set(to)].join(', ')} |`),
  ];
}

/** Everything between the markers. */
export function stateTable(): string {
  return [
    'Written by `node scripts/state-table.mjs` from the code.',
    ...rows('A rollout', rolloutChanges),
    ...rows('A wave', waveChanges),
    ...rows('A device’s part in a rollout', partChanges),
    ...machineRows(),
  ].join('\n');
}

export function withStateTable(text: string): string {
  const [before, rest] = [text.indexOf(begin), text.indexOf(end)];
  if (before < 0 || rest < before) throw new Error(`ARCHITECTURE.md has no ${begin} … ${end}`);
  return `${text.slice(0, before + begin.length)}\n${stateTable()}\n${text.slice(rest)}`;
}
