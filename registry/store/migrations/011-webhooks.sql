-- Who is told of events as they happen, and how far. Append-only: a migration that was applied somewhere is never edited;
-- write the next one.

CREATE TABLE webhooks (
  webhook_id TEXT PRIMARY KEY,
  url TEXT NOT NULL,
  -- JSON array: beginnings of the codes that it wants; empty: all.
  codes TEXT NOT NULL,
  -- Signs every delivery.
  secret BLOB NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  -- Events up to this one were delivered, or not wanted.
  last_event_id INTEGER NOT NULL,
  -- Deliveries that failed in a row, when the next one is due, and why the last one failed.
  failures INTEGER NOT NULL,
  next_at_ms INTEGER NOT NULL,
  last_error TEXT,
  delivered_at_ms INTEGER
) STRICT;
