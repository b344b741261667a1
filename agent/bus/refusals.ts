// Why: what this device refused, kept so that an attack is reported even where the attacker cut the line.
// Trusts: callers to give codes and details without payloads or keys.
// Must never: grow without bound, nor use an id twice.

import type { Migration } from '../../shared/host/sqlite.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, SqlTx, Store } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import { isAttack } from '../../shared/trust/attacks.ts';

export const refusalMigrations: readonly Migration[] = [
  {
    name: 'agent-refusals-001',
    sql: `
      CREATE TABLE refusals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        code TEXT NOT NULL,
        detail TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        fingerprint TEXT NOT NULL
      ) STRICT;
    `,
  },
];

export interface StoredRefusal {
  /** Grows by one; never used again, also not after old refusals were dropped. */
  id: number;
  code: string;
  detail: string;
  atMs: number;
  /** Somebody tried something, and not only something went wrong. */
  attack: boolean;
}

/** A hundred of them must fit in one report beside 64 models (`busMessageBytesMax`). */
const detailCharsMax = 300;

export interface Refusals {
  /**
   * Stores a refusal durably. The same code for the same thing (`fingerprint`, such as the digest of the
   * refused message) is stored once while it is kept: a retained message comes again at each reconnect.
   */
  record(refusal: Refusal, fingerprint: string): Promise<{ id: number; fresh: boolean }>;
}

export function createRefusals(parts: {
  store: Store;
  clock: Clock;
  onRecorded(refusal: Refusal): void;
}): Refusals {
  return {
    record: async (refusal, fingerprint) => {
      const recorded = await parts.store.tx((db) => {
        const known = db.get<{ id: number }>(
          'SELECT id FROM refusals WHERE code = ? AND fingerprint = ? ORDER BY id DESC LIMIT 1',
          refusal.code,
          fingerprint,
        );
        if (known !== undefined) return { id: known.id, fresh: false };
        db.run(
          'INSERT INTO refusals (code, detail, at_ms, fingerprint) VALUES (?, ?, ?, ?)',
          refusal.code,
          refusal.detail.slice(0, detailCharsMax),
          Math.max(0, Math.floor(parts.clock.wall())),
          fingerprint,
        );
        const id = db.get<{ id: number }>('SELECT max(id) AS id FROM refusals')?.id ?? 0;
        db.run('DELETE FROM refusals WHERE id <= ?', id - limits.refusalsKept);
        return { id, fresh: true };
      });
      if (recorded.fresh) parts.onRecorded(refusal);
      return recorded;
    },
  };
}

/** The refusals kept, oldest first. */
export function listRefusals(db: SqlTx): StoredRefusal[] {
  return db
    .all<{ id: number; code: string; detail: string; at_ms: number }>(
      'SELECT id, code, detail, at_ms FROM refusals ORDER BY id',
    )
    .map((row) => ({
      id: row.id,
      code: row.code,
      detail: row.detail,
      atMs: row.at_ms,
      attack: isAttack(row.code),
    }));
}
