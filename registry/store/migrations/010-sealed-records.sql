-- Records are sealed in the database: deleting the region's key for a device and a period erases them here and in every
-- backup. Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Those of one batch together: compressed, then sealed. What earlier versions stored stays in telemetry_records.
CREATE TABLE telemetry_sealed (
  batch_id INTEGER PRIMARY KEY REFERENCES telemetry_batches (batch_id),
  -- Of telemetry-keys.sqlite; the key that seals is made of that one.
  key_id TEXT NOT NULL,
  -- JSON array: releases that the records name.
  releases TEXT NOT NULL,
  sealed BLOB NOT NULL
) STRICT;
CREATE INDEX telemetry_sealed_by_key ON telemetry_sealed (key_id);

-- Records of batches whose key was deleted, before or after they came.
ALTER TABLE telemetry_chains ADD COLUMN erased INTEGER NOT NULL DEFAULT 0;

CREATE TABLE erasures (
  erasure_id TEXT PRIMARY KEY,
  device_id TEXT NOT NULL,
  -- Keys made before this are deleted, with what was sealed to them.
  until_ms INTEGER NOT NULL,
  requested_by TEXT NOT NULL,
  reason TEXT,
  begun_at_ms INTEGER NOT NULL,
  -- DSSE envelope (JSON), signed when all is deleted; null until then: it is gone on with after a start.
  certificate TEXT
) STRICT;
