// Why: when devices are asked to send slower, and for how long: before the queue overflows, not after.
// Trusts: nothing; pure. Must never: ask for a pause while the queue is calm.

import { telemetryLimits } from './limits.ts';

/** How fast the store takes batches of late, in bytes a millisecond; null before anything was stored. */
export type Rate = number | null;

/** How much the newest group counts. */
const newest = 0.2;

/** The rate after a group of so many bytes took so long. */
export function rateAfter(rate: Rate, group: { bytes: number; ms: number }): Rate {
  const now = group.bytes / Math.max(1, group.ms);
  return rate === null ? now : rate + newest * (now - rate);
}

/** What a device is asked to wait with its next batch; null: nothing. */
export function pauseFor(waitingBytes: number, bytesMax: number, rate: Rate): number | null {
  const calmBytes = bytesMax * telemetryLimits.waitingCalmShare;
  if (waitingBytes <= calmBytes) return null;
  const { pauseMsMin, pauseMsMax } = telemetryLimits;
  if (rate === null || rate <= 0) return pauseMsMin;
  const neededMs = Math.ceil((waitingBytes - calmBytes) / rate);
  return Math.min(pauseMsMax, Math.max(pauseMsMin, neededMs));
}
