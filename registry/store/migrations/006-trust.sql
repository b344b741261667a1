-- Trust that outlives stolen and lost things: authorities that change, certificates that are renewed and
-- revoked, reports that tell two devices with one key apart, and what was learnt after a restore.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Certificate authorities of the fleet, number one first. Their keys are files; a row is what makes one issue.
CREATE TABLE authorities (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  certificate TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  -- Null while it is in force.
  retired_at_ms INTEGER,
  -- Number of the last revocation list that it signed.
  crl_number INTEGER NOT NULL
) STRICT;

-- Every client certificate of a device, for revocation lists and for asking twice without getting two.
CREATE TABLE certificates (
  -- Upper-case hex, as X.509 tools print it.
  serial TEXT PRIMARY KEY,
  device_id TEXT NOT NULL,
  authority INTEGER NOT NULL,
  certificate TEXT NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_device ON certificates (device_id, issued_at_ms);
CREATE INDEX certificates_by_expiry ON certificates (expires_at_ms);

-- The authority whose certificate it holds, as far as it is known.
ALTER TABLE devices ADD COLUMN authority INTEGER NOT NULL DEFAULT 1;
-- When `status` last changed; 0 where that was before this column.
ALTER TABLE devices ADD COLUMN status_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN report_boot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN report_session TEXT NOT NULL DEFAULT '';
-- Reports that know an older assignment are from before a release or an enrolment, and never taken.
ALTER TABLE devices ADD COLUMN report_from_epoch INTEGER NOT NULL DEFAULT 0;
-- 1 until the first report since then: boot and counter begin anew with it.
ALTER TABLE devices ADD COLUMN report_anew INTEGER NOT NULL DEFAULT 0;
-- HeldVersions, JSON; null before it reported any.
ALTER TABLE devices ADD COLUMN held TEXT;
-- `{offsetMs, source}`, JSON.
ALTER TABLE devices ADD COLUMN clock TEXT;
-- Events about it that mean somebody tried something.
ALTER TABLE devices ADD COLUMN attacks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device_models ADD COLUMN active_sha256 TEXT;

ALTER TABLE claims ADD COLUMN authority INTEGER NOT NULL DEFAULT 1;

-- The list of authorities that an assignment names: where that is another one now, it is issued again.
ALTER TABLE assignments ADD COLUMN authorities_sha256 TEXT;

ALTER TABLE fleet_events ADD COLUMN attack INTEGER NOT NULL DEFAULT 0 CHECK (attack IN (0, 1));
CREATE INDEX fleet_events_attacks ON fleet_events (id) WHERE attack = 1;

-- Versions that devices have proven to have existed before a restore, by role as in metadata_roles: the
-- next one of ours must be above it.
CREATE TABLE version_floors (
  role TEXT PRIMARY KEY,
  version INTEGER NOT NULL CHECK (version > 0),
  at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Batches that this region acknowledged before it was restored from a backup without them.
CREATE TABLE telemetry_lost (
  device_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  first_sequence INTEGER NOT NULL CHECK (first_sequence > 0),
  last_sequence INTEGER NOT NULL CHECK (last_sequence >= first_sequence),
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (device_id, epoch, first_sequence)
) STRICT, WITHOUT ROWID;
