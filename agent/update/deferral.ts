// Why: "not now", said at the device: kept over restarts, for updates under way and for those that come meanwhile.
// Trusts: the agent's own store. Must never: hold an update longer than its rollout allows; the machine counts that.

import { z } from 'zod';
import type { Migration, SqlTx, Store } from '../../shared/kernel/ports.ts';
import { type DeviceTime, deferTimeMs, rebased } from './doors.ts';

/** Append-only: an applied migration is never edited. */
export const deferralMigrations: readonly Migration[] = [
  {
    name: 'update-002-deferral',
    sql: `CREATE TABLE deferral (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  from_ms INTEGER NOT NULL,
  until_ms INTEGER NOT NULL
) STRICT`,
  },
];

/** The longest that may be asked for at once. */
export const deferForMsMax = 7 * 86_400_000;

/** What somebody at the device asked for, Unix milliseconds of the device's best clock. */
export const deferralSchema = z.object({ fromMs: z.number().int(), untilMs: z.number().int() });
export type DeviceDeferral = z.infer<typeof deferralSchema>;

/** What `POST /updates/v1/deferral` takes: null ends the deferral. */
export const deferRequestSchema = z.strictObject({
  forMs: z.number().int().positive().max(deferForMsMax).nullable(),
});

/** `updates`: until when each that is under way waits at most, by the rollout's own bound. */
export const deferAnswerSchema = z.object({
  deferral: deferralSchema.nullable(),
  updates: z.array(z.object({ as: z.string(), releaseId: z.string().nullable(), untilMs: z.number() })),
});
export type DeferAnswer = z.infer<typeof deferAnswerSchema>;

export function readDeferral(db: SqlTx): DeviceDeferral | null {
  const row = db.get<{ from_ms: number; until_ms: number }>('SELECT from_ms, until_ms FROM deferral');
  return row === undefined ? null : { fromMs: row.from_ms, untilMs: row.until_ms };
}

export interface DeferralKeeper {
  /** In the transaction of the start. */
  load(db: SqlTx): void;
  /** Null where nothing is deferred now. */
  now(): DeviceDeferral | null;
  /** Durable when it resolves; null ends it. */
  say(forMs: number | null): Promise<void>;
}

export function createDeferral(store: Store, time: () => DeviceTime): DeferralKeeper {
  let kept: DeviceDeferral | null = null;
  return {
    load: (db) => {
      kept = readDeferral(db);
    },
    now: () => {
      const nowMs = deferTimeMs(time());
      // The clock went back: what was said then counts from now on, and ends.
      if (kept !== null) kept = rebased(kept, nowMs) ?? kept;
      return kept !== null && nowMs < kept.untilMs ? kept : null;
    },
    say: async (forMs) => {
      const fromMs = deferTimeMs(time());
      const next = forMs === null ? null : { fromMs, untilMs: fromMs + forMs };
      await store.tx((db) => {
        db.run('DELETE FROM deferral');
        if (next !== null)
          db.run('INSERT INTO deferral (id, from_ms, until_ms) VALUES (1, ?, ?)', next.fromMs, next.untilMs);
      });
      kept = next;
    },
  };
}
