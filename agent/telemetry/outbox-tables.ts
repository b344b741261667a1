// Why: what the outbox keeps on the disk, and the only SQL that touches it.
// Trusts: callers to seal before they store. Must never: hold a record in clear, or a batch's key.

import type { Migration } from '../../shared/host/sqlite.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import type { BatchStatement, TelemetryClass, TelemetryKey } from '../../shared/wire/telemetry.ts';
import { bodyDiskBytes, type DropReason } from './policy.ts';

/** A row's id is its batch's sequence and its index in one number, so that rows are appended at one end. */
const rowsPerBatch = 1_000_000;

export const outboxMigrations: readonly Migration[] = [
  {
    name: 'agent-outbox-001',
    sql: `
      CREATE TABLE outbox_state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        device_id TEXT NOT NULL,
        region TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        key_id TEXT NOT NULL,
        public_key TEXT NOT NULL,
        next_sequence INTEGER NOT NULL,
        previous_head_sha256 TEXT
      ) STRICT;
      -- Of this enrolment. Produced is the sum of these and of what is pending.
      CREATE TABLE outbox_counters (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        acknowledged INTEGER NOT NULL,
        dropped INTEGER NOT NULL
      ) STRICT;
      INSERT INTO outbox_counters (id, acknowledged, dropped) VALUES (1, 0, 0);
      CREATE TABLE batches (
        sequence INTEGER PRIMARY KEY,
        class TEXT NOT NULL,
        rank INTEGER NOT NULL,
        -- open, rows, packed, tombstone: where the records are; open and rows have them in the table rows.
        format TEXT NOT NULL,
        record_count INTEGER NOT NULL,
        plain_bytes INTEGER NOT NULL,
        -- What its records take on the disk.
        held_bytes INTEGER NOT NULL,
        head BLOB NOT NULL,
        head_sha256 TEXT NOT NULL,
        wrap BLOB NOT NULL,
        body BLOB
      ) STRICT;
      CREATE TABLE rows (
        id INTEGER PRIMARY KEY,
        box BLOB NOT NULL
      ) STRICT;
    `,
  },
  {
    name: 'agent-outbox-002',
    sql: `
      -- The newest answer that made a batch be deleted, as the region signed it: a registry that was restored
      -- from a backup learns from it what it had stored.
      CREATE TABLE outbox_acknowledgement (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sequence INTEGER NOT NULL,
        envelope TEXT NOT NULL
      ) STRICT;
    `,
  },
  {
    name: 'agent-outbox-003',
    sql: `
      -- Why a tombstone's records went. Behind the body, which SQLite would have to walk through: for tombstones only.
      ALTER TABLE batches ADD COLUMN drop_reason TEXT;
      -- Of this enrolment, and only what was dropped since this table exists: outbox_counters has all.
      CREATE TABLE outbox_dropped (
        class TEXT NOT NULL,
        reason TEXT NOT NULL,
        records INTEGER NOT NULL,
        PRIMARY KEY (class, reason)
      ) STRICT, WITHOUT ROWID;
    `,
  },
];

export interface OutboxOwner {
  deviceId: string;
  region: string;
  key: TelemetryKey;
}

export interface OutboxState extends OutboxOwner {
  nextSequence: number;
  previousHeadSha256: string | null;
}

export function readState(db: SqlTx): OutboxState | null {
  const row = db.get<{
    device_id: string;
    region: string;
    epoch: number;
    key_id: string;
    public_key: string;
    next_sequence: number;
    previous_head_sha256: string | null;
  }>('SELECT * FROM outbox_state WHERE id = 1');
  if (row === undefined) return null;
  return {
    deviceId: row.device_id,
    region: row.region,
    key: { epoch: row.epoch, keyId: row.key_id, publicKey: row.public_key },
    nextSequence: row.next_sequence,
    previousHeadSha256: row.previous_head_sha256,
  };
}

export function writeState(db: SqlTx, state: OutboxState): void {
  db.run(
    `INSERT OR REPLACE INTO outbox_state (id, device_id, region, epoch, key_id, public_key, next_sequence,
       previous_head_sha256) VALUES (1, ?, ?, ?, ?, ?, ?, ?)`,
    state.deviceId,
    state.region,
    state.key.epoch,
    state.key.keyId,
    state.key.publicKey,
    state.nextSequence,
    state.previousHeadSha256,
  );
}

/** The key of a batch that was open died with its process: its rows are what there is to send. */
export function closeOrphans(db: SqlTx): void {
  const open = db.all<{ sequence: number }>("SELECT sequence FROM batches WHERE format = 'open'");
  for (const { sequence } of open) {
    const [from, to] = rowRange(sequence);
    db.run(
      `UPDATE batches SET format = 'rows',
         (record_count, plain_bytes, held_bytes) =
           (SELECT count(*), coalesce(sum(length(box) - 15), 0), coalesce(sum(length(box) + 4), 0)
            FROM rows WHERE id >= ? AND id < ?)
       WHERE sequence = ?`,
      from,
      to,
      sequence,
    );
  }
}

