// Why: counts records that come after their day was closed: they are in no cell, and people should know how many are not.
// Trusts: ingest for the transaction. Must never: change a cell.

import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { cellDayMs } from './publishing.ts';

export interface Lateness {
  addIn(db: RegistryDb, records: readonly { timeMs: number }[]): void;
}

export function createLateness(store: RegistryStore): Lateness {
  const { qb } = store;
  return {
    addIn(db, records) {
      const late = new Map<number, number>();
      for (const { timeMs } of records) {
        const day = Math.floor(timeMs / cellDayMs);
        late.set(day, (late.get(day) ?? 0) + 1);
      }
      for (const [day, count] of late)
        db.run(
          qb
            .updateTable('cell_days')
            .set((eb) => ({ late_records: eb('late_records', '+', count) }))
            // A day of which nothing had come may have been passed over: it was closed with the next one.
            .where('day', '=', (eb) =>
              eb
                .selectFrom('cell_days')
                .select((sub) => sub.fn.min('day').as('day'))
                .where('day', '>=', day),
            ),
        );
    },
  };
}
