// Why: the tables of firmware-sim/README.md are made from what was measured, never typed.
// Trusts: its arguments. Must never: change a line outside its markers.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { KeptSeed } from './kept-seeds.ts';

export interface PlantedResult {
  name: string;
  file: string;
  /** In whose seeds it was looked for. */
  world: string;
  /** The first seed that broke an invariant, how many were needed, and which invariant; null: none did. */
  seed: number | null;
  seedsNeeded: number | null;
  violation: string | null;
  /** Where none did: the last seed that was run; absent from results of earlier versions. */
  lookedUpTo?: number;
}

const cell = (text: string) => text.replaceAll('|', '\\|').replace(/\s+/g, ' ').trim();

/** Replaces what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. Fault: `input-invalid` without them. */
export function betweenMarkers(text: string, name: string, table: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new FleetError('input-invalid', `no markers of ${name}`);
  return `${text.slice(0, from + begin.length)}\n\n${table}\n\n${text.slice(to)}`;
}

export function foundBugsTable(kept: readonly KeptSeed[]): string {
  if (kept.length === 0) return 'None yet.';
  const rows = kept.map(
    ({ seed, found, cause, fixed }) => `| ${seed} | ${cell(found)} | ${cell(cause)} | ${cell(fixed)} |`,
  );
  return ['| seed | what broke | cause | fix |', '|---|---|---|---|', ...rows].join('\n');
}

export function plantedBugsTable(results: readonly PlantedResult[]): string {
  if (results.length === 0) return 'Not run yet.';
  const rows = results.map(({ name, file, world, seed, seedsNeeded, violation, lookedUpTo }) => {
    const missed = lookedUpTo === undefined ? 'not found' : `not found in ${lookedUpTo}`;
    const found = violation === null ? missed : cell(violation.split('\n')[0] ?? '').slice(0, 140);
    return `| ${cell(name)} | \`${file}\` | ${world} | ${seed ?? '–'} | ${seedsNeeded ?? '–'} | ${found} |`;
  });
  return [
    '| planted bug | file | world | first seed | seeds needed | invariant that broke |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}
