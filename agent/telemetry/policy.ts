// Why: what leaves the outbox before it was acknowledged, and in which order: the whole policy in one table.
// Trusts: nothing. Must never: let records go for a reason that has no name here.

import type { DroppedRecords, TelemetryClass } from '../../shared/wire/telemetry.ts';

/** What is dropped first where the outbox is full: the lowest; of one class the oldest. Never for one that is lower. */
export const classRanks: Readonly<Record<TelemetryClass, number>> = {
  log: 0,
  sample: 1,
  stats: 2,
  app: 3,
  event: 4,
};

/**
 * The share of the whole that one class may take; beyond it its own oldest go. Events outrank all others, and whoever
 * owns the bus can cause them: at most half of the application's records may have to leave for them. Logs and captured
 * samples come in floods; statistics of a year take 20 MiB.
 */
export const classShares: Readonly<Record<TelemetryClass, number>> = {
  log: 0.125,
  sample: 0.25,
  stats: 0.5,
  app: 1,
  event: 0.5,
};

export type DropReason = DroppedRecords['reason'];

/** Before this no device had a lepton: its clock was not set, and what it dated so is of unknown age. */
const clockUnsetMs = Date.UTC(2024, 0, 1);

/** Batches that were opened within these bounds are too old to be kept; null where none can be. */
export function tooOld(nowMs: number, retentionMs: number): { fromMs: number; beforeMs: number } | null {
  const beforeMs = nowMs - retentionMs;
  return beforeMs <= clockUnsetMs ? null : { fromMs: clockUnsetMs, beforeMs };
}

const pageBytes = 4_096;
/** What of a page holds a long value; the rest is the link to the next. */
const pageValueBytes = 4_092;

/** What a packed body takes on the disk: SQLite gives a long value pages of its own. */
export function bodyDiskBytes(bodyBytes: number): number {
  return bodyBytes < pageBytes ? bodyBytes : Math.ceil(bodyBytes / pageValueBytes) * pageBytes;
}
