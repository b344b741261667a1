// Why: what an operator's word makes of a rollout. Trusts: its caller for who may say it.
// Must never: undo a wave that failed.

import type { RolloutFact, WaveFact } from './facts.ts';

/**
 * An operator ends it: what is assigned stays, or with `revert` goes back.
 * Returns null where the rollout has ended already.
 */
export function abort(rollout: RolloutFact, by: string, revert: boolean, nowMs: number): RolloutFact | null {
  if (!abortable.has(rollout.state)) return null;
  const reason = `aborted by ${by}`;
  if (revert) return { ...rollout, state: 'rolling-back', endsAs: 'aborted', reason };
  return { ...rollout, state: 'aborted', reason, endedAtMs: nowMs };
}

const abortable: ReadonlySet<RolloutFact['state']> = new Set(['awaiting-approval', 'running', 'paused']);

/** An operator stops it where it is: what is assigned goes on, nothing more is. Null where it does not run. */
export function pause(rollout: RolloutFact, by: string, comment: string | null): RolloutFact | null {
  if (rollout.state !== 'running' && rollout.state !== 'awaiting-approval') return null;
  return { ...rollout, state: 'paused', reason: `paused by ${by}${comment === null ? '' : `: ${comment}`}` };
}

/** Goes on where it was paused. Null where it was not, or where a wave has failed: that cannot be undone. */
export function resume(rollout: RolloutFact, waves: readonly WaveFact[]): RolloutFact | null {
  if (rollout.state !== 'paused' || waves.some(({ state }) => state === 'failed')) return null;
  return { ...rollout, state: 'running', reason: null };
}
