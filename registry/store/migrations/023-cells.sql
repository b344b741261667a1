-- What this region tells of its devices' days, each cell published once and never again, what it withheld, and what it took
-- of other regions. See shared/stats/cells.ts.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- Days that are closed: nothing of them is published any more.
CREATE TABLE cell_days (
  -- Days since 1970 began, UTC, by the devices' clocks.
  day INTEGER PRIMARY KEY,
  closed_at_ms INTEGER NOT NULL,
  published INTEGER NOT NULL,
  withheld INTEGER NOT NULL,
  -- Records that came later.
  late_records INTEGER NOT NULL
) STRICT;

CREATE TABLE cells (
  -- The place in the list that peers pull.
  cell_id INTEGER PRIMARY KEY AUTOINCREMENT,
  day INTEGER NOT NULL REFERENCES cell_days (day),
  kind TEXT NOT NULL CHECK (kind IN ('release', 'model')),
  -- NS/NAME@VERSION, or NS/NAME.
  subject TEXT NOT NULL,
  -- NS/NAME.
  model TEXT NOT NULL,
  -- The exact bytes that were signed.
  body BLOB NOT NULL,
  -- JSON: the envelope's signatures.
  signatures TEXT NOT NULL,
  UNIQUE (kind, subject, day)
) STRICT;
CREATE INDEX cells_by_day ON cells (day);

-- Key and reason, never a number; for the region's own people.
CREATE TABLE cells_withheld (
  day INTEGER NOT NULL REFERENCES cell_days (day),
  kind TEXT NOT NULL CHECK (kind IN ('release', 'model')),
  subject TEXT NOT NULL,
  model TEXT NOT NULL,
  part TEXT NOT NULL,
  rule TEXT NOT NULL,
  PRIMARY KEY (day, kind, subject, part)
) STRICT, WITHOUT ROWID;

-- Whose counts are in a published cell, as digests of device ids, for a week: the next days keep apart from it.
CREATE TABLE cell_members (
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  day INTEGER NOT NULL,
  -- JSON array.
  members TEXT NOT NULL,
  PRIMARY KEY (kind, subject, day)
) STRICT, WITHOUT ROWID;

-- Of other regions, verified.
CREATE TABLE peer_cells (
  region TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('release', 'model')),
  subject TEXT NOT NULL,
  day INTEGER NOT NULL,
  model TEXT NOT NULL,
  body BLOB NOT NULL,
  signatures TEXT NOT NULL,
  taken_at_ms INTEGER NOT NULL,
  PRIMARY KEY (region, kind, subject, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_cells_by_day ON peer_cells (day);
