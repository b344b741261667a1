// Why: what a run of one seed is asked and what it tells, so that explorer, shrinker and tests do not depend on how
// a world is put together. Trusts: nothing. Must never: hold anything that cannot be sent between processes as JSON.

import type { FaultId } from '../faults.ts';
import type { Mark } from '../world.ts';

export interface SeedOptions {
  seed: number;
  /** Exactly these faults and steps; absent: what the seed draws. */
  only?: readonly FaultId[];
  /** Keeps the text of the trace and the marks of the timeline; without it only its hash. */
  trace?: boolean;
  /**
   * What the world draws: an earlier generation lacks what was added to it since, so that a kept seed stays what it was.
   * Absent: the latest.
   */
  generation?: Generation;
}

/**
 * 2: windows, zones, deferral; order, growth, disruption and approvals of rollouts; pauses and retries.
 * 3: rollouts of several releases.
 */
export const generations = [1, 2, 3] as const;
export type Generation = (typeof generations)[number];
export const latestGeneration: Generation = 3;

/** How often each thing was reached, by `area name`: `fault disk.full`, `state device soaking`, `code fetch-timeout`, … */
export type Coverage = Record<string, number>;

export interface SeedResult {
  seed: number;
  /** The first invariant that broke, in words; null where all held. */
  violation: string | null;
  /** Virtual time of it, or of the end, milliseconds. */
  endedAtMs: number;
  /** Faults and steps that took place, in order. */
  faults: FaultId[];
  operations: number;
  devices: number;
  traceSha256: string;
  /** Empty unless asked for. */
  trace: string[];
  marks: Mark[];
  coverage: Coverage;
}

export type RunSeed = (options: SeedOptions) => Promise<SeedResult>;
