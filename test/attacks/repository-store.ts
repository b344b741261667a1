// Why: what a dying disk, or somebody with a minute at the device, leaves of the stored metadata. It must never
// let an older catalogue in, and never keep the device from starting.
// Trusts: the hostile repository; writes to the device's own tables. Must never: touch the pinned region root.

import assert from 'node:assert/strict';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { type AttackCase, assertStillUpdates, withLab } from './attack-case.ts';

type Damage = 'cut' | 'flipped' | 'deleted';
const stored = ['timestamp', 'snapshot', 'targets', 'delegated/acme'] as const;

function damage(db: SqlTx, name: string, how: Damage): void {
  if (how === 'deleted') {
    db.run('DELETE FROM trust_files WHERE name = ?', name);
    return;
  }
  const row = db.get<{ bytes: Uint8Array }>('SELECT bytes FROM trust_files WHERE name = ?', name);
  assert.ok(row, `the device holds ${name}`);
  const bytes = new Uint8Array(row.bytes);
  // The last digit of its date: what is left is still a well-formed file, of the same version.
  const at = Buffer.from(bytes).lastIndexOf('Z"') - 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  const left = how === 'flipped' ? bytes : row.bytes.subarray(0, Math.floor(row.bytes.length / 2));
  db.run('UPDATE trust_files SET bytes = ? WHERE name = ?', left, name);
}

/** The store is damaged and the registry, at the same time, goes back to what it served before. */
function rollback(id: string, attack: string, work: (db: SqlTx) => void): AttackCase {
  return {
    id,
    group: 'repository',
    attack,
    code: 'metadata-rollback',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        const yesterday = lab.honest.fork();
        lab.honest.publish('targets');
        lab.honest.release('acme/detector/1.1.0');
        assert.equal(await lab.update('acme/detector/1.1.0'), 'accepted', 'the honest update before');
        await lab.edit(work);
        lab.serve(yesterday);
        const observed = await lab.update('acme/detector/1.0.0');
        await assertStillUpdates(lab, yesterday);
        return observed;
      }),
  };
}

const words: Record<Damage, string> = {
  cut: 'was cut short',
  flipped: 'has a changed bit',
  deleted: 'is gone',
};
export const storeAttacks: AttackCase[] = [
  ...stored.flatMap((name) =>
    (['cut', 'flipped', 'deleted'] as const).map((how) =>
      rollback(
        `torn-${name === 'delegated/acme' ? 'delegated' : name}-${how}`,
        `the stored ${name === 'delegated/acme' ? 'publisher’s file' : name} ${words[how]}, and the registry goes back`,
        (db) => damage(db, name, how),
      ),
    ),
  ),
  rollback('store-lost', 'everything but the root is lost, and the registry goes back', (db) => {
    for (const name of stored) damage(db, name, 'deleted');
  }),
  // The device starts from an older root that it kept, and its numbers go on binding.
  ...(['cut', 'flipped'] as const).map((how) =>
    rollback(`torn-root-${how}`, `the stored root ${words[how]}, and the registry goes back`, (db) =>
      damage(db, 'root', how),
    ),
  ),
];
