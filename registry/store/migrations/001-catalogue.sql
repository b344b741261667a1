-- The catalogue: metadata, publishers, releases, access. Append-only: never edit a migration that was released.

CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE metadata_files (
  name TEXT PRIMARY KEY,
  bytes BLOB NOT NULL,
  created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE metadata_roles (
  role TEXT PRIMARY KEY,
  version INTEGER NOT NULL CHECK (version > 0),
  file TEXT NOT NULL REFERENCES metadata_files (name),
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE publishers (
  namespace TEXT PRIMARY KEY,
  keys TEXT NOT NULL,
  threshold INTEGER NOT NULL CHECK (threshold > 0),
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE releases (
  release_id TEXT PRIMARY KEY,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  counter INTEGER NOT NULL CHECK (counter >= 0),
  manifest_sha256 TEXT NOT NULL,
  manifest BLOB NOT NULL,
  total_bytes INTEGER NOT NULL,
  signed_by TEXT NOT NULL,
  admitted INTEGER NOT NULL CHECK (admitted IN (0, 1)),
  reason TEXT,
  pushed_by TEXT NOT NULL,
  pushed_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX releases_by_counter ON releases (namespace, name, counter);

CREATE TABLE pending_pushes (
  namespace TEXT PRIMARY KEY,
  release_id TEXT NOT NULL,
  metadata BLOB NOT NULL,
  manifest BLOB NOT NULL,
  pushed_by TEXT NOT NULL,
  updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  user TEXT NOT NULL,
  role TEXT NOT NULL,
  namespace TEXT,
  secret_sha256 TEXT NOT NULL UNIQUE,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER,
  revoked_at_ms INTEGER
) STRICT, WITHOUT ROWID;
