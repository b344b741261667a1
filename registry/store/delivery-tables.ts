// Why: the tables of delivery as types.
// Trusts: migrations/008-encodings.sql; a change there changes this file in the same commit.
// Must never: say what a file is worth; digests of releases are signed elsewhere.

/** What became of encoding one file against others. */
export interface EncodingsTable {
  target_sha256: string;
  /** JSON array of digests. */
  bases: string;
  target_bytes: number;
  outcome: 'made' | 'no-smaller' | 'failed' | 'dropped';
  /** Null unless `made`. */
  encoded_sha256: string | null;
  bytes: number | null;
  /** Of the last failure. */
  code: string | null;
  detail: string | null;
  attempts: number;
  retry_at_ms: number | null;
  made_at_ms: number;
  used_at_ms: number;
}

export interface DeliveryTables {
  encodings: EncodingsTable;
}
