// Why: the region's masking rules and the key of their digests, kept with the telemetry keys. Rules of the region's policy
// come first and cannot be taken away here.
// Trusts: the permissions of that file, and of registry.sqlite, whose assignments hold the key as devices get it.
// Must never: show the key to anybody but the devices, in their signed assignments.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, SqlTx, Store } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type Masking,
  type MaskingRule,
  type MaskingView,
  maskingRulesMax,
  maskingSchema,
} from '../../shared/wire/masking.ts';
import { maskingRuleName } from '../policy/region-decisions.ts';

export interface MaskingPolicy {
  /** What the director writes into assignments; null: no rules. */
  inForce(): Masking | null;
  view(): MaskingView;
  /**
   * Durable when it resolves. The key stays unless `newKey`, so that digests of before and after can be compared. Fault:
   * `policy-denied`, where a rule of the policy is not among them.
   */
  set(rules: readonly MaskingRule[], newKey: boolean): Promise<MaskingView>;
  /**
   * A policy with these rules is about to be in force: devices may hold assignments without them until they are signed again.
   * Refusal: `policy-file-invalid`, where they are too many with the region's own.
   */
  announce(rules: readonly MaskingRule[]): Promise<Result<void>>;
  /** Rules of the policy in force, from now on. */
  require(rules: readonly MaskingRule[]): void;
  /** Whether devices may hold assignments from before the last change. */
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

const isSame = (a: MaskingRule, b: MaskingRule): boolean => spelled(a) === spelled(b);
function spelled(rule: MaskingRule): string {
  const members = Object.entries(rule).filter(([, value]) => value !== undefined);
  return JSON.stringify(members.sort(([a], [b]) => (a < b ? -1 : 1)));
}
const without = (rules: readonly MaskingRule[], others: readonly MaskingRule[]): MaskingRule[] =>
  rules.filter((rule) => !others.some((one) => isSame(one, rule)));

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
  /** The region's own rules. */
  let present: { masking: Masking; keyMadeAtMs: number } | null =
    row === undefined
      ? null
      : {
          masking: maskingSchema.parse({ key: keyOf(row.key), rules: JSON.parse(row.rules) as unknown }),
          keyMadeAtMs: row.key_made_at_ms,
        };
  let required: readonly MaskingRule[] = [];

  /** The policy's first: what they remove or change, no later rule brings back. */
  const together = (): MaskingRule[] => [...required, ...without(present?.masking.rules ?? [], required)];
  const view = (): MaskingView => {
    const rules = together();
    return { rules, keyMadeAtMs: present === null || rules.length === 0 ? null : present.keyMadeAtMs };
  };

  const write = (db: SqlTx, key: Uint8Array, keyMadeAtMs: number, rules: readonly MaskingRule[]): unknown =>
    db.run(
      `INSERT INTO masking (id, key, key_made_at_ms, rules, pending) VALUES (1, ?, ?, ?, 1)
       ON CONFLICT (id) DO UPDATE SET key = excluded.key, key_made_at_ms = excluded.key_made_at_ms,
         rules = excluded.rules, pending = 1`,
      key,
      keyMadeAtMs,
      JSON.stringify(rules),
    );

  async function keep(rules: readonly MaskingRule[], newKey: boolean): Promise<void> {
    const fresh = present === null || newKey;
    const key = fresh ? entropy.bytes(32) : new Uint8Array(Buffer.from(present?.masking.key ?? '', 'hex'));
    const keyMadeAtMs = fresh ? clock.wall() : (present?.keyMadeAtMs ?? 0);
    await store.tx((db) => write(db, key, keyMadeAtMs, rules));
    present = { masking: { key: keyOf(key), rules: [...rules] }, keyMadeAtMs };
    pending = true;
  }

  return {
    inForce() {
      const rules = together();
      return present === null || rules.length === 0 ? null : { key: present.masking.key, rules };
    },
    view,
    async set(rules, newKey) {
      const [gone] = without(required, rules);
      if (gone !== undefined) {
        const rule = maskingRuleName(gone);
        throw new FleetError('policy-denied', `the region's policy requires the masking rule ${rule}`, {
          rule,
          hint: 'keep the rules of the policy among those you set: lepton masking show lists them',
        });
      }
      await keep(without(rules, required), newKey);
      return view();
    },
    async announce(rules) {
      const own = present?.masking.rules ?? [];
      const all = rules.length + without(own, rules).length;
      if (all > maskingRulesMax)
        return refuse(
          'policy-file-invalid',
          `its masking rules and the region's own are ${all}, devices take ${maskingRulesMax}`,
        );
      const before = JSON.stringify(required.map(spelled));
      if (before !== JSON.stringify(rules.map(spelled))) await keep(own, false);
      return ok(undefined);
    },
    require(rules) {
      required = [...rules];
    },
    isPending: () => pending,
    async applied() {
      if (!pending) return;
      await store.tx((db) => db.run('UPDATE masking SET pending = 0 WHERE id = 1'));
      pending = false;
    },
  };
}
