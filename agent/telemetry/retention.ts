// Why: what waited too long on a device leaves it, counted (agent/telemetry/policy.ts).
// Trusts: the device's clock, as far as it was set. Must never: drop what is on its way, or hold appends up for long.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Log, Store } from '../../shared/kernel/ports.ts';
import { copySums, type Sums } from './outbox-sums.ts';
import { openedWithin, reclaim } from './outbox-tables.ts';
import { type Dropped, dropHeld } from './placing.ts';
import { tooOld } from './policy.ts';

export interface RetentionParts {
  store: Store;
  clock: Clock;
  log: Log;
  retentionMs: number;
  exclusive<T>(work: () => Promise<T>): Promise<T>;
  underWay(): readonly number[];
  sums(): Sums;
  /** Durable: what the outbox holds now. */
  onDropped(after: Sums, dropped: readonly Dropped[]): void;
}

/** Pages given back to the disk by one transaction: each is moved to where the file ends. */
export const reclaimPagesMax = 64;
/** Between two looks: each reads through the table of batches. */
const lookMs = 3_600_000;
/** Batches dropped in one transaction. */
const batchesMax = 64;

/** Drops what is too old, some at a time; looks for it once in a while. A fault is the next append's to find. */
export function createRetention(parts: RetentionParts): () => Promise<void> {
  const { store, clock, log, retentionMs } = parts;
  let lookAtMs = Number.NEGATIVE_INFINITY;

  return async () => {
    if (clock.mono() < lookAtMs) return;
    lookAtMs = clock.mono() + Math.min(lookMs, retentionMs / 100);
    const bounds = tooOld(clock.wall(), retentionMs);
    if (bounds === null) return;
    try {
      await parts.exclusive(async () => {
        const after = copySums(parts.sums());
        const dropped = await store.tx((db) => {
          const old = openedWithin(db, bounds, parts.underWay(), batchesMax).map(
            (batch): Dropped => ({ ...batch, reason: 'age' }),
          );
          for (const batch of old) dropHeld(db, batch, after);
          if (old.length > 0) reclaim(db, reclaimPagesMax);
          return old;
        });
        if (dropped.length === batchesMax) lookAtMs = Number.NEGATIVE_INFINITY;
        if (dropped.length > 0) parts.onDropped(after, dropped);
      });
    } catch (error) {
      const { code, message: detail } = asFleetError(error);
      log.emit('error', 'outbox.failed', { while: 'dropping what is old', code, detail });
    }
  };
}
