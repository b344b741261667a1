// Why: how much raw telemetry of each class is here, added up in steps so that nobody waits for it.
// Trusts: the store. Must never: read what is in a record.

import { type TelemetryClass, telemetryClasses } from '../../shared/wire/telemetry.ts';
import { type RegistryStore, sql } from '../store/open.ts';

export interface KeptRecords {
  batches: number;
  records: number;
  /** As they lie in the database: compressed and sealed. */
  bytes: number;
  /** Age as retention counts it; null where there is nothing. */
  oldestMs: number | null;
}

/** Batches that are looked at in one transaction. */
const batchesPerStep = 5_000;

/** When records count as made: a clock that is ahead must not keep them for ever. The index of migration 020 has these words. */
export const madeMs = sql<number>`min(time_last_ms, stored_at_ms)`;

/** By class; `which` says whether all of one are added up, those alone that were made before a time, or none. */
export async function keptRecords(
  store: RegistryStore,
  which: (telemetryClass: TelemetryClass) => { before: number } | 'all' | 'none' = () => 'all',
): Promise<Map<TelemetryClass, KeptRecords>> {
  const { qb } = store;
  const sums = new Map<TelemetryClass, KeptRecords>(
    telemetryClasses.map((one) => [one, { batches: 0, records: 0, bytes: 0, oldestMs: null }]),
  );
  const wanted = new Map(telemetryClasses.map((one) => [one, which(one)]));
  const { last } = (await store.tx((db) =>
    db.first(
      qb.selectFrom('telemetry_batches').select((eb) => eb.fn.max<number | null>('batch_id').as('last')),
    ),
  )) ?? { last: null };
  for (let after = 0; after < (last ?? 0); after += batchesPerStep) {
    const rows = await store.tx((db) =>
      db.all(
        qb
          .selectFrom('telemetry_batches as b')
          .leftJoin('telemetry_sealed as s', 's.batch_id', 'b.batch_id')
          .select(['b.batch_id as batchId', 'b.class as class', 'b.records as records'])
          .select([madeMs.as('madeMs'), sql<number | null>`length(s.sealed)`.as('bytes')])
          .where('b.batch_id', '>', after)
          .where('b.batch_id', '<=', after + batchesPerStep)
          .where('b.gone_at_ms', 'is', null)
          .where('b.time_last_ms', 'is not', null),
      ),
    );
    for (const row of rows) {
      const sum = sums.get(row.class);
      const of = wanted.get(row.class) ?? 'none';
      if (sum === undefined || of === 'none' || (of !== 'all' && row.madeMs >= of.before)) continue;
      sum.batches += 1;
      sum.records += row.records;
      sum.bytes += row.bytes ?? 0;
      sum.oldestMs = Math.min(sum.oldestMs ?? row.madeMs, row.madeMs);
    }
  }
  return sums;
}
