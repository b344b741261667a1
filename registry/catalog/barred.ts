// Why: which releases nobody installs any more: below their publisher's floor, taken back one by one, or lost in a restore.
// Trusts: metadata that the repository has accepted. Must never: let a release back in; both only grow.

import { formatReleaseId } from '../../shared/kernel/releases.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import type { InspectedPush } from '../signing/publisher-metadata.ts';
import { fixed, type RegistryDb, type RegistryQueries, sql } from '../store/open.ts';
import type { ReleaseRow } from '../store/tables.ts';

export type BarringCode = 'release-withdrawn' | 'release-below-floor' | 'release-lost';

/** Something that a publisher said against its own releases. */
export interface Barring {
  code: BarringCode;
  /** In words, one sentence without a full stop. */
  detail: string;
  /** The releases that it bars and that nothing barred before. */
  releaseIds: string[];
}

/** Why nobody may install the release, null where everybody may. */
export function barredBecause(
  row: Pick<ReleaseRow, 'release_id' | 'withdrawn' | 'below_floor' | 'admitted'>,
): (Refusal & { code: BarringCode }) | null {
  if (row.withdrawn === 1)
    return { code: 'release-withdrawn', detail: `its publisher took ${row.release_id} back` };
  if (row.below_floor === 1) {
    return {
      code: 'release-below-floor',
      detail: `${row.release_id} is below the floor that its publisher signed`,
    };
  }
  if (row.admitted === 0)
    return {
      code: 'release-lost',
      detail: `the catalogue that devices hold does not name ${row.release_id}`,
    };
  return null;
}

/** Ids of all releases that nobody may install. The numbers are literals: only then the index on them is used. */
export function barredReleases(qb: RegistryQueries) {
  return qb
    .selectFrom('releases')
    .select('release_id')
    .where((where) =>
      where.or([
        where('withdrawn', '=', where.lit(1)),
        where('below_floor', '=', where.lit(1)),
        where('admitted', '=', where.lit(0)),
      ]),
    );
}

const barredAmongQuery = fixed((qb, releaseIds: string) =>
  qb
    .selectFrom('releases')
    .select(['release_id', 'withdrawn', 'below_floor', 'admitted'])
    .where('release_id', 'in', sql<string>`(SELECT value FROM json_each(${releaseIds}))`)
    .where((where) =>
      where.or([where('withdrawn', '=', 1), where('below_floor', '=', 1), where('admitted', '=', 0)]),
    ),
);

/** Those of the releases that nobody may install, and why. */
export function barredAmong(
  db: RegistryDb,
  qb: RegistryQueries,
  releaseIds: readonly string[],
): Map<string, Refusal & { code: BarringCode }> {
  const barred = new Map<string, Refusal & { code: BarringCode }>();
  if (releaseIds.length === 0) return barred;
  const rows = db.all(barredAmongQuery(qb, JSON.stringify(releaseIds)));
  for (const row of rows) {
    const because = barredBecause(row);
    if (because !== null) barred.set(row.release_id, because);
  }
  return barred;
}

/** Stores what an accepted step says against releases, in its transaction. */
export function barIn(
  db: RegistryDb,
  qb: RegistryQueries,
  namespace: string,
  step: Pick<InspectedPush, 'raised' | 'withdrawn'>,
): Barring[] {
  const barrings: Barring[] = [];
  for (const { release } of step.withdrawn) {
    const releaseId = formatReleaseId(release);
    const fresh = barredAmong(db, qb, [releaseId]).size === 0;
    db.run(qb.updateTable('releases').set({ withdrawn: 1 }).where('release_id', '=', releaseId));
    barrings.push({
      code: 'release-withdrawn',
      detail: `its publisher took ${releaseId} back`,
      releaseIds: fresh ? [releaseId] : [],
    });
  }
  for (const { model: name, from, to } of step.raised) {
    db.run(
      qb
        .insertInto('model_floors')
        .values({ namespace, name, floor: to })
        .onConflict((conflict) => conflict.columns(['namespace', 'name']).doUpdateSet({ floor: to })),
    );
    const below = db.all(
      qb
        .selectFrom('releases')
        .select(['release_id', 'withdrawn'])
        .where('namespace', '=', namespace)
        .where('name', '=', name)
        .where('counter', '<', to)
        .where('below_floor', '=', 0),
    );
    db.run(
      qb
        .updateTable('releases')
        .set({ below_floor: 1 })
        .where('namespace', '=', namespace)
        .where('name', '=', name)
        .where('counter', '<', to),
    );
    barrings.push({
      code: 'release-below-floor',
      detail: `the floor of ${namespace}/${name} rose from ${from} to ${to}`,
      releaseIds: below.filter((row) => row.withdrawn === 0).map((row) => row.release_id),
    });
  }
  return barrings;
}
