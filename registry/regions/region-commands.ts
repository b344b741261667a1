// Why: what an operator's word makes of a rollout across regions: stop, go on with or without a region, end it.
// Trusts: its caller for who may say it. Must never: try again in a region that has succeeded.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { wish } from './region-controller.ts';
import { type PartFact, type RegionRolloutFact, type RegionRolloutNext, standingOf } from './region-facts.ts';

const isOpen = ({ state }: RegionRolloutFact): boolean => state === 'running' || state === 'paused';

/** The step that follows tells the regions. Refusal: `rollout-state`. */
export function pause(
  facts: RegionRolloutFact,
  by: string,
  comment: string | null,
): Result<RegionRolloutNext> {
  if (facts.state !== 'running') return refuse('rollout-state', `it is ${facts.state}`);
  const reason = `paused by ${by}${comment === null ? '' : `: ${comment}`}`;
  const { endedAtMs, parts } = facts;
  return ok({ state: 'paused', reason, endedAtMs, parts });
}

/**
 * Goes on. Regions that failed try again, but those it goes on without: their part ends, and their devices keep what they
 * have. Refusals: `rollout-state`, `rollout-region-unknown`.
 */
export function resume(
  facts: RegionRolloutFact,
  by: string,
  { without, comment }: { without: readonly string[]; comment: string | null },
): Result<RegionRolloutNext> {
  const { state, endedAtMs, nowMs } = facts;
  if (!isOpen(facts) || (state === 'running' && without.length === 0))
    return refuse('rollout-state', `it is ${state}`);
  const unknown = without.find((region) => !facts.parts.some((part) => part.region === region));
  if (unknown !== undefined)
    return refuse('rollout-region-unknown', `${unknown} is no region of ${facts.id}`);
  const reason = comment === null ? null : `resumed by ${by}: ${comment}`;
  const words = { by, reason, nowMs };
  const parts = facts.parts.map((part): PartFact => {
    const standing = standingOf(part);
    if (standing === 'succeeded' || standing === 'left-out') return part;
    if (without.includes(part.region)) return { ...wish(part, 'abort', words), leftOut: true };
    if (standing === 'failed')
      return {
        ...part,
        ...{ wish: 'run', by, reason, wishedAtMs: nowMs },
        ...{ revision: part.revision + 1, attempt: part.attempt + 1, succeededAtMs: null },
      };
    return part.wish === 'pause' ? wish(part, 'run', words) : part;
  });
  if (parts.every(({ leftOut }) => leftOut))
    return refuse('rollout-state', 'no region would be left: abort it');
  return ok({ state: 'running', reason: null, endedAtMs, parts });
}

/** Ends it in every region that has not succeeded. Refusal: `rollout-state`. */
export function abort(facts: RegionRolloutFact, by: string, revert: boolean): Result<RegionRolloutNext> {
  if (!isOpen(facts)) return refuse('rollout-state', `it is ${facts.state}`);
  const { nowMs } = facts;
  const reason = `aborted by ${by}`;
  const parts = facts.parts.map((part) =>
    standingOf(part) === 'succeeded'
      ? part
      : wish(part, revert ? 'abort-revert' : 'abort', { by, reason, nowMs }),
  );
  return revert
    ? ok({ state: 'rolling-back', reason, endedAtMs: null, parts })
    : ok({ state: 'aborted', reason, endedAtMs: nowMs, parts });
}
