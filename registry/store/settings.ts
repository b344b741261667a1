// Why: the few facts of a registry that are decided once and kept: its region, the ports it picked.
// Trusts: the store. Must never: hold a secret.

import type { RegistryStore } from './open.ts';

export interface Settings {
  /** The stored value; stores `value` where there is none. */
  keep(key: string, value: string): Promise<string>;
  set(key: string, value: string): Promise<void>;
  /** A whole number, null where nothing is stored. */
  number(key: string): Promise<number | null>;
}

export function createSettings(store: RegistryStore): Settings {
  const { qb } = store;
  const read = (key: string) => qb.selectFrom('settings').select('value').where('key', '=', key);
  const write = (key: string, value: string) =>
    qb
      .insertInto('settings')
      .values({ key, value })
      .onConflict((conflict) => conflict.column('key').doUpdateSet({ value }));
  return {
    keep: (key, value) =>
      store.tx((db) => {
        const stored = db.first(read(key));
        if (stored !== undefined) return stored.value;
        db.run(write(key, value));
        return value;
      }),
    set: async (key, value) => {
      await store.tx((db) => db.run(write(key, value)));
    },
    number: async (key) => {
      const stored = await store.tx((db) => db.first(read(key)));
      const value = Number(stored?.value ?? Number.NaN);
      return Number.isSafeInteger(value) ? value : null;
    },
  };
}
