// Why: the columns of migrations/019-audit.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { Generated } from 'kysely';
import type { AuditEntry } from '../../shared/wire/audit.ts';

export interface AuditEntriesTable {
  id: number;
  at_ms: number;
  region: string;
  actor: string;
  via: AuditEntry['via'];
  action: string;
  subject: string | null;
  reason: string | null;
  outcome: AuditEntry['outcome'];
  code: string | null;
  rule: string | null;
  address: string | null;
  /** JSON object. */
  detail: string;
  previous_sha256: string;
  entry_sha256: string;
}

export interface AuditOpenTable {
  open_id: Generated<number>;
  at_ms: number;
  /** JSON. */
  entry: string;
}

export interface AuditHeadsTable {
  sequence: number;
  entries: number;
  head_sha256: string;
  at_ms: number;
  /** JSON. */
  envelope: string;
}

export interface PeerAuditHeadsTable {
  region: string;
  statement_sha256: string;
  sequence: number;
  entries: number;
  head_sha256: string;
  at_ms: number;
  /** JSON. */
  envelope: string;
  received_at_ms: number;
  conflict: string | null;
}

export interface AuditTables {
  audit_entries: AuditEntriesTable;
  audit_open: AuditOpenTable;
  audit_heads: AuditHeadsTable;
  peer_audit_heads: PeerAuditHeadsTable;
}
