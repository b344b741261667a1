// Why: the columns of migrations/003-telemetry.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { Generated } from 'kysely';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';

export interface TelemetryChainsTable {
  device_id: string;
  epoch: number;
  last_sequence: number;
  last_head_sha256: string;
  batches: number;
  records: number;
  dropped: number;
  /** Of batches whose key was deleted. */
  erased: Generated<number>;
  /** Of batches that were older than their class is kept. */
  expired: Generated<number>;
}

export interface TelemetryBatchesTable {
  batch_id: Generated<number>;
  device_id: string;
  epoch: number;
  sequence: number;
  head_sha256: string;
  wrap_sha256: string;
  class: TelemetryClass;
  format: 'packed' | 'rows' | 'tombstone';
  records: number;
  dropped: number;
  time_first_ms: number | null;
  time_last_ms: number | null;
  stored_at_ms: number;
  /** When its records were deleted, by erasure or by retention; null while they are here. */
  gone_at_ms: Generated<number | null>;
}

export interface TelemetryRecordsTable {
  batch_id: number;
  record_index: number;
  time_ms: number;
  release: string | null;
  /** JSON object. */
  data: string;
}

export interface TelemetrySealedTable {
  batch_id: number;
  key_id: string;
  /** JSON array. */
  releases: string;
  sealed: Uint8Array;
}

export interface ErasuresTable {
  erasure_id: string;
  device_id: string;
  until_ms: number;
  requested_by: string;
  reason: string | null;
  begun_at_ms: number;
  /** JSON. */
  certificate: string | null;
}

export interface TelemetryTables {
  telemetry_sealed: TelemetrySealedTable;
  erasures: ErasuresTable;
  telemetry_chains: TelemetryChainsTable;
  telemetry_batches: TelemetryBatchesTable;
  telemetry_records: TelemetryRecordsTable;
}
