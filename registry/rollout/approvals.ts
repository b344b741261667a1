// Why: which waves wait for people, and whether enough of them have spoken.
// Trusts: the facts: one approval a person and wave, none by whoever started the rollout. Must never: count one that expired.

import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import type { ApprovalFact, WaveFact } from './facts.ts';

export function needsApproval(spec: RolloutSpec, wave: number): boolean {
  return spec.approvals !== undefined && (spec.approvals.waves ?? [0]).includes(wave);
}

/** How many people are still to approve the wave before it may begin. */
export function approvalsMissing(
  spec: RolloutSpec,
  wave: number,
  approvals: readonly ApprovalFact[],
  nowMs: number,
): number {
  if (spec.approvals === undefined || !needsApproval(spec, wave)) return 0;
  const people = new Set(
    approvals.filter((one) => one.wave === wave && one.expiresAtMs > nowMs).map(({ by }) => by),
  );
  return Math.max(0, spec.approvals.required - people.size);
}

/** The next wave that has not begun and needs approval; null where there is none. */
export function waveToApprove(spec: RolloutSpec, waves: readonly WaveFact[]): number | null {
  return waves.find(({ index, state }) => state === 'pending' && needsApproval(spec, index))?.index ?? null;
}
