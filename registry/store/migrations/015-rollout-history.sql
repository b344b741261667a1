-- Who allowed what, and everything that became of a rollout and of its waves, each with its reason.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

CREATE TABLE rollout_approvals (
  rollout_id TEXT NOT NULL REFERENCES rollouts (rollout_id),
  wave_index INTEGER NOT NULL,
  user TEXT NOT NULL,
  comment TEXT,
  at_ms INTEGER NOT NULL,
  -- From then on it does not count for a wave that has not begun.
  expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (rollout_id, wave_index, user)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_history (
  history_id INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout_id TEXT NOT NULL REFERENCES rollouts (rollout_id),
  at_ms INTEGER NOT NULL,
  -- Null for the rollout itself.
  wave_index INTEGER,
  -- What it became: a state of the rollout or of the wave, or `approved`.
  what TEXT NOT NULL,
  -- Who asked for it; null where it followed by itself.
  user TEXT,
  reason TEXT
) STRICT;
CREATE INDEX rollout_history_by_rollout ON rollout_history (rollout_id, history_id);
