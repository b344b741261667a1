// Why: what other rollouts mean for the devices of one: which go first, and which devices they are at work on.
// Trusts: the tables. Must never: decide anything.

import type { RolloutState } from '../../shared/wire/rollouts.ts';
import { fixed, type RegistryDb, type RegistryQueries, sql } from '../store/open.ts';
import type { RolloutAhead, RolloutFact } from './facts.ts';
import { namesOf } from './together.ts';

/** Rollouts that change what is served under one of the names, a JSON array. */
export const partsNamed = (qb: RegistryQueries, names: string) =>
  qb
    .selectFrom('rollout_parts')
    .select('rollout_id')
    .where('as_name', 'in', sql<string>`(SELECT value FROM json_each(${names}))`);

/** Of a higher priority than the rollout's, and of its own with a lower number than this. */
const aheadQuery = fixed((qb, names: string, id: string, priority: number, before: number) =>
  qb
    .selectFrom('rollouts')
    .select(['rollout_id as id', 'state'])
    .where('rollout_id', 'in', partsNamed(qb, names))
    .where('ended_at_ms', 'is', null)
    .where('rollout_id', '!=', id)
    .where((where) =>
      where.or([
        where('priority', '>', priority),
        where.and([where('priority', '=', priority), where('number', '<', before)]),
      ]),
    )
    // The first of all is written last and stays.
    .orderBy('priority', 'asc')
    .orderBy('number', 'desc'),
);

const membersQuery = fixed((qb, rolloutId: string) =>
  qb
    .selectFrom('rollout_devices')
    .select('device_id as deviceId')
    .where('rollout_id', '=', rolloutId)
    .where('step', '!=', 'left'),
);

/**
 * By device: the rollout that goes first under the same name. Rollouts go by priority, those of one priority by age; one
 * waits for all of a higher priority, and for the earlier ones of its own where its file says `whenBusy: queue`. As this
 * is one order, no two ever wait for each other.
 */
export function readAhead(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
): Map<string, RolloutAhead> {
  const { id, number, priority, spec } = rollout;
  const before = spec.whenBusy === 'queue' ? number : 0;
  const ahead = db.all(aheadQuery(qb, JSON.stringify(namesOf(rollout)), id, priority, before));
  const found = new Map<string, RolloutAhead>();
  for (const one of ahead) {
    const devices = db.all(membersQuery(qb, one.id));
    const first = { id: one.id, state: one.state as RolloutState };
    for (const { deviceId } of devices) found.set(deviceId, first);
  }
  return found;
}

/** By device: the latest rollout of the same name that has not ended and counts it. */
export function readOpen(
  db: RegistryDb,
  qb: RegistryQueries,
  names: readonly string[],
): Map<string, RolloutAhead> {
  const rows = db.all(
    qb
      .selectFrom('rollouts as o')
      .innerJoin('rollout_devices as m', 'm.rollout_id', 'o.rollout_id')
      .select(['o.rollout_id as id', 'o.state as state', 'm.device_id as deviceId'])
      .where('o.rollout_id', 'in', partsNamed(qb, JSON.stringify(names)))
      .where('o.ended_at_ms', 'is', null)
      .where('m.step', '!=', 'left')
      .orderBy('o.number'),
  );
  return new Map(rows.map(({ id, state, deviceId }) => [deviceId, { id, state: state as RolloutState }]));
}

/** Devices that rollouts of other names are at work on; none where the file bounds no disruption. */
export function readBusy(
  db: RegistryDb,
  qb: RegistryQueries,
  { id, as, spec }: RolloutFact,
): ReadonlySet<string> {
  if (spec.disruption === undefined) return new Set();
  const query = qb
    .selectFrom('rollout_devices as m')
    .innerJoin('rollouts as o', 'o.rollout_id', 'm.rollout_id')
    .select('m.device_id as deviceId')
    .distinct()
    .where('m.rollout_id', '!=', id)
    .where('o.as_name', '!=', as)
    .where('m.step', 'in', ['assigned', 'reverted'])
    .where('m.state', 'not in', ['committed', 'idle', 'incompatible', 'unreachable'])
    // One that has been given up may never say more.
    .where((where) =>
      where.or([where('m.reason', 'is', null), where('m.reason', 'not like', '%"deadline-missed"%')]),
    );
  return new Set(db.all(query).map(({ deviceId }) => deviceId));
}
