// Why: a registry restored from a backup may hold what was erased since; until it knows that it does not, nobody reads raw
// telemetry here, while devices go on sending it.
// Trusts: the settings that `lepton backup restore` left. Must never: give way by itself where nobody answered for it.

import { z } from 'zod';
import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Audit } from '../audit/audit.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

export const restoredSetting = 'restored';

/** What a restore leaves for the start that follows, and what became of it. */
export const restoredSchema = z.object({
  backup: z.string(),
  takenAtMs: z.number(),
  restoredAtMs: z.number(),
  /** `given`: those since then were named. `none`: somebody says that there are none. `peers`: other regions are waited for. */
  erasures: z.enum(['given', 'none', 'peers']),
  /** Peers that gave back everything they had. */
  heard: z.array(z.string()).default([]),
  /** Since when records are readable, and whose word that is; null while they are not. */
  settled: z.object({ atMs: z.number(), by: z.string() }).nullable().default(null),
  /** Whether peers were told of this life. */
  told: z.boolean().default(false),
});
export type Restored = z.infer<typeof restoredSchema>;

export interface Withholding {
  /** Refusal: `erasures-unconfirmed`. Every reader of raw telemetry asks first. */
  mayRead(): Result<void>;
  /** Null where this registry was never restored. */
  view(): Restored | null;
  /** At the start, after erasures were replayed. `unproven`: certificates that nothing here stands behind. */
  started(unproven: number): Promise<void>;
  /** A peer gave back all it had, in the transaction of the caller; `peers` are all there are. */
  heardIn(db: RegistryDb, peer: string, peers: readonly string[]): void;
  /** After the commit of such a transaction. */
  reload(): Promise<void>;
  /** An admin says that no erasure is missing; false where nothing was withheld. */
  confirm(user: string): Promise<boolean>;
}

export async function openWithholding(parts: {
  store: RegistryStore;
  audit: Pick<Audit, 'appendIn'>;
  clock: Clock;
}): Promise<Withholding> {
  const { store, clock } = parts;
  const { qb } = store;
  let present: Restored | null = null;

  const settingIn = (db: RegistryDb, key: string): string | null =>
    db.first(qb.selectFrom('settings').select('value').where('key', '=', key))?.value ?? null;

  function storedIn(db: RegistryDb): Restored | null {
    const value = settingIn(db, restoredSetting);
    return value === null ? null : restoredSchema.parse(JSON.parse(value));
  }

  function keepIn(db: RegistryDb, next: Restored): void {
    const value = JSON.stringify(next);
    db.run(
      qb
        .insertInto('settings')
        .values({ key: restoredSetting, value })
        .onConflict((conflict) => conflict.column('key').doUpdateSet({ value })),
    );
  }

  const settle = (from: Restored, by: string): Restored => ({ ...from, settled: { atMs: clock.wall(), by } });

  const reload = async (): Promise<void> => {
    present = await store.tx(storedIn);
  };
  await reload();

  return {
    mayRead: () =>
      present === null || present.settled !== null
        ? ok()
        : refuse(
            'erasures-unconfirmed',
            `this registry was restored from the backup ${present.backup}, and what was erased since is not known yet`,
          ),
    view: () => present,
    async started(unproven) {
      if (present === null) return;
      await store.tx((db) => {
        const restored = storedIn(db);
        if (restored === null) return;
        if (!restored.told) {
          const body = JSON.stringify({ kind: 'restored', incarnation: settingIn(db, 'incarnation') });
          db.run(qb.insertInto('erasure_outbox').values({ stream: 'erasure-requests', peer: null, body }));
          const { backup, takenAtMs, restoredAtMs, erasures } = restored;
          parts.audit.appendIn(db, {
            ...{ actor: 'registry', via: 'start', action: 'backups.restore', subject: null, reason: null },
            ...{ outcome: 'done', code: null, rule: null, address: null },
            detail: { backup, takenAtMs, restoredAtMs, erasures, unproven },
          });
        }
        const next = { ...restored, told: true };
        const answered = restored.settled === null && restored.erasures !== 'peers' && unproven === 0;
        keepIn(db, answered ? settle(next, `restore: ${restored.erasures}`) : next);
      });
      await reload();
    },
    heardIn(db, peer, peers) {
      const restored = storedIn(db);
      if (restored === null || restored.heard.includes(peer)) return;
      const next = { ...restored, heard: [...restored.heard, peer] };
      const everybody = peers.length > 0 && peers.every((one) => next.heard.includes(one));
      const waited = next.settled === null && next.erasures === 'peers';
      keepIn(db, everybody && waited ? settle(next, 'peers') : next);
    },
    reload,
    async confirm(user) {
      const confirmed = await store.tx((db) => {
        const restored = storedIn(db);
        if (restored === null || restored.settled !== null) return false;
        keepIn(db, settle(restored, user));
        return true;
      });
      await reload();
      return confirmed;
    },
  };
}
