// Why: the columns of migrations/025-moves.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.
// Columns ending in `_ms` are Unix milliseconds; a comment names the JSON that a TEXT column holds.

import type { Generated } from 'kysely';

export interface MoveOrdersTable {
  move_id: string;
  /** Envelope of a MoveOrder. */
  envelope: string;
  from_region: string;
  to_region: string;
  issued_at_ms: number;
  expires_at_ms: number;
  applied_by: string;
  applied_at_ms: number;
}

export interface MoveDevicesTable {
  move_id: string;
  device_id: string;
  /** MoveStateName. */
  state: string;
  /** Reason. */
  reason: string | null;
  at_ms: number;
}

export interface MoveArrivalsTable {
  id: Generated<number>;
  device_id: string;
  from_region: string;
  move_id: string;
  /** Envelope of a Report. */
  report: string;
  at_ms: number;
}

export interface MovedEpochsTable {
  device_id: string;
  epoch: number;
  to_region: string;
  at_ms: number;
}

export interface CarriedBatchesTable {
  id: Generated<number>;
  device_id: string;
  for_region: string;
  epoch: number;
  sequence: number;
  head_sha256: string;
  bytes: Uint8Array | null;
  size: number;
  /** Envelope of a BatchAnswer. */
  answer: string | null;
  stored_at_ms: number;
  answered_at_ms: number | null;
}

export interface CarriedInboxTable {
  id: Generated<number>;
  peer: string;
  device_id: string;
  epoch: number;
  sequence: number;
  head_sha256: string;
  bytes: Uint8Array;
}

export interface CarriedAnswersTable {
  id: Generated<number>;
  peer: string;
  device_id: string;
  epoch: number;
  sequence: number;
  head_sha256: string;
  /** Envelope of a BatchAnswer; null where there is only a code. */
  answer: string | null;
  code: string | null;
  at_ms: number;
}

export interface MoveTables {
  move_orders: MoveOrdersTable;
  move_devices: MoveDevicesTable;
  move_arrivals: MoveArrivalsTable;
  moved_epochs: MovedEpochsTable;
  carried_batches: CarriedBatchesTable;
  carried_inbox: CarriedInboxTable;
  carried_answers: CarriedAnswersTable;
}
