// Why: the other releases of a rollout of several: they are assigned and taken back with the first, name by name, and a
// device counts as done when all of them are (the device itself switches all or none: agent/update/together.ts).
// Trusts: the tables. Must never: touch a name that a later rollout has taken.

import type { MachineStateName, Reason } from '../../shared/wire/messages.ts';
import { barredAmong } from '../catalog/barred.ts';
import { fromColumn, fromNullableColumn, toColumn } from '../fleet/columns.ts';
import { previousUnder } from '../fleet/previous.ts';
import type { DesiredTable } from '../store/fleet-tables.ts';
import { fixed, type RegistryDb, type RegistryQueries } from '../store/open.ts';
import type { Companion, CompanionFact, DesiredRelease, RolloutFact } from './facts.ts';
import { goingBack } from './fitness.ts';
import { isRemoval } from './removal.ts';
import { togetherWith } from './together.ts';

/** What a row names by the columns that `rollouts`, `rollout_companions` and `desired` share. */
export const releaseIn = (
  row: Pick<DesiredTable, 'release_id' | 'manifest_sha256' | 'manifest_bytes' | 'counter' | 'requires'>,
): Companion['release'] => ({
  releaseId: row.release_id,
  manifestSha256: row.manifest_sha256,
  manifestBytes: row.manifest_bytes,
  counter: row.counter,
  requires: row.requires,
});

const companionsQuery = fixed((qb, rolloutId: string) =>
  qb
    .selectFrom('rollout_companions as c')
    .leftJoin('releases', 'releases.release_id', 'c.release_id')
    .selectAll('c')
    .select('releases.requires')
    .where('c.rollout_id', '=', rolloutId)
    .orderBy('c.as_name'),
);

export function readCompanions(db: RegistryDb, qb: RegistryQueries, rolloutId: string): Companion[] {
  const rows = db.all(companionsQuery(qb, rolloutId));
  return rows.map((row) => ({ as: row.as_name, release: releaseIn(row) }));
}

export function writeCompanions(
  db: RegistryDb,
  qb: RegistryQueries,
  rolloutId: string,
  companions: readonly Companion[],
): void {
  for (const { as, release } of companions)
    db.run(
      qb.insertInto('rollout_companions').values({
        rollout_id: rolloutId,
        as_name: as,
        release_id: release.releaseId,
        manifest_sha256: release.manifestSha256,
        manifest_bytes: release.manifestBytes,
        counter: release.counter,
      }),
    );
}

/** By device, in the order of the rollout's companions; none where one release goes out. */
const factsQuery = fixed((qb, as: string) =>
  qb
    .selectFrom('devices as d')
    .leftJoin('device_models as r', (join) =>
      join.onRef('r.device_id', '=', 'd.device_id').on('r.name', '=', as),
    )
    .leftJoin('desired as w', (join) =>
      join.onRef('w.device_id', '=', 'd.device_id').on('w.as_name', '=', as),
    )
    .select([
      'd.device_id as id',
      'r.state',
      'r.active',
      'r.candidate',
      'r.last_good as lastGood',
      'r.target',
    ])
    .select(['r.rollout_id as rolloutId', 'r.reason', 'w.release_id as desiredReleaseId'])
    .select('w.rollout_id as desiredRolloutId'),
);

export function readCompanionFacts(
  db: RegistryDb,
  qb: RegistryQueries,
  { companions = [] }: RolloutFact,
): Map<string, CompanionFact[]> {
  const found = new Map<string, CompanionFact[]>();
  for (const [at, { as }] of companions.entries()) {
    const rows = db.all(factsQuery(qb, as));
    for (const { id, desiredReleaseId, desiredRolloutId, state, reason, ...model } of rows) {
      const fact: CompanionFact = {
        model:
          state === null
            ? null
            : { ...model, state: state as MachineStateName, reason: fromNullableColumn<Reason>(reason) },
        desired:
          desiredReleaseId === null ? null : { releaseId: desiredReleaseId, rolloutId: desiredRolloutId },
      };
      const list = found.get(id) ?? [];
      list[at] = fact;
      found.set(id, list);
    }
  }
  return found;
}

/**
 * What the device goes back to under the name if what it is to run now is replaced: that where it is proven on it, else
 * what its own rollout would have gone back to.
 */
function provenUnder(
  db: RegistryDb,
  qb: RegistryQueries,
  deviceId: string,
  as: string,
): DesiredRelease | null {
  const row = db.first(
    qb
      .selectFrom('desired as w')
      .leftJoin('device_models as r', (join) =>
        join.onRef('r.device_id', '=', 'w.device_id').onRef('r.name', '=', 'w.as_name'),
      )
      .leftJoin('rollout_devices as m', (join) =>
        join.onRef('m.device_id', '=', 'w.device_id').onRef('m.rollout_id', '=', 'w.rollout_id'),
      )
      .selectAll('w')
      .select(['r.last_good as lastGood', 'm.state as ownerState'])
      .where('w.device_id', '=', deviceId)
      .where('w.as_name', '=', as),
  );
  if (row === undefined) return null;
  const desired: DesiredRelease = {
    ...releaseIn(row),
    rolloutId: row.rollout_id,
    policy: fromColumn(row.policy),
  };
  const proven =
    row.ownerState === null ||
    row.ownerState === 'committed' ||
    row.lastGood === desired.releaseId ||
    (isRemoval(desired) && row.lastGood === null);
  return proven
    ? desired
    : previousUnder<DesiredRelease>(db, qb, deviceId, { rolloutId: row.rollout_id, as });
}

type WriteDesired = (deviceId: string, as: string, release: DesiredRelease | null) => void;

/**
 * The companions follow where the first release goes: on to the device, or back from it. What they go back to is
 * returned where it is to be kept with the member; null where nothing is.
 */
export function moveCompanions(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  [deviceId, release]: [string, DesiredRelease | null],
  write: WriteDesired,
): string | null {
  const { companions = [] } = rollout;
  if (companions.length === 0) return null;
  if (release?.rolloutId === rollout.id) {
    const before = companions.map(({ as }) => [as, provenUnder(db, qb, deviceId, as)] as const);
    for (const { as, release: own } of companions)
      write(deviceId, as, {
        ...own,
        rolloutId: rollout.id,
        policy: togetherWith(rollout, as, release.policy),
      });
    return toColumn(Object.fromEntries(before));
  }
  for (const { as } of companions) {
    const present = db.first(
      qb
        .selectFrom('desired as w')
        .leftJoin('device_models as r', (join) =>
          join.onRef('r.device_id', '=', 'w.device_id').onRef('r.name', '=', 'w.as_name'),
        )
        .select(['w.rollout_id as rolloutId', 'r.active', 'r.last_good as lastGood'])
        .where('w.device_id', '=', deviceId)
        .where('w.as_name', '=', as),
    );
    // A later rollout has it.
    if (present?.rolloutId !== rollout.id) continue;
    const previous = previousUnder<DesiredRelease>(db, qb, deviceId, { rolloutId: rollout.id, as });
    const barred = Object.fromEntries(barredAmong(db, qb, previous === null ? [] : [previous.releaseId]));
    write(deviceId, as, goingBack(barred, { model: present }, previous).release);
  }
  return null;
}
