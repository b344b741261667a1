-- What devices counted, added up as their batches are stored, so that a question about weeks reads hundreds of rows and
-- not a million records; and what the drift watch remembers between two batches.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Requests, errors and latencies of one release on one device in one hour of the device's clock.
CREATE TABLE rollup_requests (
  release TEXT NOT NULL,
  -- Hours since 1970 began, UTC.
  hour INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  -- Name under which the device serves the release.
  model TEXT NOT NULL,
  windows INTEGER NOT NULL,
  window_ms INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  -- JSON: counts by code, and a latency sketch or null.
  errors TEXT NOT NULL,
  latency TEXT,
  PRIMARY KEY (release, hour, device_id, model)
) STRICT, WITHOUT ROWID;

-- Counts in the bins of one reference profile. Counts of two profiles never add up.
CREATE TABLE rollup_features (
  release TEXT NOT NULL,
  hour INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  model TEXT NOT NULL,
  profile_sha256 TEXT NOT NULL,
  windows INTEGER NOT NULL,
  window_ms INTEGER NOT NULL,
  -- Rows that were counted, and rows that were answered.
  rows INTEGER NOT NULL,
  seen_rows INTEGER NOT NULL,
  -- JSON, as shared/stats/rollup.ts writes it.
  features TEXT NOT NULL,
  PRIMARY KEY (release, hour, device_id, model, profile_sha256)
) STRICT, WITHOUT ROWID;

-- One watch for the fleet (device_id '') and one for each device: the window that is being filled, and how each feature stands.
CREATE TABLE drift_watches (
  release TEXT NOT NULL,
  profile_sha256 TEXT NOT NULL,
  device_id TEXT NOT NULL,
  rows INTEGER NOT NULL,
  seen_rows INTEGER NOT NULL,
  features TEXT NOT NULL,
  -- JSON: by feature, in alarm or not, and for how many windows the opposite was seen.
  states TEXT NOT NULL,
  judged_at_ms INTEGER NOT NULL,
  PRIMARY KEY (release, profile_sha256, device_id)
) STRICT, WITHOUT ROWID;

-- What really was, told later by people; joined with what devices recorded by request id.
CREATE TABLE labels (
  request_id TEXT PRIMARY KEY,
  label TEXT NOT NULL,
  -- When it was found out, as the file says; null where it does not.
  time_ms INTEGER,
  imported_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
