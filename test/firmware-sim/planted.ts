// Why: bugs of the kind this harness exists for, planted between the updater and its ports; a harness
// that does not find them proves nothing. Trusts: nothing. Must never: reach production code.

import { writeMachine } from '../../agent/update/journal.ts';
import type { MachineState } from '../../agent/update/machine.ts';
import type { Plant } from '../../firmware-sim/harness.ts';
import type { SqlTx, Store } from '../../shared/kernel/ports.ts';

/** Wraps the database inside each transaction; the first one of a life reads the journal. */
function rewriting(store: Store, rewrite: (db: SqlTx) => SqlTx): Store {
  return { ...store, tx: (work) => store.tx((db) => work(rewrite(db))) };
}

export const planted: Record<string, Plant> = {
  'no fsync before rename': {
    disk: (disk) => ({ ...disk, fsync: async () => undefined }),
  },
  'no sync of the folder': {
    disk: (disk) => ({ ...disk, fsyncDir: async () => undefined }),
  },
  'journal after the effect': {
    store: (store) => {
      let reads = 1;
      return {
        ...store,
        tx: (work) => {
          if (reads > 0) {
            reads -= 1;
            return store.tx(work);
          }
          // Acknowledged at once, committed some time later. The journal's writes return nothing.
          const late = store.tx(work);
          return Promise.race([late, Promise.resolve() as ReturnType<typeof store.tx<never>>]);
        },
      };
    },
  },
  'forget the last good release': {
    store: (store) =>
      rewriting(store, (db) => ({
        ...db,
        run: (sql, ...params) => {
          const text = params[3];
          if (!sql.includes('INTO machines') || typeof text !== 'string') return db.run(sql, ...params);
          const state = JSON.parse(text) as MachineState;
          writeMachine(db, { ...state, lastGood: null });
          return { changes: 1 };
        },
      })),
  },
  'skip the digest check': {
    // The digest is computed over what should be in the file, whatever is.
    disk: (disk, catalogue) => ({
      ...disk,
      readRange: async (path, offset, length) => {
        const bytes = await disk.readRange(path, offset, length);
        const sha256 = /([0-9a-f]{64})\.unverified$/.exec(path)?.[1];
        const content = sha256 === undefined ? undefined : catalogue.content(sha256);
        return bytes === null || content === undefined ? bytes : content.slice(offset, offset + length);
      },
    }),
  },
  'lose what was journalled': {
    // The fourth and every later write of a life says it is durable and is not.
    store: (store) => {
      let calls = 0;
      return {
        ...store,
        tx: async (work) => {
          calls += 1;
          if (calls <= 4) return store.tx(work);
          let value: ReturnType<typeof work> | undefined;
          const undo = new Error('undone');
          await store
            .tx((db) => {
              value = work(db);
              throw undo;
            })
            .catch((error: unknown) => {
              if (error !== undo) throw error;
            });
          return value as ReturnType<typeof work>;
        },
      };
    },
  },
};
