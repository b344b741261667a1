// Why: a rollout across regions as plain values: what each region was told, what each said, and what follows of both.
// Trusts: region-rollout-records.ts, which reads them in one transaction. Must never: hold anything that is not stored.

import type { RegionRolloutState } from '../../shared/wire/region-rollouts.ts';
import type { PartState, RolloutProgress, Wish } from '../../shared/wire/rollout-orders.ts';

/** One region's part. */
export interface PartFact {
  region: string;
  stage: number;
  wish: Wish;
  /** Who or what the wish came from; null: it followed by itself. */
  by: string | null;
  reason: string | null;
  wishedAtMs: number;
  /** Only rises: with every change of the wish. */
  revision: number;
  attempt: number;
  /** Somebody said that the rollout goes on without it. */
  leftOut: boolean;
  /** When it was first heard that this attempt succeeded. */
  succeededAtMs: number | null;
  /** As the region last said; null: nothing yet. */
  progress: RolloutProgress | null;
  /** Since when it is cut off, null where it is not. */
  unreachableSinceMs: number | null;
}

export interface RegionRolloutFact {
  id: string;
  state: RegionRolloutState;
  reason: string | null;
  endedAtMs: number | null;
  /** By stage: how long it stands before the next one begins. */
  soaksMs: readonly number[];
  /** After so long later stages go on without a region that is cut off; null: they wait. */
  skipAfterMs: number | null;
  parts: readonly PartFact[];
  nowMs: number;
}

/** What is stored anew. */
export type RegionRolloutNext = Pick<RegionRolloutFact, 'state' | 'reason' | 'endedAtMs' | 'parts'>;

const ended: ReadonlySet<PartState> = new Set(['succeeded', 'failed', 'aborted', 'refused']);

/** What a region said of the attempt that it is at; null where it has not spoken of that one. */
export function saidOf({ progress, attempt }: PartFact): RolloutProgress | null {
  return progress !== null && progress.attempt === attempt ? progress : null;
}

/** Whether there is, or was, a rollout of this attempt in the region. */
export const hasBegun = (part: PartFact): boolean => (saidOf(part)?.rollout ?? null) !== null;

/** Whether nothing more becomes of it there by itself. */
export const hasEnded = (part: PartFact): boolean => ended.has(saidOf(part)?.state ?? 'waiting');

export type Standing = 'left-out' | 'waiting' | 'running' | 'paused' | 'succeeded' | 'failed';

export function standingOf(part: PartFact): Standing {
  if (part.leftOut) return 'left-out';
  const said = saidOf(part);
  switch (said?.state) {
    case undefined:
    case 'waiting':
    case 'draft':
      return 'waiting';
    case 'running':
    case 'awaiting-approval':
      return 'running';
    case 'succeeded':
      return 'succeeded';
    case 'paused':
      // A gate that failed cannot be undone: going on is another attempt.
      return said?.waves.some(({ state }) => state === 'failed') === true ? 'failed' : 'paused';
    case 'refused':
    case 'failed':
    case 'rolling-back':
    case 'aborted':
      return 'failed';
  }
}

/** The parts that keep the others from going on. */
export const failedParts = (parts: readonly PartFact[]): PartFact[] =>
  parts.filter((part) => standingOf(part) === 'failed');
