// Why: the columns of migrations/013-samples.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { SampleState } from '../../shared/wire/samples.ts';

export interface SampleRulesTable {
  model: string;
  /** JSON. */
  rules: string | null;
  set_by: string;
  set_at_ms: number;
  pending: number;
}

export interface SamplesTable {
  batch_id: number;
  record_index: number;
  device_id: string;
  model: string;
  release: string;
  time_ms: number;
  /** JSON array. */
  reasons: string;
  state: SampleState;
  label: string | null;
  comment: string | null;
  reviewer: string | null;
  reviewed_at_ms: number | null;
}

export interface SampleTables {
  sample_rules: SampleRulesTable;
  samples: SamplesTable;
}
