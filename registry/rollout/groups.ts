// Why: named selectors, so that a rollout file can say `groups: [canaries]` and mean what the operator keeps under it.
// Trusts: its callers to have checked the right. Must never: let a group name groups: that could go round in circles.

import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { DeviceGroup } from '../../shared/wire/groups.ts';
import type { Selector } from '../../shared/wire/rollout-file.ts';
import { fromColumn, toColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryQueries, RegistryStore } from '../store/open.ts';

export interface DeviceGroups {
  /** Made, or changed: rollouts under way see it at once. Refusal: `input-invalid` (it names groups). */
  put(name: string, selector: Selector, by: string): Promise<Result<DeviceGroup>>;
  list(): Promise<DeviceGroup[]>;
  /** Rollouts that name it match nothing by it from then on; who has a wave keeps it. Refusal: `not-found`. */
  remove(name: string): Promise<Result<{ name: string }>>;
}

/** The selectors of the groups named; those that are gone are left out. */
export function readGroups(
  db: RegistryDb,
  qb: RegistryQueries,
  names: readonly string[] | undefined,
): Map<string, Selector> {
  if (names === undefined) return new Map();
  const rows = db.all(qb.selectFrom('device_groups').selectAll().where('name', 'in', names));
  return new Map(rows.map(({ name, selector }) => [name, fromColumn<Selector>(selector)]));
}

export function createDeviceGroups(store: RegistryStore, clock: Clock, changed: () => void): DeviceGroups {
  const { qb } = store;
  return {
    async put(name, selector, by) {
      if (selector.groups !== undefined)
        return refuse('input-invalid', 'selector.groups: a group cannot name groups');
      const row = { selector: toColumn(selector), changed_by: by, changed_at_ms: clock.wall() };
      await store.tx((db) =>
        db.run(
          qb
            .insertInto('device_groups')
            .values({ name, ...row })
            .onConflict((conflict) => conflict.column('name').doUpdateSet(row)),
        ),
      );
      changed();
      return ok({ name, selector, changedBy: by, changedAtMs: row.changed_at_ms });
    },
    async list() {
      const rows = await store.tx((db) => db.all(qb.selectFrom('device_groups').selectAll().orderBy('name')));
      return rows.map((row) => ({
        name: row.name,
        selector: fromColumn<Selector>(row.selector),
        changedBy: row.changed_by,
        changedAtMs: row.changed_at_ms,
      }));
    },
    async remove(name) {
      const removed = await store.tx((db) => {
        const found = db.first(qb.selectFrom('device_groups').select('name').where('name', '=', name));
        if (found !== undefined) db.run(qb.deleteFrom('device_groups').where('name', '=', name));
        return found !== undefined;
      });
      return removed ? ok({ name }) : refuse('not-found', `there is no group ${name}`);
    },
  };
}
