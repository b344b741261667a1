// Why: seeds that once failed are replayed for ever, and the list of what they found is made from them.
// Trusts: kept-seeds.json, which people write. Must never: be loose about its form, or a bug would drop out unseen.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { FaultId } from '../faults.ts';
import { type Generation, generations } from './seed-run.ts';

export interface KeptSeed {
  seed: number;
  /** The shrunk list; absent: what the seed draws. */
  only?: FaultId[];
  /** Of the world when it was found; absent: the latest. */
  generation?: Generation;
  /** Which invariant broke, in words. */
  found: string;
  cause: string;
  fixed: string;
}

function malformed(detail: string): FleetError {
  return new FleetError('input-invalid', `kept seeds: ${detail}`);
}

/** Parses kept-seeds.json. Fault: `input-invalid`. */
export function parseKeptSeeds(text: string): KeptSeed[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw malformed(String(cause));
  }
  if (!Array.isArray(parsed)) throw malformed('expected a list');
  return parsed.map((entry: Record<string, unknown>, index) => {
    const at = `entry ${index + 1}`;
    const { seed, only, generation, found, cause, fixed } = entry;
    if (typeof seed !== 'number' || !Number.isSafeInteger(seed)) throw malformed(`${at}: seed`);
    const words = (value: unknown, name: string): string => {
      if (typeof value !== 'string' || value.trim() === '') throw malformed(`${at}: ${name}`);
      return value;
    };
    const said = { found: words(found, 'found'), cause: words(cause, 'cause'), fixed: words(fixed, 'fixed') };
    const known = generations.find((one) => one === generation);
    if (generation !== undefined && known === undefined) throw malformed(`${at}: generation`);
    const of = known === undefined ? { seed } : { seed, generation: known };
    if (only === undefined) return { ...of, ...said };
    return { ...of, only: faultIds(only, at), ...said };
  });
}

/** A list of faults and steps. Fault: `input-invalid`. */
export function faultIds(value: unknown, at: string): FaultId[] {
  const isId = (id: unknown): id is FaultId => typeof id === 'string' && /^[a-z][^\s]*( [^\s]+)+$/.test(id);
  if (!Array.isArray(value) || !value.every(isId)) throw malformed(`${at}: only`);
  return value;
}
