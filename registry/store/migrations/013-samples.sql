-- Requests that devices kept for a person to look at: what is asked for of each model, and the review of what came.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

CREATE TABLE sample_rules (
  -- NS/NAME
  model TEXT PRIMARY KEY,
  -- JSON (shared/wire/sample-rules.ts); null: cleared, and devices may not know yet.
  rules TEXT,
  set_by TEXT NOT NULL,
  set_at_ms INTEGER NOT NULL,
  -- 1 until every assignment was signed again since.
  pending INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is needed to list them; inputs and outputs stay in their sealed records. The label is the reviewer's.
CREATE TABLE samples (
  batch_id INTEGER NOT NULL,
  record_index INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  -- NS/NAME of the release.
  model TEXT NOT NULL,
  release TEXT NOT NULL,
  time_ms INTEGER NOT NULL,
  -- JSON array.
  reasons TEXT NOT NULL,
  -- waiting, accepted, rejected; erased: was accepted, and its record is gone.
  state TEXT NOT NULL,
  label TEXT,
  comment TEXT,
  reviewer TEXT,
  reviewed_at_ms INTEGER,
  PRIMARY KEY (batch_id, record_index)
) STRICT, WITHOUT ROWID;
CREATE INDEX samples_by_model ON samples (model, state, batch_id, record_index);
CREATE INDEX samples_by_device ON samples (device_id);
