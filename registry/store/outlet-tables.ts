// Why: the columns of migrations/011-webhooks.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

export interface WebhooksTable {
  webhook_id: string;
  url: string;
  /** JSON array. */
  codes: string;
  secret: Uint8Array;
  created_by: string;
  created_at_ms: number;
  last_event_id: number;
  failures: number;
  next_at_ms: number;
  last_error: string | null;
  delivered_at_ms: number | null;
}

export interface OutletTables {
  webhooks: WebhooksTable;
}
