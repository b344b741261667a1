// Why: the agent's real SQLite, in memory, with the power failing around its commits.
// Trusts: SQLite itself to be atomic; synchronous=FULL promises that what was acknowledged stays.
// Must never: keep a transaction whose commit did not happen before the cut.

import { type Migration, openStore, openStoreFromSnapshot, type SqliteStore } from '../shared/host/sqlite.ts';
import type { SqlTx, Store } from '../shared/kernel/ports.ts';
import { type Incarnation, latencyMs, type World } from './world.ts';

export interface SimStore {
  open(of: Incarnation): Promise<Store>;
  /** The power failed: the image of the last commit is what the next open finds. */
  cut(): void;
  /** Looks at the durable content without an operation. */
  look<T>(work: (db: SqlTx) => T): Promise<T | null>;
}

export interface SimStoreOptions {
  migrations: readonly Migration[];
  /** Called after each commit, before its caller learns of it. */
  onCommit: () => Promise<void>;
}

export function createSimStore(world: World, options: SimStoreOptions): SimStore {
  const opening = { synchronous: 'FULL', migrations: options.migrations } as const;
  let image: Uint8Array | null = null;
  let inner: SqliteStore | null = null;
  let commits = 0;

  async function openInner(): Promise<SqliteStore> {
    inner =
      image === null ? await openStore(':memory:', opening) : await openStoreFromSnapshot(image, opening);
    return inner;
  }

  return {
    open: async (of) => {
      const store = await world.call(of, 'store.open', '', 1, openInner);
      return {
        tx: (work) => {
          commits += 1;
          return world.call(of, 'store.tx', '', latencyMs(world, 1, 20, 'store', commits), async () => {
            const value = await store.tx(work);
            await options.onCommit();
            return value;
          });
        },
        flushLog: () => world.call(of, 'store.flush', '', 1, () => store.flushLog()),
        copyTo: (path) => world.call(of, 'store.copy', path, 1, () => store.copyTo(path)),
        close: () => world.call(of, 'store.close', '', 1, () => store.close()),
      };
    },
    cut: () => {
      if (inner === null) return;
      image = inner.snapshot();
      void inner.close();
      inner = null;
    },
    look: async (work) => (inner === null ? null : inner.tx(work)),
  };
}
