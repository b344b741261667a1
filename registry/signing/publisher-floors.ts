// Why: numbers of a namespace that were given out and lost with a backup are never given out again (DESIGN 3).
// Trusts: its callers to have verified the signed bytes that showed the number. Must never: let one fall.

import type { RegistryDb, RegistryQueries } from '../store/open.ts';

/** Raises the number above which the namespace's next version must be. True where it rose. */
export function raiseVersionFloorIn(
  db: RegistryDb,
  qb: RegistryQueries,
  namespace: string,
  version: number,
): boolean {
  const raised = db.run(
    qb
      .updateTable('publishers')
      .set({ version_floor: version })
      .where('namespace', '=', namespace)
      .where('version_floor', '<', version),
  );
  return raised.changes > 0;
}

/** Raises the number above which the counters of the model's new releases must be. True where it rose. */
export function raiseCounterFloorIn(
  db: RegistryDb,
  qb: RegistryQueries,
  model: { namespace: string; name: string },
  counter: number,
): boolean {
  const raised = db.run(
    qb
      .insertInto('model_floors')
      .values({ ...model, counter_floor: counter })
      .onConflict((conflict) =>
        conflict
          .columns(['namespace', 'name'])
          .doUpdateSet({ counter_floor: counter })
          .where('model_floors.counter_floor', '<', counter),
      ),
  );
  return raised.changes > 0;
}

/** By model name; models without one are left out. */
export function counterFloorsIn(db: RegistryDb, qb: RegistryQueries, namespace: string): Map<string, number> {
  const rows = db.all(
    qb
      .selectFrom('model_floors')
      .select(['name', 'counter_floor'])
      .where('namespace', '=', namespace)
      .where('counter_floor', '>', 0)
      .orderBy('name'),
  );
  return new Map(rows.map((row) => [row.name, row.counter_floor]));
}
