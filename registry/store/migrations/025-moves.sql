-- Devices that move between regions: orders, who went where, and telemetry on its way to the region it was sealed for.

-- JSON array of the only devices that the claim lets in; null: whoever has its file.
ALTER TABLE claims ADD COLUMN device_ids TEXT;

-- Of a device that is in another region now; its status is then 'quarantined', which shuts it out everywhere.
ALTER TABLE devices ADD COLUMN moved_to TEXT;
ALTER TABLE devices ADD COLUMN moved_from TEXT;
-- The move that brought it, until its first report here: then that region is told.
ALTER TABLE devices ADD COLUMN move_id TEXT;
-- JSON array of models that it brought and that this region's catalogue does not know.
ALTER TABLE devices ADD COLUMN kept TEXT;

CREATE TABLE move_orders (
  move_id TEXT PRIMARY KEY,
  -- JSON of the envelope.
  envelope TEXT NOT NULL,
  from_region TEXT NOT NULL,
  to_region TEXT NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  applied_by TEXT NOT NULL,
  applied_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE move_devices (
  move_id TEXT NOT NULL REFERENCES move_orders (move_id),
  device_id TEXT NOT NULL REFERENCES devices (device_id),
  state TEXT NOT NULL,
  -- JSON of the reason.
  reason TEXT,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (move_id, device_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX move_devices_by_device ON move_devices (device_id);

-- Devices that came, for the list `moved` of the region that they came from.
CREATE TABLE move_arrivals (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id TEXT NOT NULL,
  from_region TEXT NOT NULL,
  move_id TEXT NOT NULL,
  -- JSON of the envelope of its first report here.
  report TEXT NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;

-- Enrolments that ended with a move: their batches still come, carried by another region.
CREATE TABLE moved_epochs (
  device_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  to_region TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (device_id, epoch)
) STRICT, WITHOUT ROWID;

-- Batches of another region, as the device signed them: nobody here has the key. What of a device lies here between two
-- regions is in this table alone, by device, so that it can be erased.
CREATE TABLE carried_batches (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id TEXT NOT NULL,
  for_region TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  head_sha256 TEXT NOT NULL,
  -- Exact bytes; null once that region has answered.
  bytes BLOB,
  size INTEGER NOT NULL,
  -- JSON of the envelope that it signed, for the device.
  answer TEXT,
  stored_at_ms INTEGER NOT NULL,
  answered_at_ms INTEGER,
  UNIQUE (device_id, for_region, epoch, sequence)
) STRICT;
CREATE INDEX carried_batches_by_region ON carried_batches (for_region, id);

-- The other end: what another region brought, until it is stored as any batch is.
CREATE TABLE carried_inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  peer TEXT NOT NULL,
  device_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  head_sha256 TEXT NOT NULL,
  bytes BLOB NOT NULL
) STRICT;

CREATE TABLE carried_answers (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  peer TEXT NOT NULL,
  device_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  head_sha256 TEXT NOT NULL,
  answer TEXT,
  code TEXT,
  at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX carried_answers_by_peer ON carried_answers (peer, id);
