-- What devices sent and this region opened: one chain of batches for each enrolment, and their records.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Where each chain stands. Counted here as well, so that a question after numbers reads no records.
CREATE TABLE telemetry_chains (
  device_id TEXT NOT NULL REFERENCES devices (device_id),
  epoch INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL CHECK (last_sequence > 0),
  last_head_sha256 TEXT NOT NULL,
  batches INTEGER NOT NULL,
  records INTEGER NOT NULL,
  -- Records that the device dropped and said so, in batches that came as tombstones.
  dropped INTEGER NOT NULL,
  PRIMARY KEY (device_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE telemetry_batches (
  -- The order of storing, in which records are read: what is new comes last, so that a reader can go on.
  batch_id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  -- Recognise a batch that is sent again, and another one under its number: two clones may make one head in
  -- the same millisecond, but never one wrap, which holds a random key.
  head_sha256 TEXT NOT NULL,
  wrap_sha256 TEXT NOT NULL,
  class TEXT NOT NULL,
  format TEXT NOT NULL CHECK (format IN ('packed', 'rows', 'tombstone')),
  records INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  -- Of its records, by the device's clock; both null where it holds none.
  time_first_ms INTEGER,
  time_last_ms INTEGER,
  stored_at_ms INTEGER NOT NULL,
  UNIQUE (device_id, epoch, sequence)
) STRICT;
CREATE INDEX telemetry_batches_by_device ON telemetry_batches (device_id);
CREATE INDEX telemetry_batches_by_time ON telemetry_batches (time_last_ms);

-- What all records of a batch share stands in the batch, so that the largest table needs no second index.
CREATE TABLE telemetry_records (
  batch_id INTEGER NOT NULL REFERENCES telemetry_batches (batch_id),
  record_index INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  release TEXT,
  -- JSON object.
  data TEXT NOT NULL,
  PRIMARY KEY (batch_id, record_index)
) STRICT, WITHOUT ROWID;
