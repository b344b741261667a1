// Why: the columns of migrations/002-fleet.sql and what 006-trust.sql, 007-reports.sql, 015-rollout-history.sql, 016-rollout-order.sql and 025-moves.sql add to them as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.
// Columns ending in `_ms` are Unix milliseconds; a comment names the JSON that a TEXT column holds.

import type { Generated, Selectable } from 'kysely';

export interface ClaimsTable {
  claim_id: string;
  public_key: Uint8Array;
  /** Labels. */
  labels: string;
  uses: number;
  used: number;
  created_by: string;
  created_at_ms: number;
  expires_at_ms: number;
  /** Versions of the roots whose digests it names; null where it was made before they were kept. */
  catalogue_root_version: number | null;
  region_root_version: number | null;
  /** Number of the certificate authority that the claim file names. */
  authority: number;
  /** JSON array of the only devices that it lets in; null: whoever has its file. */
  device_ids: string | null;
}

export interface ClaimUsesTable {
  claim_id: string;
  device_id: string;
  /** PEM; null between spending the use and issuing. */
  certificate: string | null;
  at_ms: number;
}

export interface DevicesTable {
  device_id: string;
  /** Raw Ed25519 public key, 32 bytes. */
  public_key: Uint8Array;
  status: 'active' | 'revoked' | 'quarantined';
  claim_id: string;
  /** Labels. */
  labels: string;
  timezone: string;
  presence: 'online' | 'offline' | 'unknown';
  /** When `presence` last changed. */
  presence_at_ms: number;
  last_seen_ms: number | null;
  /** `{version, runtime, arch}`. */
  agent: string;
  /** OutboxState, null before the first report. */
  outbox: string | null;
  telemetry_epoch: number;
  /** Counter and payload digest of the last accepted report. */
  report_counter: number;
  report_sha256: string | null;
  reported_epoch: number;
  verified_time_ms: number;
  /** Highest refusal id taken from its reports. */
  refusal_id_last: number;
  enrolled_at_ms: number;
  certificate_expires_at_ms: number;
  /** Number of the certificate authority whose certificate it holds, as far as it is known. */
  authority: number;
  /** When `status` last changed; 0 where that was before version 0.2. */
  status_at_ms: number;
  report_boot: number;
  /** Counter of the first report that was taken of that start. */
  report_boot_counter: number;
  report_session: string;
  /** Reports of an older assignment are from before a release or an enrolment. */
  report_from_epoch: number;
  /** 1 until the first report since then. */
  report_anew: number;
  /** HeldVersions, null before the first report that has them. */
  held: string | null;
  /** `{offsetMs, source}`. */
  clock: string | null;
  attacks: number;
  /** The region where it is now; its status is 'quarantined' then (`standingOf` in registry/moves/standing.ts). */
  moved_to: string | null;
  moved_from: string | null;
  /** The move that brought it, until its first report here. */
  move_id: string | null;
  /** JSON array of models that it brought and nobody here knows. */
  kept: string | null;
}

export interface DeviceModelsTable {
  device_id: string;
  name: string;
  /** MachineStateName. */
  state: string;
  active: string | null;
  active_sha256: string | null;
  candidate: string | null;
  last_good: string | null;
  target: string | null;
  rollout_id: string | null;
  /** Reason. */
  reason: string | null;
  /** `{doneBytes, totalBytes}`. */
  progress: string | null;
  /** ProbeEvidence. */
  probe: string | null;
}

export interface DesiredTable {
  device_id: string;
  as_name: string;
  release_id: string;
  manifest_sha256: string;
  manifest_bytes: number;
  counter: number;
  rollout_id: string | null;
  /** ActivationPolicy. */
  policy: string;
  /** What the release needs as its publisher signed it, JSON; null where it names nothing. */
  requires: string | null;
}

