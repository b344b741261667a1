// Why: what a rollout took the place of on a device, by the name under which it is served: of several releases that go
// out as one each has its own. Trusts: what rollout/ stored. Must never: give one name what belonged to another.

import { type RegistryDb, type RegistryQueries, sql } from '../store/open.ts';
import { fromNullableColumn } from './columns.ts';

/**
 * JSON of the DesiredRelease (registry/rollout/facts.ts) to go back to under the name, NULL where there is none. The
 * aliases are those of the query's `rollouts` and `rollout_devices`. Names have no quotes (shared/wire: nameSchema).
 */
export const previousColumn = (as: string, { rollout, member }: { rollout: string; member: string }) =>
  sql<string | null>`iif(${sql.ref(`${rollout}.as_name`)} = ${as}, ${sql.ref(`${member}.previous`)},
    json_extract(${sql.ref(`${member}.companions`)}, '$."' || ${as} || '"'))`;

/** The same of one device, as its value. */
export function previousUnder<Release>(
  db: RegistryDb,
  qb: RegistryQueries,
  deviceId: string,
  { rolloutId, as }: { rolloutId: string | null; as: string },
): Release | null {
  if (rolloutId === null) return null;
  const row = db.first(
    qb
      .selectFrom('rollout_devices as m')
      .innerJoin('rollouts as o', 'o.rollout_id', 'm.rollout_id')
      .select(previousColumn(as, { rollout: 'o', member: 'm' }).as('previous'))
      .where('m.device_id', '=', deviceId)
      .where('m.rollout_id', '=', rolloutId),
  );
  return fromNullableColumn<Release>(row?.previous ?? null);
}
