// Why: the columns of migrations/009-evidence.sql, 012-labels.sql and 014-energy.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migrations; all are changed together. Must never: hold logic.

export interface RollupRequestsTable {
  release: string;
  /** Hours since 1970 began, UTC. */
  hour: number;
  device_id: string;
  model: string;
  windows: number;
  window_ms: number;
  requests: number;
  /** Counts by code. */
  errors: string;
  /** SketchJson. */
  latency: string | null;
}

export interface RollupFeaturesTable {
  release: string;
  hour: number;
  device_id: string;
  model: string;
  profile_sha256: string;
  windows: number;
  window_ms: number;
  rows: number;
  seen_rows: number;
  /** `featuresToText`. */
  features: string;
}

export interface RollupEnergyTable {
  release: string;
  hour: number;
  device_id: string;
  model: string;
  method: string;
  windows: number;
  requests: number;
  joules: number;
  cpu_ms: number;
  cpu_requests: number;
}

export interface DriftWatchesTable {
  release: string;
  profile_sha256: string;
  /** '' for the fleet. */
  device_id: string;
  rows: number;
  seen_rows: number;
  /** `featuresToText`. */
  features: string;
  /** WatchStates (shared/stats/drift-watch.ts). */
  states: string;
  judged_at_ms: number;
}

export interface LabelsTable {
  /** `requestDigest`. */
  request: Uint8Array;
  label: string;
  time_ms: number | null;
  imported_at_ms: number;
}

export interface PredictionPlacesTable {
  request: Uint8Array;
  release: string;
  batch_id: number;
  record_index: number;
  device_id: string;
  time_ms: number;
}

export interface EvidenceTables {
  rollup_requests: RollupRequestsTable;
  rollup_features: RollupFeaturesTable;
  rollup_energy: RollupEnergyTable;
  drift_watches: DriftWatchesTable;
  labels: LabelsTable;
  prediction_places: PredictionPlacesTable;
}
