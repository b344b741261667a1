// Why: the facts of the residency report, read from what was counted and from what is here.
// Trusts: the store and the policy in force. Must never: hold up the store while much is added up.

import type { Clock } from '../../shared/kernel/ports.ts';
import type { FlowTotal, ResidencyReport } from '../../shared/wire/residency-report.ts';
import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import { keptRecords } from '../policy/kept-records.ts';
import type { PolicyDesk } from '../policy/region-policies.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

const dayMs = 86_400_000;

/** `untilMs`: the day in which it lies is the last one. */
export async function residencyFacts(
  parts: { region: string; store: RegistryStore; policies: PolicyDesk; clock: Clock },
  period: { sinceMs: number; untilMs: number },
): Promise<ResidencyReport> {
  const { region, store, policies, clock } = parts;
  const { qb } = store;
  const firstDay = Math.floor(period.sinceMs / dayMs);
  const endDay = Math.floor(period.untilMs / dayMs) + 1;

  const flowsIn = (db: RegistryDb, allowed: 0 | 1): FlowTotal[] =>
    db.all(
      qb
        .selectFrom('flow_counts')
        .select(['flow as class', 'destination', 'rule'])
        .select((eb) => [
          eb.fn.sum<number>('requests').as('requests'),
          eb.fn.sum<number>('records').as('records'),
          eb.fn.sum<number>('bytes').as('bytes'),
        ])
        .where('day', '>=', firstDay)
        .where('day', '<', endDay)
        .where('allowed', '=', allowed)
        .groupBy(['flow', 'destination', 'rule'])
        .orderBy('flow')
        .orderBy('destination')
        .orderBy('rule'),
    );

  const { inForce } = await policies.view();
  const [left, refused] = await store.tx((db) => [flowsIn(db, 1), flowsIn(db, 0)]);
  const kept = await keptRecords(store);
  return {
    ...{ schemaVersion: 1, region, madeAtMs: clock.wall() },
    ...{ sinceMs: firstDay * dayMs, untilMs: endDay * dayMs },
    policy:
      inForce === null
        ? null
        : {
            ...{ name: inForce.name, version: inForce.version, sha256: inForce.sha256 },
            ...{ signedBy: inForce.signedBy, putAtMs: inForce.putAtMs },
            cellDevicesMin: policies.cellDevicesMin(),
          },
    ...{ left, refused },
    kept: telemetryClasses.map((kind) => {
      const { ms: keptMs, rule } = policies.retentionMs(kind);
      const purposes = (inForce?.policy.spec.purposes ?? [])
        .filter(({ classes }) => classes.includes(kind))
        .map(({ purpose, lawfulBasis }) => ({ purpose, lawfulBasis }));
      const sum = kept.get(kind) ?? { batches: 0, records: 0, bytes: 0, oldestMs: null };
      return { class: kind, ...sum, keptMs, rule, purposes };
    }),
  };
}
