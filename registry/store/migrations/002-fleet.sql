-- The fleet: claims, devices, what they report, what they should run, and the rollouts that decide it.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

CREATE TABLE claims (
  claim_id TEXT PRIMARY KEY,
  -- Only the public key is kept; the private one is in the claim file alone.
  public_key BLOB NOT NULL,
  labels TEXT NOT NULL,
  uses INTEGER NOT NULL,
  used INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT;

-- One row for each device that spent a use: the same key with the same claim spends nothing more.
CREATE TABLE claim_uses (
  claim_id TEXT NOT NULL REFERENCES claims (claim_id),
  device_id TEXT NOT NULL,
  certificate TEXT,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (claim_id, device_id)
) STRICT;

CREATE TABLE devices (
  device_id TEXT PRIMARY KEY,
  public_key BLOB NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('active', 'revoked', 'quarantined')),
  claim_id TEXT NOT NULL,
  labels TEXT NOT NULL,
  timezone TEXT NOT NULL,
  presence TEXT NOT NULL CHECK (presence IN ('online', 'offline', 'unknown')),
  presence_at_ms INTEGER NOT NULL,
  last_seen_ms INTEGER,
  agent TEXT NOT NULL,
  outbox TEXT,
  telemetry_epoch INTEGER NOT NULL,
  report_counter INTEGER NOT NULL,
  report_sha256 TEXT,
  reported_epoch INTEGER NOT NULL,
  verified_time_ms INTEGER NOT NULL,
  refusal_id_last INTEGER NOT NULL,
  enrolled_at_ms INTEGER NOT NULL,
  certificate_expires_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE device_models (
  device_id TEXT NOT NULL REFERENCES devices (device_id),
  name TEXT NOT NULL,
  state TEXT NOT NULL,
  active TEXT,
  candidate TEXT,
  last_good TEXT,
  target TEXT,
  rollout_id TEXT,
  reason TEXT,
  progress TEXT,
  probe TEXT,
  PRIMARY KEY (device_id, name)
) STRICT;

CREATE TABLE desired (
  device_id TEXT NOT NULL REFERENCES devices (device_id),
  as_name TEXT NOT NULL,
  release_id TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_bytes INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  rollout_id TEXT,
  policy TEXT NOT NULL,
  PRIMARY KEY (device_id, as_name)
) STRICT;

-- The assignment in force of each device: the exact message that is retained on its topic.
CREATE TABLE assignments (
  device_id TEXT PRIMARY KEY REFERENCES devices (device_id),
  epoch INTEGER NOT NULL,
  content_sha256 TEXT NOT NULL,
  message BLOB NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX assignments_by_expiry ON assignments (expires_at_ms);

CREATE TABLE fleet_events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  subject TEXT,
  source TEXT NOT NULL CHECK (source IN ('broker', 'enrolment', 'device', 'registry')),
  code TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX fleet_events_by_subject ON fleet_events (subject, id);

CREATE TABLE rollouts (
  -- Grows with every rollout: the later one of two wins where both want the same device.
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  release_id TEXT NOT NULL,
  as_name TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_bytes INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  spec TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  -- How it ends once what was assigned is taken back: failed or aborted; null unless rolling back.
  ends_as TEXT,
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  ended_at_ms INTEGER
) STRICT;
CREATE INDEX rollouts_by_state ON rollouts (state);

CREATE TABLE rollout_waves (
  rollout_id TEXT NOT NULL REFERENCES rollouts (rollout_id),
  wave_index INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  -- What its gates showed when the wave was last judged, JSON.
  gates TEXT NOT NULL,
  started_at_ms INTEGER,
  ended_at_ms INTEGER,
  PRIMARY KEY (rollout_id, wave_index)
) STRICT;

CREATE TABLE rollout_devices (
  rollout_id TEXT NOT NULL REFERENCES rollouts (rollout_id),
  device_id TEXT NOT NULL REFERENCES devices (device_id),
  wave_index INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  -- What the registry has done for it; 'left': no longer counted (superseded or revoked).
  step TEXT NOT NULL CHECK (step IN ('waiting', 'assigned', 'reverted', 'left')),
  -- The epoch of the assignment that carried the last step, 0 where none was needed.
  epoch INTEGER NOT NULL,
  step_at_ms INTEGER NOT NULL,
  -- The proven desired row that this one replaced, JSON; null where there was none.
  previous TEXT,
  PRIMARY KEY (rollout_id, device_id)
) STRICT;
CREATE INDEX rollout_devices_by_device ON rollout_devices (device_id);
