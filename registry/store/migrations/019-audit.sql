-- Who did what: a chain of entries, what this region signed of it, and what other regions signed of theirs. Append-only:
-- a migration that was applied somewhere is never edited; write the next one.

CREATE TABLE audit_entries (
  -- Rises by one, without gaps.
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  region TEXT NOT NULL,
  actor TEXT NOT NULL,
  via TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT,
  reason TEXT,
  outcome TEXT NOT NULL,
  code TEXT,
  rule TEXT,
  address TEXT,
  -- JSON object.
  detail TEXT NOT NULL,
  previous_sha256 TEXT NOT NULL,
  entry_sha256 TEXT NOT NULL
) STRICT;
CREATE INDEX audit_entries_actor ON audit_entries (actor);
CREATE INDEX audit_entries_action ON audit_entries (action);
CREATE INDEX audit_entries_subject ON audit_entries (subject);

-- Requests that change something and were not answered yet. What is left here at a start ended in between: nobody was told
-- of the outcome, and an entry says so.
CREATE TABLE audit_open (
  open_id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  -- JSON: the entry as far as it was known.
  entry TEXT NOT NULL
) STRICT;

CREATE TABLE audit_heads (
  sequence INTEGER PRIMARY KEY,
  entries INTEGER NOT NULL,
  head_sha256 TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  -- JSON: what the region signed.
  envelope TEXT NOT NULL
) STRICT;

CREATE TABLE peer_audit_heads (
  region TEXT NOT NULL,
  -- Of what was signed: the same head is taken once.
  statement_sha256 TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  entries INTEGER NOT NULL,
  head_sha256 TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  envelope TEXT NOT NULL,
  received_at_ms INTEGER NOT NULL,
  -- Code of how it does not go together with another one of that region; null where it does.
  conflict TEXT,
  PRIMARY KEY (region, statement_sha256)
) STRICT;
CREATE INDEX peer_audit_heads_sequence ON peer_audit_heads (region, sequence);
CREATE INDEX peer_audit_heads_entries ON peer_audit_heads (region, entries);
