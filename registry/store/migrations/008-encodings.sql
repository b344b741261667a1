-- Smaller files from which devices make those of releases: what was made, and what need not be tried again. The files
-- lie in a store of their own, where they can be removed: a release may hold the very same bytes.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.
CREATE TABLE encodings (
  target_sha256 TEXT NOT NULL,
  -- JSON array of digests, in the order of the encoded file's header; empty where it needs none.
  bases TEXT NOT NULL,
  target_bytes INTEGER NOT NULL,
  -- no-smaller: nothing to win. failed: tried again at retry_at_ms. dropped: made room for others, made again on demand.
  outcome TEXT NOT NULL CHECK (outcome IN ('made', 'no-smaller', 'failed', 'dropped')),
  encoded_sha256 TEXT,
  bytes INTEGER,
  code TEXT,
  detail TEXT,
  attempts INTEGER NOT NULL,
  retry_at_ms INTEGER,
  made_at_ms INTEGER NOT NULL,
  -- When it was last offered or fetched.
  used_at_ms INTEGER NOT NULL,
  PRIMARY KEY (target_sha256, bases)
) STRICT, WITHOUT ROWID;
CREATE INDEX encodings_by_file ON encodings (encoded_sha256);
CREATE INDEX encodings_by_use ON encodings (outcome, used_at_ms);
