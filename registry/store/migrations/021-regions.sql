-- Other regions: who they are, what of them was taken, and what of the catalogue is still to come.

-- The signed list of regions in force; no row: this registry is alone.
CREATE TABLE region_list (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL,
  -- Exact bytes of the envelope.
  envelope BLOB NOT NULL,
  taken_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE region_invitations (
  region TEXT PRIMARY KEY,
  secret_sha256 TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  -- Public key of the door that joined with it, hex.
  used_by TEXT,
  used_at_ms INTEGER
) STRICT;

CREATE TABLE region_links (
  region TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  last_contact_ms INTEGER,
  code TEXT,
  detail TEXT,
  bytes_in INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The place in each list of each region, moved on in the commit that took the items before it.
CREATE TABLE region_streams (
  region TEXT NOT NULL,
  name TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  last INTEGER NOT NULL,
  taken INTEGER NOT NULL,
  PRIMARY KEY (region, name)
) STRICT;

-- Region roots of other regions, from the one of the list on.
CREATE TABLE region_roots (
  region TEXT NOT NULL,
  version INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (region, version)
) STRICT;

-- Releases that the mirrored catalogue names and whose files are not all here.
CREATE TABLE mirror_releases (
  release_id TEXT PRIMARY KEY,
  namespace TEXT NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_bytes INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  requires TEXT,
  signed_by TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('wanted', 'refused')),
  code TEXT,
  detail TEXT,
  retry_at_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The highest numbers seen of the mirrored catalogue (shared/trust/tuf/floors.ts).
CREATE TABLE mirror_numbers (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  numbers TEXT NOT NULL
) STRICT;
