// Why: the tables of erasures across regions as types (migrations/022-rights.sql).
// Trusts: the migrations; a change there changes this file in the same commit. Must never: hold anything of what was erased.

import type { Generated } from 'kysely';

export interface PeerErasuresTable {
  region: string;
  erasure_id: string;
  device_id: string;
  until_ms: number;
  done_at_ms: number;
  /** Erasure, JSON. */
  certificate: string;
  received_at_ms: number;
}

export interface ErasureRequestsTable {
  region: string;
  erasure_id: string;
  device_id: string;
  until_ms: number;
  requested_by: string;
  reason: string | null;
  asked_at_ms: number;
  /** JSON: by region, why it does not erase by itself. */
  declined: Generated<string>;
}

export interface ErasureOutboxTable {
  number: Generated<number>;
  stream: 'erasures' | 'erasure-requests';
  peer: string | null;
  /** JSON. */
  body: string;
}

export interface RightsTables {
  peer_erasures: PeerErasuresTable;
  erasure_requests: ErasureRequestsTable;
  erasure_outbox: ErasureOutboxTable;
}
