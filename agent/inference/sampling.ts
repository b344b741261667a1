// Why: whether a request is kept for a person to look at, by the region's rules. Pure.
// Trusts: its caller for what happened. Must never: read a clock or chance of its own.

import type { AssignedSampling, SampleReason } from '../../shared/wire/sample-rules.ts';

/** What is known of one answered request. Asked for only where a rule wants to know it. */
export interface RequestFacts {
  /** 0 … 1; null where the answer has none that is known. */
  confidence(): number | null;
  /** Whether an input lies outside the reference profile. */
  isOutside(): boolean;
  /** Of a candidate that answered a copy, 0 … 1; null where none did. */
  agreement: number | null;
}

/** What was kept in one hour. */
export interface HourCount {
  hour: number;
  kept: number;
}

const hourMs = 3_600_000;

/** Why it is to be kept; empty: it is not. `draw` lies in [0, 1) and is by chance. */
export function reasonsFor(rules: AssignedSampling, facts: RequestFacts, draw: number): SampleReason[] {
  const reasons: SampleReason[] = [];
  const confidence = rules.lowConfidence === undefined ? null : facts.confidence();
  if (confidence !== null && confidence < (rules.lowConfidence?.below ?? 0)) reasons.push('low-confidence');
  if (rules.disagreement === true && facts.agreement !== null && facts.agreement < 1)
    reasons.push('disagreement');
  if (rules.outOfRange === true && facts.isOutside()) reasons.push('out-of-range');
  if (rules.randomShare !== undefined && draw < rules.randomShare) reasons.push('random');
  return reasons;
}

/** The count with one more, null where the hour has no room. Hours begin with the clock that `nowMs` is of. */
export function oneMore(count: HourCount, nowMs: number, perHourMax: number): HourCount | null {
  const hour = Math.floor(nowMs / hourMs);
  const kept = hour === count.hour ? count.kept : 0;
  return kept < perHourMax ? { hour, kept: kept + 1 } : null;
}
