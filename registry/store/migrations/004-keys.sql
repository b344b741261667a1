-- Keys that change: online keys that wait for a root to name them, and what was signed or claimed under which.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Made for a plan and held on disk; they sign nothing until a root that names them is installed. One a role.
CREATE TABLE pending_keys (
  role TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  public_key TEXT NOT NULL,
  made_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who holds which key, as the bundles that were installed say: for people, proves nothing. Roots carry the names
-- of their own holders; this is for publishers.
CREATE TABLE key_holders (
  key_id TEXT PRIMARY KEY,
  holder TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Key id of the director's key, so that a new one signs everything again, also after a crash in mid-way.
-- Null: signed before keys could change.
ALTER TABLE assignments ADD COLUMN signed_by TEXT;

-- The roots whose digests the claim names: a device that uses it later starts from those and walks on.
-- Null: claimed before these columns were there.
ALTER TABLE claims ADD COLUMN catalogue_root_version INTEGER;
ALTER TABLE claims ADD COLUMN region_root_version INTEGER;
