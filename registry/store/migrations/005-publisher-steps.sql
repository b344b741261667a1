-- What publishers say beyond releases: floors, withdrawals, renewals, and steps that wait for a signature.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Versions that were given out and lost with a backup: the next one is above. It only rises.
ALTER TABLE publishers ADD COLUMN version_floor INTEGER NOT NULL DEFAULT 0 CHECK (version_floor >= 0);

-- One row for each model that has either number; both only rise.
CREATE TABLE model_floors (
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  -- Signed by the publisher: no release with a lower counter may be assigned.
  floor INTEGER NOT NULL DEFAULT 0 CHECK (floor >= 0),
  -- Counters that were given out and lost with a backup: new releases are above.
  counter_floor INTEGER NOT NULL DEFAULT 0 CHECK (counter_floor >= 0),
  PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

-- What the namespace's metadata in force says about a release; neither is ever taken back.
ALTER TABLE releases ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0 CHECK (withdrawn IN (0, 1));
ALTER TABLE releases ADD COLUMN below_floor INTEGER NOT NULL DEFAULT 0 CHECK (below_floor IN (0, 1));
-- `custom.requires` as its publisher signed it, JSON; null where the target names none.
ALTER TABLE releases ADD COLUMN requires TEXT;
CREATE INDEX releases_barred ON releases (release_id) WHERE withdrawn = 1 OR below_floor = 1;

-- Releases from before: all three stand in the metadata in force, which was checked when it came.
CREATE TEMP TABLE signed_metadata AS
  SELECT substr(role, 4) AS namespace, CAST(bytes AS TEXT) AS json
  FROM metadata_roles JOIN metadata_files ON metadata_files.name = metadata_roles.file
  WHERE role LIKE 'ns/%';
CREATE TEMP TABLE signed_targets AS
  SELECT target.key AS path, nullif(target.value -> '$.custom.requires', 'null') AS requires
  FROM signed_metadata, json_each(signed_metadata.json, '$.signed.targets') AS target;
CREATE INDEX temp.signed_targets_by_path ON signed_targets (path);
UPDATE releases SET requires =
  (SELECT requires FROM signed_targets WHERE path = namespace || '/' || name || '/' || version);
INSERT INTO model_floors (namespace, name, floor)
  SELECT namespace, floor.key, floor.value
  FROM signed_metadata, json_each(signed_metadata.json, '$.signed."x-lepton".floors') AS floor;
UPDATE releases SET below_floor = 1
  WHERE counter < (SELECT floor FROM model_floors AS m WHERE m.namespace = releases.namespace AND m.name = releases.name);
UPDATE releases SET withdrawn = 1
  WHERE EXISTS (
    SELECT 1
    FROM signed_metadata,
      json_each(signed_metadata.json, '$.signed."x-lepton".withdrawn') AS model,
      json_each(model.value) AS taken
    WHERE signed_metadata.namespace = releases.namespace
      AND model.key = releases.name AND taken.value = releases.counter
  );
DROP TABLE signed_targets;
DROP TABLE signed_metadata;

-- One step of a namespace's metadata that waits for signatures. A step that adds no release has no manifest.
CREATE TABLE publisher_steps (
  namespace TEXT PRIMARY KEY,
  release_id TEXT,
  metadata BLOB NOT NULL,
  manifest BLOB,
  pushed_by TEXT NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  CHECK ((release_id IS NULL) = (manifest IS NULL))
) STRICT;
INSERT INTO publisher_steps (namespace, release_id, metadata, manifest, pushed_by, updated_at_ms)
  SELECT namespace, release_id, metadata, manifest, pushed_by, updated_at_ms FROM pending_pushes;
DROP TABLE pending_pushes;

-- The director repeats what a release needs as it was signed; null where it names nothing.
ALTER TABLE desired ADD COLUMN requires TEXT;
UPDATE desired SET requires = (SELECT requires FROM releases WHERE releases.release_id = desired.release_id);
UPDATE rollout_devices SET previous = json_set(
    previous, '$.requires',
    (SELECT requires FROM releases WHERE releases.release_id = json_extract(rollout_devices.previous, '$.releaseId'))
  )
  WHERE previous IS NOT NULL;
