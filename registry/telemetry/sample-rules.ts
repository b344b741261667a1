// Why: which requests of a model devices keep as samples, and that every device is told.
// Trusts: the API for who may set them. Must never: tell a device of a model that it does not run.

import type { Clock } from '../../shared/kernel/ports.ts';
import { modelOfRelease } from '../../shared/kernel/releases.ts';
import {
  type AssignedSampling,
  type SampleRules,
  type SampleRulesView,
  sampleRulesSchema,
} from '../../shared/wire/sample-rules.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

export interface SamplingPolicy {
  /** For the assignment of a device that is to run these releases; none where nothing is asked for. */
  inForceIn(db: RegistryDb, releases: readonly { releaseId: string }[]): AssignedSampling[];
  view(model: string): Promise<SampleRulesView>;
  /** Null clears. Durable when it resolves; the director brings it to devices. */
  set(model: string, rules: SampleRules | null, setBy: string): Promise<SampleRulesView>;
  /** Whether devices may hold assignments from before the last `set`. */
  isPending(): Promise<boolean>;
  /** Every assignment was signed again since the sets that lie before `setBeforeMs`. */
  applied(setBeforeMs: number): Promise<void>;
}

/** Over a store that has 013-samples.sql. */
export function createSamplingPolicy(parts: { store: RegistryStore; clock: Clock }): SamplingPolicy {
  const { store, clock } = parts;
  const { qb } = store;

  async function view(model: string): Promise<SampleRulesView> {
    const row = await store.tx((db) =>
      db.first(qb.selectFrom('sample_rules').selectAll().where('model', '=', model)),
    );
    if (row === undefined || row.rules === null) return { model, rules: null, setBy: null, setAtMs: null };
    const rules = sampleRulesSchema.parse(fromColumn(row.rules));
    return { model, rules, setBy: row.set_by, setAtMs: row.set_at_ms };
  }

  return {
    inForceIn(db, releases) {
      const some = [...new Set(releases.map(({ releaseId }) => modelOfRelease(releaseId)))];
      if (some.length === 0) return [];
      const rows = db.all(
        qb
          .selectFrom('sample_rules')
          .select(['model', 'rules'])
          .where('model', 'in', some)
          .where('rules', 'is not', null)
          .orderBy('model'),
      );
      return rows.map(({ model, rules }) => ({ model, ...fromColumn<SampleRules>(rules ?? '') }));
    },

    view,

    async set(model, rules, setBy) {
      const row = {
        rules: rules === null ? null : JSON.stringify(rules),
        set_by: setBy,
        set_at_ms: clock.wall(),
        pending: 1,
      };
      await store.tx((db) =>
        db.run(
          qb
            .insertInto('sample_rules')
            .values({ model, ...row })
            .onConflict((conflict) => conflict.column('model').doUpdateSet(row)),
        ),
      );
      return view(model);
    },

    async isPending() {
      const query = qb.selectFrom('sample_rules').select('model').where('pending', '=', 1).limit(1);
      return (await store.tx((db) => db.first(query))) !== undefined;
    },

    async applied(setBeforeMs) {
      await store.tx((db) => {
        const known = qb
          .updateTable('sample_rules')
          .set({ pending: 0 })
          .where('pending', '=', 1)
          .where('set_at_ms', '<=', setBeforeMs);
        db.run(known);
        db.run(qb.deleteFrom('sample_rules').where('pending', '=', 0).where('rules', 'is', null));
      });
    },
  };
}