export interface OpenedBatch {
  sequence: number;
  class: TelemetryClass;
  rank: number;
  head: Uint8Array;
  headSha256: string;
  wrap: Uint8Array;
}

export function insertBatch(db: SqlTx, batch: OpenedBatch): void {
  db.run(
    `INSERT INTO batches (sequence, class, rank, format, record_count, plain_bytes, held_bytes, head, head_sha256,
       wrap, body) VALUES (?, ?, ?, 'open', 0, 0, 0, ?, ?, ?, NULL)`,
    batch.sequence,
    batch.class,
    batch.rank,
    batch.head,
    batch.headSha256,
    batch.wrap,
  );
}

export function insertRow(db: SqlTx, sequence: number, index: number, box: Uint8Array): void {
  db.run('INSERT INTO rows (id, box) VALUES (?, ?)', sequence * rowsPerBatch + index, box);
}

function rowRange(sequence: number): [number, number] {
  return [sequence * rowsPerBatch, (sequence + 1) * rowsPerBatch];
}

function deleteRows(db: SqlTx, sequence: number): void {
  db.run('DELETE FROM rows WHERE id >= ? AND id < ?', ...rowRange(sequence));
}

/** Puts one packed body in the place of a batch's rows. */
export function packBatch(
  db: SqlTx,
  sequence: number,
  packed: { recordCount: number; plainBytes: number; body: Uint8Array },
): void {
  db.run(
    `UPDATE batches SET format = 'packed', record_count = ?, plain_bytes = ?, held_bytes = ?, body = ?
     WHERE sequence = ?`,
    packed.recordCount,
    packed.plainBytes,
    bodyDiskBytes(packed.body.length),
    packed.body,
    sequence,
  );
  deleteRows(db, sequence);
}

export interface HeldBatch {
  sequence: number;
  format: 'open' | BatchStatement['format'];
  recordCount: number;
  plainBytes: number;
  heldBytes: number;
  class: TelemetryClass;
  headSha256: string;
  rank: number;
}

interface HeldRow {
  rank: number;
  sequence: number;
  format: HeldBatch['format'];
  record_count: number;
  plain_bytes: number;
  held_bytes: number;
  class: TelemetryClass;
  head_sha256: string;
}

const heldColumns = 'sequence, format, record_count, plain_bytes, held_bytes, class, head_sha256, rank';

function heldBatch(row: HeldRow): HeldBatch {
  return {
    sequence: row.sequence,
    format: row.format,
    recordCount: row.record_count,
    plainBytes: row.plain_bytes,
    heldBytes: row.held_bytes,
    class: row.class,
    headSha256: row.head_sha256,
    rank: row.rank,
  };
}

/** The batch with the lowest sequence after this one. */
export function batchAfter(db: SqlTx, sequence: number): HeldBatch | null {
  const row = db.get<HeldRow>(
    `SELECT ${heldColumns} FROM batches WHERE sequence > ? ORDER BY sequence LIMIT 1`,
    sequence,
  );
  return row === undefined ? null : heldBatch(row);
}

/** Whether a batch that could be sent waits behind this one. */
export function closedAfter(db: SqlTx, sequence: number): boolean {
  const found = "SELECT 1 AS found FROM batches WHERE sequence > ? AND format <> 'open' LIMIT 1";
  return db.get<{ found: number }>(found, sequence) !== undefined;
}

export function batchOf(db: SqlTx, sequence: number): HeldBatch | null {
  const row = db.get<HeldRow>(`SELECT ${heldColumns} FROM batches WHERE sequence = ?`, sequence);
  return row === undefined ? null : heldBatch(row);
}

/** The bytes that are sent of a closed batch. */
export function readBytes(
  db: SqlTx,
  sequence: number,
): { head: Uint8Array; wrap: Uint8Array; body: Uint8Array | null; boxes: Uint8Array[] } | null {
  const row = db.get<{ head: Uint8Array; wrap: Uint8Array; body: Uint8Array | null; format: string }>(
    'SELECT head, wrap, body, format FROM batches WHERE sequence = ?',
    sequence,
  );
  if (row === undefined) return null;
  const boxes =
    row.format === 'rows'
      ? db
          .all<{ box: Uint8Array }>(
            'SELECT box FROM rows WHERE id >= ? AND id < ? ORDER BY id',
            ...rowRange(sequence),
          )
          .map(({ box }) => box)
      : [];
  return { head: row.head, wrap: row.wrap, body: row.body, boxes };
}

