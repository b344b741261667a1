// Why: what the audit record is to the rooms that write to it: who did what, why, from where, and with what outcome.
// Trusts: its callers for who asked. Must never: hold a token, a key or the content of a record.

import type { RegistryDb } from '../store/open.ts';

export type AuditVia = 'api' | 'region' | 'device' | 'job' | 'start';

export interface NewAuditEntry {
  /** `user:NAME` (and its token id in `detail`), `stranger`, `region:NAME`, `device:ID`, `job:NAME`, `registry`. */
  actor: string;
  via: AuditVia;
  /** A dotted verb such as `devices.revoke` or `flow.records`. */
  action: string;
  /** What it was about: a device, release, rollout, namespace, region; null where it is the whole region. */
  subject: string | null;
  /** Words that the person gave; null where none. */
  reason: string | null;
  outcome: 'done' | 'refused' | 'failed';
  /** Code of the refusal or failure. */
  code: string | null;
  /** The policy rule that decided, where one did. */
  rule: string | null;
  /** Network address of who asked. */
  address: string | null;
  /** Small facts: counts, bytes, ids. */
  detail: Record<string, string | number | boolean | null>;
}

export interface Audit {
  /** Inside the transaction of what it is about, so that neither is there without the other. */
  appendIn(db: RegistryDb, entry: NewAuditEntry): void;
  append(entry: NewAuditEntry): Promise<void>;
}
