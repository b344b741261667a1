// Why: from a failing seed to the shortest list of faults and steps that still breaks the same invariant: delta
// debugging (Zeller and Hildebrandt 2002) after whole kinds and whole nodes were tried.
// Trusts: runs to be deterministic. Must never: call another failure the same, nor give another list with more jobs.

import type { FaultId } from '../faults.ts';
import type { SeedResult } from './seed-run.ts';

export interface ShrinkParts {
  run: (only: readonly FaultId[]) => Promise<SeedResult>;
  /** How many runs may be taken at once; it changes the time, never the list. */
  jobs: number;
  runsMax: number;
  /** Told after each list that is shorter, and now and then. */
  onProgress?: (runs: number, length: number) => void;
}

export interface Shrunk {
  seed: number;
  violation: string;
  only: FaultId[];
  runs: number;
  /** False: the bound on runs came first; true: no single entry can be left out. */
  complete: boolean;
}

/** What two failures must have in common to be the same: the first line without numbers and ids. */
export function maskedViolation(text: string): string {
  return (text.split('\n')[0] ?? '')
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/gi, '#')
    .replace(/\b(?=[a-f]*\d)[0-9a-f]{6,}\b/gi, '#')
    .replace(/\d+/g, '#');
}

const kindOf = (id: FaultId) => id.split(' ')[0] ?? id;
/** Steps belong to no node. */
const nodeOf = (id: FaultId) => (kindOf(id) === 'step' ? null : (id.split(' ')[1] ?? null));
const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

/** Null: with its own faults, named one by one, the seed does not break the same invariant. */
export async function shrink(failed: SeedResult, parts: ShrinkParts): Promise<Shrunk | null> {
  const wanted = maskedViolation(failed.violation ?? '');
  const seen = new Map<string, FaultId[] | null>();
  let runs = 0;
  const isOut = () => runs >= parts.runsMax;

  /** What took place in a run of this list where it still fails, else null. */
  async function still(list: readonly FaultId[]): Promise<FaultId[] | null> {
    const key = list.join('\n');
    const known = seen.get(key);
    if (known !== undefined) return known;
    const result = await parts.run(list);
    const same = result.violation !== null && maskedViolation(result.violation) === wanted;
    // What was never asked for made no difference.
    const happened = new Set(result.faults);
    const left = same ? list.filter((id) => happened.has(id)) : null;
    seen.set(key, left);
    return left;
  }

  /** The first of the candidates that still fails; those after it may have run, and do not count. */
  async function firstOf(candidates: FaultId[][]): Promise<FaultId[] | null> {
    for (let at = 0; at < candidates.length && !isOut(); at += parts.jobs) {
      const some = candidates.slice(at, at + Math.min(parts.jobs, parts.runsMax - runs));
      const found = await Promise.all(some.map(still));
      for (const left of found) {
        runs += 1;
        if (left !== null) return left;
      }
      parts.onProgress?.(runs, list.length);
    }
    return null;
  }

  async function withoutGroups(groupOf: (id: FaultId) => string | null): Promise<void> {
    for (const group of unique(list.map(groupOf))) {
      const rest = list.filter((id) => groupOf(id) !== group);
      if (group === null || rest.length === list.length) continue;
      list = (await firstOf([rest])) ?? list;
    }
  }

  let list = [...failed.faults];
  const again = await firstOf([list]);
  if (again === null) return null;
  list = again;
  const nothing = await firstOf([[]]);
  if (nothing !== null) list = nothing;
  await withoutGroups(kindOf);
  await withoutGroups(nodeOf);
  let pieces = 2;
  let complete = list.length === 0;
  while (list.length > 0 && !isOut()) {
    pieces = Math.min(pieces, list.length);
    const size = Math.ceil(list.length / pieces);
    const parted = Array.from({ length: Math.ceil(list.length / size) }, (_, index) => index * size);
    const left = await firstOf(parted.map((from) => [...list.slice(0, from), ...list.slice(from + size)]));
    if (left !== null) {
      list = left;
      pieces = Math.max(2, pieces - 1);
      parts.onProgress?.(runs, list.length);
    } else if (size === 1) {
      complete = !isOut();
      break;
    } else pieces = Math.min(list.length, pieces * 2);
    if (list.length === 0) complete = true;
  }
  return { seed: failed.seed, violation: failed.violation ?? '', only: list, runs, complete };
}