export function deleteBatch(db: SqlTx, sequence: number): void {
  db.run('DELETE FROM batches WHERE sequence = ?', sequence);
  deleteRows(db, sequence);
}

/** Keeps the answer with the highest sequence. */
export function keepAcknowledgement(db: SqlTx, sequence: number, envelope: string): void {
  db.run(
    `INSERT INTO outbox_acknowledgement (id, sequence, envelope) VALUES (1, ?, ?)
     ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, envelope = excluded.envelope
     WHERE excluded.sequence > sequence`,
    sequence,
    envelope,
  );
}

export function readAcknowledgement(db: SqlTx): string | null {
  const row = db.get<{ envelope: string }>('SELECT envelope FROM outbox_acknowledgement WHERE id = 1');
  return row?.envelope ?? null;
}

export function deleteEverything(db: SqlTx): void {
  db.run('DELETE FROM outbox_acknowledgement');
  db.run('DELETE FROM batches');
  db.run('DELETE FROM rows');
}

/** An open batch knows how many records it has only in memory. */
export function countBatch(db: SqlTx, sequence: number, recordCount: number): void {
  db.run('UPDATE batches SET record_count = ? WHERE sequence = ?', recordCount, sequence);
}

/** Empties a batch; its head stays, so that the chain holds. */
export function dropBatch(db: SqlTx, sequence: number, reason: DropReason): void {
  db.run(
    `UPDATE batches SET format = 'tombstone', plain_bytes = 0, held_bytes = 0, body = NULL, drop_reason = ?
     WHERE sequence = ?`,
    reason,
    sequence,
  );
  deleteRows(db, sequence);
}

/** Why a batch is a tombstone; null where an older version made it one. */
export function dropReasonOf(db: SqlTx, sequence: number): DropReason | null {
  const row = db.get<{ drop_reason: DropReason | null }>(
    'SELECT drop_reason FROM batches WHERE sequence = ?',
    sequence,
  );
  return row?.drop_reason ?? null;
}

export interface Ranks {
  min: number;
  max: number;
}

/** The batch to drop first: of the lowest of these ranks, the oldest that is not on its way. */
export function firstToDrop(db: SqlTx, ranks: Ranks, underWay: readonly number[]): HeldBatch | null {
  const row = db.get<HeldRow>(
    `SELECT ${heldColumns} FROM batches
     WHERE format IN ('rows', 'packed') AND held_bytes > 0 AND rank BETWEEN ? AND ?
       AND sequence NOT IN (SELECT value FROM json_each(?))
     ORDER BY rank, sequence LIMIT 1`,
    ranks.min,
    ranks.max,
    JSON.stringify(underWay),
  );
  return row === undefined ? null : heldBatch(row);
}

/** What dropping everything of these ranks would give back. */
export function droppableBytes(db: SqlTx, ranks: Ranks, underWay: readonly number[]): number {
  const row = db.get<{ bytes: number }>(
    `SELECT coalesce(sum(held_bytes), 0) AS bytes FROM batches
     WHERE format IN ('rows', 'packed') AND rank BETWEEN ? AND ?
       AND sequence NOT IN (SELECT value FROM json_each(?))`,
    ranks.min,
    ranks.max,
    JSON.stringify(underWay),
  );
  return row?.bytes ?? 0;
}

/** Batches that were opened within these bounds and are not on their way, at most so many. */
export function openedWithin(
  db: SqlTx,
  bounds: { fromMs: number; beforeMs: number },
  underWay: readonly number[],
  batchesMax: number,
): HeldBatch[] {
  return db
    .all<HeldRow>(
      `SELECT ${heldColumns} FROM batches
       WHERE format IN ('rows', 'packed')
         AND json_extract(CAST(head AS TEXT), '$.openedAtMs') >= ?
         AND json_extract(CAST(head AS TEXT), '$.openedAtMs') < ?
         AND sequence NOT IN (SELECT value FROM json_each(?))
       ORDER BY sequence LIMIT ?`,
      bounds.fromMs,
      bounds.beforeMs,
      JSON.stringify(underWay),
      batchesMax,
    )
    .map(heldBatch);
}

/** Gives free pages back to the disk, at most so many. SQLite frees one page a step of the statement. */
export function reclaim(db: SqlTx, pagesMax: number): void {
  const free = db.get<{ freelist_count: number }>('PRAGMA freelist_count')?.freelist_count ?? 0;
  // Some stay for what comes next: taking a page from the file's end costs more than a free one.
  const pages = Math.min(pagesMax, free - freePagesKept);
  for (let page = 0; page < pages; page += 1) db.run('PRAGMA incremental_vacuum(1)');
}

const freePagesKept = 64;
