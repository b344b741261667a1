-- The region's policy, every version of it; what went to other regions under it; where the user of a token sits; and which
-- batches of telemetry hold nothing any more.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- The highest version is in force.
CREATE TABLE region_policies (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  -- Of the bytes that are signed.
  sha256 TEXT NOT NULL,
  -- DSSE envelope (JSON), signed by root keys of the region.
  envelope TEXT NOT NULL,
  -- Version of the region root that it was checked against.
  root_version INTEGER NOT NULL,
  put_by TEXT NOT NULL,
  put_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE flow_counts (
  -- Days since 1970 began, UTC.
  day INTEGER NOT NULL,
  flow TEXT NOT NULL,
  destination TEXT NOT NULL,
  rule TEXT NOT NULL,
  allowed INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  records INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (day, flow, destination, rule, allowed)
) STRICT, WITHOUT ROWID;

-- Region in which the user of the token sits; null: this one.
ALTER TABLE tokens ADD COLUMN at_region TEXT;

-- When the records of a batch were deleted, by erasure or by retention; null while they are here.
ALTER TABLE telemetry_batches ADD COLUMN gone_at_ms INTEGER;
UPDATE telemetry_batches SET gone_at_ms = stored_at_ms
  WHERE batch_id NOT IN (SELECT batch_id FROM telemetry_sealed)
    AND batch_id NOT IN (SELECT batch_id FROM telemetry_records);
-- What is here by class and age. A clock that is ahead must not keep a record for ever: its age counts from its storing.
CREATE INDEX telemetry_batches_kept ON telemetry_batches (class, min(time_last_ms, stored_at_ms))
  WHERE gone_at_ms IS NULL AND time_last_ms IS NOT NULL;

-- Records of batches that were older than their class is kept.
ALTER TABLE telemetry_chains ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
