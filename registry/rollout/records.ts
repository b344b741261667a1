// Why: a rollout, its waves, approvals and history as rows of the registry's tables, read and written.
// Trusts: the tables of 002-fleet.sql. Must never: decide anything.

import { createRecent } from '../../shared/kernel/recent.ts';
import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import type { RolloutState, WaveState } from '../../shared/wire/rollouts.ts';
import { fromColumn, toColumn } from '../fleet/columns.ts';
import type { RolloutRow, RolloutWavesTable } from '../store/fleet-tables.ts';
import { fixed, type RegistryDb, type RegistryQueries } from '../store/open.ts';
import { readCompanions, releaseIn } from './companions.ts';
import type { GateView, RolloutFact, WaveFact } from './facts.ts';
import { wavesOf } from './waves.ts';

const specs = createRecent<RolloutSpec>(256);

/** The same text is the same value: nothing changes a spec, and a rollout is looked at many times. */
export function specOf(text: string): RolloutSpec {
  const known = specs.get(text);
  if (known !== undefined) return known;
  const spec = fromColumn<RolloutSpec>(text);
  specs.set(text, spec);
  return spec;
}

function rolloutFact(row: RolloutRow & { requires: string | null }): RolloutFact {
  const spec = specOf(row.spec);
  return {
    id: row.rollout_id,
    number: row.number,
    name: row.name,
    as: row.as_name,
    release: releaseIn(row),
    spec,
    createdBy: row.created_by,
    priority: row.priority,
    waves: wavesOf(spec),
    state: row.state as RolloutState,
    reason: row.reason,
    endsAs: row.ends_as as RolloutFact['endsAs'],
    endedAtMs: row.ended_at_ms,
  };
}

const rolloutQuery = fixed((qb, rolloutId: string) =>
  qb
    .selectFrom('rollouts')
    .leftJoin('releases', 'releases.release_id', 'rollouts.release_id')
    .selectAll('rollouts')
    .select('releases.requires')
    .where('rollout_id', '=', rolloutId),
);

const wavesQuery = fixed((qb, rolloutId: string) =>
  qb.selectFrom('rollout_waves').selectAll().where('rollout_id', '=', rolloutId).orderBy('wave_index'),
);

export function readRollout(db: RegistryDb, qb: RegistryQueries, rolloutId: string): RolloutFact | undefined {
  const row = db.first(rolloutQuery(qb, rolloutId));
  if (row === undefined) return undefined;
  const companions = readCompanions(db, qb, rolloutId);
  const rollout = rolloutFact(row);
  return companions.length === 0 ? rollout : { ...rollout, companions };
}

export function readWaves(db: RegistryDb, qb: RegistryQueries, rolloutId: string): WaveFact[] {
  return db.all(wavesQuery(qb, rolloutId)).map((row: RolloutWavesTable) => ({
    index: row.wave_index,
    state: row.state as WaveState,
    reason: row.reason,
    gates: fromColumn<GateView[]>(row.gates),
    startedAtMs: row.started_at_ms,
    endedAtMs: row.ended_at_ms,
  }));
}

export function readApprovals(db: RegistryDb, qb: RegistryQueries, rolloutId: string) {
  return db.all(
    qb
      .selectFrom('rollout_approvals')
      .select([
        'wave_index as wave',
        'user as by',
        'comment',
        'at_ms as atMs',
        'expires_at_ms as expiresAtMs',
      ])
      .where('rollout_id', '=', rolloutId)
      .orderBy('at_ms')
      .orderBy('user'),
  );
}

export interface HistoryEntry {
  wave: number | null;
  what: string;
  by: string | null;
  reason: string | null;
  atMs: number;
}

export function writeHistory(
  db: RegistryDb,
  qb: RegistryQueries,
  rolloutId: string,
  entry: HistoryEntry,
): void {
  const { wave, what, by, reason, atMs } = entry;
  const values = { rollout_id: rolloutId, at_ms: atMs, wave_index: wave, what, user: by, reason };
  db.run(qb.insertInto('rollout_history').values(values));
}

export function readHistory(db: RegistryDb, qb: RegistryQueries, rolloutId: string): HistoryEntry[] {
  return db.all(
    qb
      .selectFrom('rollout_history')
      .select(['wave_index as wave', 'what', 'user as by', 'reason', 'at_ms as atMs'])
      .where('rollout_id', '=', rolloutId)
      .orderBy('history_id'),
  );
}

/** Stores the rollout itself. */
export function writeRollout(db: RegistryDb, qb: RegistryQueries, rollout: RolloutFact): void {
  const { state, reason, endsAs, endedAtMs } = rollout;
  db.run(
    qb
      .updateTable('rollouts')
      .set({ state, reason, ends_as: endsAs, ended_at_ms: endedAtMs })
      .where('rollout_id', '=', rollout.id),
  );
}

export function writeWave(db: RegistryDb, qb: RegistryQueries, rolloutId: string, wave: WaveFact): void {
  const columns = {
    state: wave.state,
    reason: wave.reason,
    gates: toColumn(wave.gates),
    started_at_ms: wave.startedAtMs,
    ended_at_ms: wave.endedAtMs,
  };
  db.run(
    qb
      .insertInto('rollout_waves')
      .values({ rollout_id: rolloutId, wave_index: wave.index, ...columns })
      .onConflict((conflict) => conflict.columns(['rollout_id', 'wave_index']).doUpdateSet(columns)),
  );
}
