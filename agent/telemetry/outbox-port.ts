// Why: what producers, sender and reporter see of the outbox, so that each can be tested with another one.
// Trusts: nothing. Must never: show a key or a record.

import type { Result } from '../../shared/kernel/result.ts';
import type {
  BatchStatement,
  DroppedRecords,
  TelemetryClass,
  TelemetryRecord,
} from '../../shared/wire/telemetry.ts';
import type { OutboxOwner } from './outbox-tables.ts';

export interface OutboxLimits {
  batchRecordsMax: number;
  batchRowBytesMax: number;
  outboxBytesMax: number;
  /** Of `outboxBytesMax`, what the records of one class may take. */
  classShares: Readonly<Record<TelemetryClass, number>>;
  /** Batches opened longer ago are dropped, by the device's clock. */
  retentionMs: number;
}

export interface OutboxCounters {
  producedRecords: number;
  acknowledgedRecords: number;
  droppedRecords: number;
  pendingBatches: number;
  bytes: number;
  /** What of `droppedRecords` went why. Less than that where an older version dropped some. */
  dropped: DroppedRecords[];
}

export interface ClosedBatch {
  kind: 'closed';
  sequence: number;
  headSha256: string;
  statement: Pick<BatchStatement, 'format' | 'recordCount' | 'plainBytes'>;
  headBytes: Uint8Array;
  wrap: Uint8Array;
  body: Uint8Array;
}

export type NextBatch =
  | { kind: 'none' }
  /** Still being filled; `behind` where closed ones wait for it. */
  | { kind: 'open'; sequence: number; ageMs: number; behind: boolean }
  | ClosedBatch;

export interface KeyTaken {
  /** False for the key that was in use already. */
  fresh: boolean;
  droppedRecords: number;
}

export interface Outbox {
  /** Whose chain the database holds, null where none was begun in it. */
  chain(): Promise<{ deviceId: string; epoch: number } | null>;
  /** Whether there is a key, so that `append` can seal. */
  ready(): boolean;
  /**
   * From here on records are sealed for this owner. Another device, region or a higher epoch starts anew:
   * what was held can no longer be sent and is dropped, counted. Refusals: `key-invalid`,
   * `telemetry-replayed` (an older epoch of the same device).
   */
  useKey(owner: OutboxOwner): Promise<Result<KeyTaken>>;
  /**
   * Resolves when all records are durable, or none is. They are then counted as produced. Refusals:
   * `telemetry-not-ready`, `telemetry-too-large`, `telemetry-full`, `disk-full`.
   */
  append(className: TelemetryClass, records: readonly TelemetryRecord[]): Promise<Result<void>>;
  counters(): OutboxCounters;
  epoch(): number;
  /** Called when something was appended, closed or dropped. For one listener. */
  onChange(listener: () => void): void;

  // What follows is the sender's.
  next(afterSequence: number): Promise<NextBatch>;
  /** Packs an open batch; resolves when that is durable. Idempotent. */
  closeBatch(sequence: number): Promise<void>;
  /** A batch on its way is not dropped for space. */
  underWay(sequences: readonly number[]): void;
  /**
   * The region signed for it: it is deleted, and the answer (JSON of its envelope) kept where it is the newest.
   * `other` where the batch held has another head.
   */
  acknowledge(
    sequence: number,
    headSha256: string,
    records: number,
    envelope?: string,
  ): Promise<'deleted' | 'unknown' | 'other'>;
  /** Makes a batch that the region will never take a tombstone. False where it is one already, or gone. */
  drop(sequence: number, code: string): Promise<boolean>;
  /** Lowest sequence held, null where none. */
  lowest(): Promise<number | null>;
  /** The newest answer that made a batch be deleted (JSON of its envelope), null where none. */
  newestAcknowledgement(): Promise<string | null>;

  /** Packs what is open and ends; the store stays open. */
  close(): Promise<void>;
}
