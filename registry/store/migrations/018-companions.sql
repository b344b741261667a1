-- Rollouts of several releases that switch together.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Releases beside the one that the rollout's own row names.
CREATE TABLE rollout_companions (
  rollout_id TEXT NOT NULL REFERENCES rollouts (rollout_id),
  as_name TEXT NOT NULL,
  release_id TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_bytes INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  PRIMARY KEY (rollout_id, as_name)
) STRICT, WITHOUT ROWID;

CREATE INDEX rollout_companions_by_name ON rollout_companions (as_name);

-- What goes out under which name.
CREATE VIEW rollout_parts AS
  SELECT rollout_id, as_name, release_id FROM rollouts
  UNION ALL
  SELECT rollout_id, as_name, release_id FROM rollout_companions;

-- By name, what the device goes back to (DesiredRelease or null, JSON); null where one release goes out.
ALTER TABLE rollout_devices ADD COLUMN companions TEXT;
