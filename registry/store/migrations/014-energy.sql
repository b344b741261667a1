-- Joules of releases as devices told them, by how they were found: what was measured and what was modelled never add up.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

CREATE TABLE rollup_energy (
  release TEXT NOT NULL,
  -- Hours since 1970 began, UTC.
  hour INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  model TEXT NOT NULL,
  -- rapl, cpu-time, per-request or none (shared/wire/energy.ts).
  method TEXT NOT NULL,
  windows INTEGER NOT NULL,
  -- Answered.
  requests INTEGER NOT NULL,
  -- 0 where the method is none.
  joules REAL NOT NULL,
  -- CPU time of the release's processes, and the requests of the windows in which the device could tell it.
  cpu_ms REAL NOT NULL,
  cpu_requests INTEGER NOT NULL,
  PRIMARY KEY (release, hour, device_id, model, method)
) STRICT, WITHOUT ROWID;
