// Why: the columns of migrations/020-policy.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { FlowClass } from '../../shared/wire/region-policy.ts';

export interface RegionPoliciesTable {
  version: number;
  name: string;
  sha256: string;
  /** JSON. */
  envelope: string;
  root_version: number;
  put_by: string;
  put_at_ms: number;
}

export interface FlowCountsTable {
  day: number;
  flow: FlowClass;
  destination: string;
  rule: string;
  /** 0 or 1. */
  allowed: number;
  requests: number;
  records: number;
  bytes: number;
}

export interface PolicyTables {
  region_policies: RegionPoliciesTable;
  flow_counts: FlowCountsTable;
}
