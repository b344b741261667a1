-- Rollouts across regions: what the coordinating region keeps, and the orders that a region has taken.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

CREATE TABLE region_rollouts (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  region_rollout_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  -- JSON array: NS/NAME@VERSION each, or the NS/NAME that is taken away.
  releases TEXT NOT NULL,
  as_name TEXT NOT NULL,
  -- As every region gets it: without the order of regions.
  file TEXT NOT NULL,
  -- JSON array, by stage: how long it stands before the next, milliseconds.
  soaks TEXT NOT NULL,
  -- After so long later stages go on without a region that is cut off; null: they wait.
  skip_after_ms INTEGER,
  on_abort TEXT NOT NULL CHECK (on_abort IN ('keep', 'revert')),
  state TEXT NOT NULL,
  reason TEXT,
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  ended_at_ms INTEGER
) STRICT;

CREATE TABLE region_rollout_parts (
  region_rollout_id TEXT NOT NULL REFERENCES region_rollouts (region_rollout_id),
  region TEXT NOT NULL,
  stage INTEGER NOT NULL,
  wish TEXT NOT NULL,
  wished_by TEXT,
  wish_reason TEXT,
  wished_at_ms INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  left_out INTEGER NOT NULL,
  succeeded_at_ms INTEGER,
  -- Of the list of orders: the newest revision stands at its end.
  order_number INTEGER NOT NULL UNIQUE,
  -- JSON, as the region last said; null: nothing yet.
  progress TEXT,
  heard_at_ms INTEGER,
  PRIMARY KEY (region_rollout_id, region)
) STRICT, WITHOUT ROWID;
CREATE INDEX region_rollout_parts_by_order ON region_rollout_parts (region, order_number);

CREATE TABLE region_rollout_history (
  history_id INTEGER PRIMARY KEY AUTOINCREMENT,
  region_rollout_id TEXT NOT NULL REFERENCES region_rollouts (region_rollout_id),
  at_ms INTEGER NOT NULL,
  what TEXT NOT NULL,
  -- Who asked for it; null where it followed by itself.
  user TEXT,
  reason TEXT
) STRICT;
CREATE INDEX region_rollout_history_by_rollout ON region_rollout_history (region_rollout_id, history_id);

CREATE TABLE region_orders (
  coordinator TEXT NOT NULL,
  order_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  -- JSON, as it came and was checked.
  body TEXT NOT NULL,
  taken_at_ms INTEGER NOT NULL,
  -- The highest revision that was acted on.
  acted INTEGER NOT NULL,
  -- Why it is refused or waited with; null: it is not.
  verdict TEXT CHECK (verdict IN ('refused', 'waits')),
  code TEXT,
  rule TEXT,
  detail TEXT,
  -- 1: nothing more follows until another revision comes.
  settled INTEGER NOT NULL,
  -- JSON, as the coordinating region is told, and its place in the list of progress.
  progress TEXT,
  progress_number INTEGER UNIQUE,
  PRIMARY KEY (coordinator, order_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX region_orders_by_progress ON region_orders (coordinator, progress_number);
