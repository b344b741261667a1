// Why: what the devices of a wave counted about what they ran before, so that a release is compared with it on the same
// devices. Trusts: the rollups, and what the controller noted of each device when it assigned. Must never: count a release
// that a device only tried.

import { previousColumn } from '../fleet/previous.ts';
import { type RegistryDb, type RegistryQueries, sql } from '../store/open.ts';
import type { RequestSums } from './evidence-gates.ts';
import type { RolloutFact, WaveFact } from './facts.ts';
import { sumRequests } from './request-sums.ts';

const hourMs = 3_600_000;
/** A day and its night; older traffic says less about this one's. */
const hoursBefore = 24;

/** Of the last day before the wave began, and since. */
export function readActiveEvidence(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  wave: WaveFact,
): RequestSums {
  const before = previousColumn(rollout.as, { rollout: 'o', member: 'm' });
  const sinceHour = Math.floor((wave.startedAtMs ?? 0) / hourMs) - hoursBefore;
  const rows = db.all(
    qb
      .selectFrom('rollout_devices as m')
      .innerJoin('rollouts as o', 'o.rollout_id', 'm.rollout_id')
      .innerJoin('rollup_requests as r', 'r.device_id', 'm.device_id')
      .select(['r.device_id as device', 'r.requests', 'r.errors', 'r.latency'])
      .where('m.rollout_id', '=', rollout.id)
      .where('m.wave_index', '=', wave.index)
      .where('m.step', '=', 'assigned')
      .where('r.hour', '>=', sinceHour)
      .whereRef('r.release', '=', sql<string>`json_extract(${before}, '$.releaseId')`)
      .where('r.release', '!=', rollout.release.releaseId),
  );
  return sumRequests(rows);
}
