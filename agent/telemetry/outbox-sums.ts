// Why: what an outbox holds and what became of the rest, in numbers: kept in memory, begun from the tables at start.
// Trusts: callers to keep memory and transaction together. Must never: let a record leave without being counted.

import type { SqlTx } from '../../shared/kernel/ports.ts';
import { type DroppedRecords, type TelemetryClass, telemetryClasses } from '../../shared/wire/telemetry.ts';

export interface Sums {
  acknowledged: number;
  dropped: number;
  /** Records in batches that were neither dropped nor acknowledged. */
  pending: number;
  /** Batches, dropped ones included: they too wait to be acknowledged. */
  batches: number;
  bytes: number;
  /** What of it each class has, without `batchOverheadBytes`. */
  held: Record<TelemetryClass, { records: number; bytes: number }>;
  droppedBy: DroppedRecords[];
}

export function copySums(sums: Sums): Sums {
  const held = mapClasses((name) => ({ ...sums.held[name] }));
  return { ...sums, held, droppedBy: sums.droppedBy.map((one) => ({ ...one })) };
}

function mapClasses<T>(make: (className: TelemetryClass) => T): Record<TelemetryClass, T> {
  return {
    event: make('event'),
    stats: make('stats'),
    sample: make('sample'),
    log: make('log'),
    app: make('app'),
  };
}

/** What a batch costs on the disk beside its records, about. */
export const batchOverheadBytes = 1_024;

export function emptySums(acknowledged: number, dropped: number): Sums {
  const held = mapClasses(() => ({ records: 0, bytes: 0 }));
  return { acknowledged, dropped, pending: 0, batches: 0, bytes: 0, held, droppedBy: [] };
}

/** Counts records that came, or went (negative), with what they take. */
export function addHeld(sums: Sums, className: TelemetryClass, records: number, bytes: number): void {
  sums.pending += records;
  sums.bytes += bytes;
  sums.held[className].records += records;
  sums.held[className].bytes += bytes;
}

/** Counts what was dropped, or was not after all (negative), in the database and in `sums`. */
export function countDropped(db: SqlTx, sums: Sums, dropped: DroppedRecords): void {
  const { class: className, reason, records } = dropped;
  if (records === 0) return;
  sums.dropped += records;
  addToCounters(db, 0, records);
  db.run(
    `INSERT INTO outbox_dropped (class, reason, records) VALUES (?, ?, ?)
     ON CONFLICT (class, reason) DO UPDATE SET records = records + excluded.records`,
    className,
    reason,
    records,
  );
  const known = sums.droppedBy.find((one) => one.class === className && one.reason === reason);
  if (known === undefined) sums.droppedBy.push({ ...dropped });
  else known.records += records;
}

/** Only right while no batch is open: an open one's records are counted in memory. */
export function readSums(db: SqlTx): Sums {
  const counters = db.get<{ acknowledged: number; dropped: number }>(
    'SELECT acknowledged, dropped FROM outbox_counters WHERE id = 1',
  );
  const sums = emptySums(counters?.acknowledged ?? 0, counters?.dropped ?? 0);
  const classes = db.all<{ class: TelemetryClass; records: number; batches: number; bytes: number }>(
    `SELECT class, sum(CASE WHEN format = 'tombstone' THEN 0 ELSE record_count END) AS records,
       count(*) AS batches, sum(held_bytes) AS bytes FROM batches GROUP BY class`,
  );
  for (const { class: className, records, batches, bytes } of classes) {
    sums.held[className] = { records, bytes };
    sums.pending += records;
    sums.batches += batches;
    sums.bytes += bytes + batches * batchOverheadBytes;
  }
  sums.droppedBy = db.all<DroppedRecords>(
    'SELECT class, reason, records FROM outbox_dropped WHERE records > 0 ORDER BY class, reason',
  );
  return sums;
}

export function addToCounters(db: SqlTx, acknowledged: number, dropped: number): void {
  db.run(
    'UPDATE outbox_counters SET acknowledged = acknowledged + ?, dropped = dropped + ? WHERE id = 1',
    acknowledged,
    dropped,
  );
}

/** A new enrolment counts from what the one before could no longer send. */
export function restartCounters(db: SqlTx, before: Sums): Sums {
  db.run('UPDATE outbox_counters SET acknowledged = 0, dropped = 0 WHERE id = 1');
  db.run('DELETE FROM outbox_dropped');
  const sums = emptySums(0, 0);
  for (const className of telemetryClasses) {
    countDropped(db, sums, { class: className, reason: 'reset', records: before.held[className].records });
  }
  return sums;
}
