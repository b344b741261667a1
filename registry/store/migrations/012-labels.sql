-- Labels and what they join, by digests of request ids; nothing was ever written to the table that 009 made for labels.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.
DROP TABLE labels;

-- What really was, told later by people. Request ids are not kept: their digests (SHA-256, 16 bytes) are what is compared.
CREATE TABLE labels (
  request BLOB PRIMARY KEY,
  label TEXT NOT NULL,
  -- When it was found out, as the file says; null where it does not.
  time_ms INTEGER,
  imported_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where a record says what a release answered to a request; what it says stays sealed. The last one of a request counts.
CREATE TABLE prediction_places (
  request BLOB PRIMARY KEY,
  release TEXT NOT NULL,
  batch_id INTEGER NOT NULL,
  record_index INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  time_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX prediction_places_by_release ON prediction_places (release, time_ms);
CREATE INDEX prediction_places_by_device ON prediction_places (device_id, time_ms);
