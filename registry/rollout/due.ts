// Why: which rollouts a pass of the controller looks at. Trusts: the tables. Must never: leave out one that can move.

import { barredReleases } from '../catalog/barred.ts';
import { fixed, type RegistryQueries, sql } from '../store/open.ts';

export const firstBarred = fixed((qb) => barredReleases(qb).limit(1));

/** Members of it wait for their devices' word, though it may have ended. */
const lateOnes = (qb: RegistryQueries) =>
  qb
    .selectFrom('rollout_devices')
    .select('rollout_id')
    .where('step', 'in', ['assigned', 'reverted'])
    .where('state', 'not in', ['committed', 'idle', 'incompatible']);

/** One of the devices, a JSON array, could not run its release and may have a newer agent now. */
const unfitOnes = (qb: RegistryQueries, deviceIds: string) =>
  qb
    .selectFrom('rollout_devices')
    .select('rollout_id')
    .where('device_id', 'in', sql<string>`(SELECT value FROM json_each(${deviceIds}))`)
    .where('step', '=', 'left')
    .where('state', '=', 'incompatible');

const barredAndNotRun = (qb: RegistryQueries) =>
  qb
    .selectFrom('desired as w')
    .leftJoin('device_models as r', (join) =>
      join.onRef('r.device_id', '=', 'w.device_id').onRef('r.name', '=', 'w.as_name'),
    )
    .select('w.rollout_id')
    .where('w.release_id', 'in', barredReleases(qb))
    .where('w.rollout_id', 'is not', null)
    .where((where) =>
      where.or([where('r.active', 'is', null), where('r.active', '!=', where.ref('w.release_id'))]),
    );

const variant = (members: boolean, anyBarred: boolean) =>
  fixed((qb, deviceIds: string) =>
    qb
      .selectFrom('rollouts')
      .select(['rollout_id', 'priority', 'number', 'spec'])
      .where((where) =>
        where.or([
          where('state', 'in', [
            'awaiting-approval',
            'running',
            'paused',
            'rolling-back',
            ...(members ? ['succeeded'] : []),
          ]),
          where('rollout_id', 'in', lateOnes(qb)),
          where('rollout_id', 'in', unfitOnes(qb, deviceIds)),
          ...(anyBarred ? [where('rollout_id', 'in', barredAndNotRun(qb))] : []),
        ]),
      )
      .orderBy('number', 'desc'),
  );

const open = { quiet: variant(false, false), barred: variant(false, true) };
const alsoSucceeded = { quiet: variant(true, false), barred: variant(true, true) };

/** The latest first. `members`: also those that succeeded, as devices may have come that they match. */
export const dueQuery = (members: boolean, anyBarred: boolean) =>
  (members ? alsoSucceeded : open)[anyBarred ? 'barred' : 'quiet'];
