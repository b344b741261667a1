// Why: the columns of migrations/024-region-orders.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { Generated, Selectable } from 'kysely';
import type { RegionRolloutState } from '../../shared/wire/region-rollouts.ts';
import type { Wish } from '../../shared/wire/rollout-orders.ts';

export interface RegionRolloutsTable {
  number: Generated<number>;
  region_rollout_id: string;
  name: string;
  /** JSON array. */
  releases: string;
  as_name: string;
  file: string;
  /** JSON array of milliseconds. */
  soaks: string;
  skip_after_ms: number | null;
  on_abort: 'keep' | 'revert';
  state: RegionRolloutState;
  reason: string | null;
  created_by: string;
  created_at_ms: number;
  ended_at_ms: number | null;
}
export type RegionRolloutRow = Selectable<RegionRolloutsTable>;

export interface RegionRolloutPartsTable {
  region_rollout_id: string;
  region: string;
  stage: number;
  wish: Wish;
  wished_by: string | null;
  wish_reason: string | null;
  wished_at_ms: number;
  revision: number;
  attempt: number;
  left_out: number;
  succeeded_at_ms: number | null;
  order_number: number;
  progress: string | null;
  heard_at_ms: number | null;
}

export interface RegionRolloutHistoryTable {
  history_id: Generated<number>;
  region_rollout_id: string;
  at_ms: number;
  what: string;
  user: string | null;
  reason: string | null;
}

export interface RegionOrdersTable {
  coordinator: string;
  order_id: string;
  revision: number;
  attempt: number;
  body: string;
  taken_at_ms: number;
  acted: number;
  verdict: 'refused' | 'waits' | null;
  code: string | null;
  rule: string | null;
  detail: string | null;
  settled: number;
  progress: string | null;
  progress_number: number | null;
}

export interface OrderTables {
  region_rollouts: RegionRolloutsTable;
  region_rollout_parts: RegionRolloutPartsTable;
  region_rollout_history: RegionRolloutHistoryTable;
  region_orders: RegionOrdersTable;
}
