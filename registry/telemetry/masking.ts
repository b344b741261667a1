// Why: the region's masking rules and the key of their digests, kept with the telemetry keys.
// Trusts: the permissions of that file, and of registry.sqlite, whose assignments hold the key as devices get it.
// Must never: show the key to anybody but the devices, in their signed assignments.

import type { Clock, Entropy, Store } from '../../shared/kernel/ports.ts';
import {
  type Masking,
  type MaskingRule,
  type MaskingView,
  maskingSchema,
} from '../../shared/wire/masking.ts';

export interface MaskingPolicy {
  /** What the director writes into assignments; null: no rules. */
  inForce(): Masking | null;
  view(): MaskingView;
  /** Durable when it resolves. The key stays unless `newKey`, so that digests of before and after can be compared. */
  set(rules: readonly MaskingRule[], newKey: boolean): Promise<MaskingView>;
  /** Whether devices may hold assignments from before the last `set`. */
  isPending(): boolean;
  /** Every assignment was signed again since. */
  applied(): Promise<void>;
}

interface Row {
  key: Uint8Array;
  key_made_at_ms: number;
  rules: string;
  pending: number;
}

/** Over a store that has `telemetryKeyMigrations`. */
export async function openMasking(parts: {
  store: Store;
  clock: Clock;
  entropy: Entropy;
}): Promise<MaskingPolicy> {
  const { store, clock, entropy } = parts;
  const row = await store.tx((db) =>
    db.get<Row>('SELECT key, key_made_at_ms, rules, pending FROM masking WHERE id = 1'),
  );
  let pending = row?.pending === 1;
  const keyOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  let present: { masking: Masking; keyMadeAtMs: number } | null =
    row === undefined
      ? null
      : {
          masking: maskingSchema.parse({ key: keyOf(row.key), rules: JSON.parse(row.rules) as unknown }),
          keyMadeAtMs: row.key_made_at_ms,
        };

  const view = (): MaskingView => ({
    rules: present?.masking.rules ?? [],
    keyMadeAtMs: present === null || present.masking.rules.length === 0 ? null : present.keyMadeAtMs,
  });

  return {
    inForce: () => (present === null || present.masking.rules.length === 0 ? null : present.masking),
    view,
    async set(rules, newKey) {
      const fresh = present === null || newKey;
      const key = fresh ? entropy.bytes(32) : new Uint8Array(Buffer.from(present?.masking.key ?? '', 'hex'));
      const keyMadeAtMs = fresh ? clock.wall() : (present?.keyMadeAtMs ?? 0);
      await store.tx((db) => {
        db.run(
          `INSERT INTO masking (id, key, key_made_at_ms, rules, pending) VALUES (1, ?, ?, ?, 1)
           ON CONFLICT (id) DO UPDATE SET key = excluded.key, key_made_at_ms = excluded.key_made_at_ms,
             rules = excluded.rules, pending = 1`,
          key,
          keyMadeAtMs,
          JSON.stringify(rules),
        );
      });
      present = { masking: { key: keyOf(key), rules: [...rules] }, keyMadeAtMs };
      pending = true;
      return view();
    },
    isPending: () => pending,
    async applied() {
      if (!pending) return;
      await store.tx((db) => db.run('UPDATE masking SET pending = 0 WHERE id = 1'));
      pending = false;
    },
  };
}
