-- Which of two rollouts goes first, and named groups of devices.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

ALTER TABLE rollouts ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

CREATE TABLE device_groups (
  name TEXT PRIMARY KEY,
  -- Selector (shared/wire/rollout-file.ts), JSON.
  selector TEXT NOT NULL,
  changed_by TEXT NOT NULL,
  changed_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
