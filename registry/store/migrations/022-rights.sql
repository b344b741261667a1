-- Rights of people across regions and restores: what other regions say they erased, what regions ask of each other, and the
-- list by which both go out. Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Certificates of other regions: proof for whoever asked, and what that region gets back when it was restored.
CREATE TABLE peer_erasures (
  region TEXT NOT NULL,
  erasure_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  until_ms INTEGER NOT NULL,
  done_at_ms INTEGER NOT NULL,
  -- Erasure (shared/wire/erasure.ts), JSON.
  certificate TEXT NOT NULL,
  received_at_ms INTEGER NOT NULL,
  PRIMARY KEY (region, erasure_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_erasures_by_device ON peer_erasures (device_id);

-- Erasures that are asked of every region: by this one, or by another.
CREATE TABLE erasure_requests (
  -- Who asks.
  region TEXT NOT NULL,
  -- The erasure's id at the region that asks; every region's certificate carries it.
  erasure_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  until_ms INTEGER NOT NULL,
  requested_by TEXT NOT NULL,
  reason TEXT,
  asked_at_ms INTEGER NOT NULL,
  -- JSON: by region, why it does not erase by itself.
  declined TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (region, erasure_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX erasure_requests_by_device ON erasure_requests (device_id);

-- What goes to other regions, in the order in which it came to be.
CREATE TABLE erasure_outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  -- erasures, erasure-requests
  stream TEXT NOT NULL,
  -- Null: every region's.
  peer TEXT,
  -- Item of the stream (shared/wire/erasure.ts), JSON.
  body TEXT NOT NULL
) STRICT;
CREATE INDEX erasure_outbox_by_stream ON erasure_outbox (stream, number);

-- Certificates of before this table go out as well.
INSERT INTO erasure_outbox (stream, peer, body)
  SELECT 'erasures', NULL, json_object('kind', 'erased', 'erasure', json(certificate))
  FROM erasures WHERE certificate IS NOT NULL ORDER BY begun_at_ms, erasure_id;