export interface AssignmentsTable {
  device_id: string;
  epoch: number;
  /** Digest of labels and releases: what must be the same for no new epoch to be needed. */
  content_sha256: string;
  /** Exact bytes of the retained message. */
  message: Uint8Array;
  issued_at_ms: number;
  expires_at_ms: number;
  /** Key id of the director's key; null where it was signed before keys could change. */
  signed_by: string | null;
  /** Digest of the list of authorities that it names. */
  authorities_sha256: string | null;
}

export interface FleetEventsTable {
  id: Generated<number>;
  at_ms: number;
  subject: string | null;
  source: 'broker' | 'enrolment' | 'device' | 'registry';
  code: string;
  detail: string;
  /** 0 or 1: somebody tried something. */
  attack: Generated<number>;
}
export type FleetEventRow = Selectable<FleetEventsTable>;

export interface RolloutsTable {
  number: Generated<number>;
  rollout_id: string;
  name: string;
  release_id: string;
  as_name: string;
  manifest_sha256: string;
  manifest_bytes: number;
  counter: number;
  /** RolloutSpec. */
  spec: string;
  /** RolloutState. */
  state: string;
  reason: string | null;
  /** `failed` or `aborted` while it is rolling back. */
  ends_as: string | null;
  created_by: string;
  created_at_ms: number;
  ended_at_ms: number | null;
  /** Higher goes first. */
  priority: Generated<number>;
}

/** A stored rollout as it is read. */
export type RolloutRow = Selectable<RolloutsTable>;

export interface RolloutWavesTable {
  rollout_id: string;
  wave_index: number;
  /** WaveState. */
  state: string;
  reason: string | null;
  /** GateView[] (registry/rollout/gates.ts). */
  gates: string;
  started_at_ms: number | null;
  ended_at_ms: number | null;
}

export interface RolloutApprovalsTable {
  rollout_id: string;
  wave_index: number;
  user: string;
  comment: string | null;
  at_ms: number;
  expires_at_ms: number;
}

export interface RolloutHistoryTable {
  history_id: Generated<number>;
  rollout_id: string;
  at_ms: number;
  wave_index: number | null;
  what: string;
  user: string | null;
  reason: string | null;
}

export interface RolloutDevicesTable {
  rollout_id: string;
  device_id: string;
  wave_index: number;
  /** RolloutDeviceState. */
  state: string;
  /** Reason. */
  reason: string | null;
  /** What the registry has done for it; `left`: no longer counted. */
  step: 'waiting' | 'assigned' | 'reverted' | 'left';
  epoch: number;
  step_at_ms: number;
  /** DesiredRelease (registry/rollout/facts.ts). */
  previous: string | null;
  /** Its probe of `previous` (ProbeEvidence), where a gate compares with it. */
  previous_probe: Generated<string | null>;
  /** By name DesiredRelease or null, for the rollout's companions; null where it has none. */
  companions: Generated<string | null>;
}

export interface RolloutCompanionsTable {
  rollout_id: string;
  as_name: string;
  release_id: string;
  manifest_sha256: string;
  manifest_bytes: number;
  counter: number;
}

/** A view: every release of every rollout, with its name. */
export interface RolloutPartsView {
  rollout_id: string;
  as_name: string;
  release_id: string;
}

export interface DeviceGroupsTable {
  name: string;
  /** Selector (shared/wire/rollout-file.ts). */
  selector: string;
  changed_by: string;
  changed_at_ms: number;
}

export interface FleetTables {
  claims: ClaimsTable;
  claim_uses: ClaimUsesTable;
  devices: DevicesTable;
  device_models: DeviceModelsTable;
  desired: DesiredTable;
  assignments: AssignmentsTable;
  fleet_events: FleetEventsTable;
  rollouts: RolloutsTable;
  rollout_waves: RolloutWavesTable;
  rollout_devices: RolloutDevicesTable;
  rollout_companions: RolloutCompanionsTable;
  rollout_parts: RolloutPartsView;
  rollout_approvals: RolloutApprovalsTable;
  rollout_history: RolloutHistoryTable;
  device_groups: DeviceGroupsTable;
}
