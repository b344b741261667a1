// Why: attacks on what a device may never forget, in its database and in the copy beside it: somebody with a minute at the
// device, or a dying disk, takes one of them back or leaves half of it. Trusts: fleet-copies-ground.ts.
// Must never: spoil both of the two where the device could tell nothing from them.

import assert from 'node:assert/strict';
import { type Held, higherOf } from '../../agent/trust/held.ts';
import { readHeld } from '../../agent/trust/keeper.ts';
import { type HeldAssignment, loadTrust } from '../../agent/trust/trust-store.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { openStoreFromSnapshot } from '../../shared/host/sqlite.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkAssignment, signAssignment } from '../../shared/trust/assignment.ts';
import { checkReport, signReport } from '../../shared/trust/report.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { followRoot, trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import {
  assigned,
  countersUsed,
  type Damage,
  damaged,
  director,
  edited,
  fresh,
  held,
  make,
  options,
  start,
} from './fleet-copies-ground.ts';
import { judgeMove, signedMove } from './fleet-moves.ts';
import { mallory, region, trusted } from './fleet-region.ts';
import { device, deviceId, reportOf } from './fleet-reports.ts';
import { encode, HostileRepository, nowMs } from './hostile-repository.ts';

type Judge = (held: Held) => Result<unknown>;

const follows = (current: HeldAssignment | null, epoch: number): Result<unknown> =>
  checkAssignment({
    ...{ envelope: signAssignment(assigned(epoch), director), regionRoot: trusted, deviceId, region },
    ...{ current, nowMs },
  });
/** The device follows its director, and nothing that its director said before. */
const replays: Judge = ({ assignment }) => {
  assert.equal(follows(assignment, 6).ok, true, 'the next assignment');
  return follows(assignment, 4);
};
const isSomebody: Judge = ({ identity }) =>
  identity === null ? refuse('enrolment-required', 'it is nobody') : ok();
const moves: Judge = ({ moves: { lastIssuedAtMs, lastMoveId } }) =>
  judgeMove(signedMove(), { lastIssuedAtMs, lastMoveId });

function restarted(
  id: string,
  attack: string,
  code: ErrorCode,
  damage: Damage,
  judge: Judge = replays,
  honest: Damage = {},
): AttackCase {
  return directRow('fleet', `state-${id}`, attack, code, async () => {
    const whole = await start(await damaged(honest));
    assert.deepEqual(
      [whole.counter, whole.heard.length],
      [honest.lost ? 3_000 : countersUsed, honest.lost ? 1 : 0],
    );
    const { assignment, identity } = whole.keeper.held();
    await whole.stop();
    const after = await start(await damaged(damage));
    const observed = judge(after.keeper.held());
    await after.stop();
    return {
      honest: identity === null ? refuse('internal', 'nobody') : follows(assignment, 6),
      forged: observed,
    };
  });
}

const putAssignment = (db: SqlTx, { epoch, payloadSha256, envelope }: HeldAssignment): void =>
  void db.run(
    'UPDATE trust_assignment SET epoch = ?, payload_sha256 = ?, envelope = ?',
    epoch,
    payloadSha256,
    envelope,
  );

const inStore: [string, string, (db: SqlTx) => void][] = [
  ['older', 'is an older one', (db) => putAssignment(db, held(1))],
  ['stranger', 'was signed by somebody else', (db) => putAssignment(db, held(1, mallory))],
  ['torn', 'is no envelope any more', (db) => putAssignment(db, { ...held(1), envelope: '{}' })],
  ['garbage', 'is no JSON any more', (db) => putAssignment(db, { ...held(1), envelope: '{' })],
  ['gone', 'is gone', (db) => void db.run('DELETE FROM trust_assignment')],
];

const assignments: AttackCase[] = [
  ...inStore.map(([id, what, store]) =>
    restarted(
      `assignment-${id}`,
      `the assignment in the store ${what}; an older one is replayed`,
      'assignment-replayed',
      { store },
    ),
  ),
  restarted('lost', 'the store is lost, and an older assignment is replayed', 'assignment-replayed', {
    lost: true,
  }),
  restarted('rolled-back', 'the store of an earlier start is put back', 'assignment-replayed', {
    older: true,
  }),
  restarted('root-gone', 'the root in the store is gone', 'assignment-replayed', {
    store: (db) => void db.run("DELETE FROM trust_files WHERE name = 'root'"),
  }),
  restarted('copy-lost', 'the copy is lost, and an older assignment is replayed', 'assignment-replayed', {
    bytes: () => null,
  }),
  restarted('copy-rolled-back', 'the copy of an earlier start is put back', 'assignment-replayed', {
    bytes: (_copy, before) => before,
  }),
  restarted('copy-cut', 'the copy is cut short', 'assignment-replayed', {
    bytes: (copy) => copy.subarray(0, 200),
  }),
  restarted('copy-garbage', 'the copy is no JSON under a digest that fits', 'assignment-replayed', {
    bytes: () => encode(`${sha256Hex(encode('{'))}\n{`),
  }),
  restarted(
    'copy-assignment',
    'the assignment in the copy was signed by somebody else',
    'assignment-replayed',
    {
      copy: (copy) => (copy['assignment'] = held(1_000, mallory)),
    },
  ),
  restarted('region-root-torn', 'the region’s root in the copy is cut short', 'assignment-replayed', {
    copy: (copy) => (copy['regionRoot'] = 'AAAA'),
  }),
  restarted(
    'moves-gone',
    'the store forgets that the device was moved, and the order is repeated',
    'move-replayed',
    {
      store: (db) => void db.run('DELETE FROM moves'),
    },
    moves,
  ),
  restarted(
    'copy-moves-gone',
    'the copy forgets that the device was moved, and the order is repeated',
    'move-replayed',
    {
      copy: (copy) => delete copy['moves'],
    },
    moves,
  ),
];

/** The store is lost, and the copy that a start would be made of is not whole. */
const halves: AttackCase[] = (
  [
    ['without-root', 'has no root', (copy) => (copy['root'] = null)],
    ['without-region-root', 'has no root of its region', (copy) => (copy['regionRoot'] = null)],
    ['root-torn', 'has a root that is none', (copy) => (copy['root'] = 'AAAA')],
    ['region-root-cut', 'has a root of its region that is none', (copy) => (copy['regionRoot'] = 'AAAA')],
    [
      'seed-short',
      'has a key of 31 bytes',
      (copy) => Object.assign(copy['identity'] as object, { seed: Buffer.alloc(31).toString('base64') }),
    ],
  ] as [string, string, (copy: Record<string, unknown>) => void][]
).map(([id, what, copy]) =>
  restarted(
    `copy-${id}`,
    `the store is lost, and the copy ${what}: the device trusts nobody`,
    'enrolment-required',
    { lost: true, copy },
    isSomebody,
    {
      lost: true,
    },
  ),
);

const report = (counter: number): Result<unknown> =>
  checkReport({
    ...{ devicePublicKey: device.publicKey, deviceId },
    envelope: signReport(reportOf({ counter, boot: 9, session: 'd'.repeat(32) }), device),
    last: {
      ...{ counter: countersUsed, payloadSha256: 'b'.repeat(64), boot: 4, bootCounter: countersUsed - 3 },
      ...{ session: 'a'.repeat(32), fromEpoch: null },
    },
  });

const others: AttackCase[] = [
  ...(
    [
      ['lost', 'is lost', { lost: true }],
      ['back', 'of an earlier start is put back', { older: true }],
    ] as [string, string, Damage][]
  ).map(([id, what, damage]) =>
    directRow(
      'fleet',
      `state-numbers-${id}`,
      `the store ${what}, so that numbers of reports would be used twice`,
      'report-cloned',
      async () => {
        // Made for this row alone: what is shown is how the numbers were kept.
        const after = await start(await damaged(damage, await make()));
        await after.stop();
        return { honest: report(after.counter + 1), forged: report(1) };
      },
    ),
  ),
  directRow(
    'fleet',
    'state-nobody',
    'a device is stopped before it is anybody, and its copy is broken by that',
    'enrolment-required',
    async () => {
      const first = await start(fresh());
      await first.keeper.settled();
      const second = await start(await first.stop());
      assert.deepEqual(second.heard, []);
      const whole = await start(await damaged({}));
      const attempt = { honest: isSomebody(whole.keeper.held()), forged: isSomebody(second.keeper.held()) };
      await Promise.all([second.stop(), whole.stop()]);
      return attempt;
    },
  ),
  ...(
    [
      ['root', 'catalogue'],
      ['region-root', 'region'],
    ] as const
  ).map(([file, kind]) =>
    directRow(
      'fleet',
      `state-no-${file}`,
      `every ${kind} root is taken out of the store: the device trusts nobody`,
      'enrolment-required',
      async () => {
        const { database } = await damaged({});
        const trust = async (work: (db: SqlTx) => void): Promise<Result<unknown>> => {
          const store = await openStoreFromSnapshot(await edited(database, work), options);
          const record = await loadTrust(store);
          await store.close();
          return record === null ? refuse('enrolment-required', 'it trusts nobody') : ok();
        };
        return {
          honest: trust((db) => void db.run('DELETE FROM trust_files WHERE name = ?', file)),
          forged: trust((db) => {
            db.run('DELETE FROM trust_files WHERE name = ?', file);
            db.run('DELETE FROM trust_roots WHERE kind = ?', kind);
          }),
        };
      },
    ),
  ),
  directRow(
    'fleet',
    'state-of-before',
    'a store of before devices could be moved is read, and an order is repeated',
    'move-replayed',
    async () => {
      const { database } = await damaged({});
      const store = await openStoreFromSnapshot(database ?? new Uint8Array(), options);
      const now = await store.tx(readHeld);
      await store.tx((db) => {
        for (const table of ['moves', 'trust_roots']) db.run(`DROP TABLE ${table}`);
      });
      const before = await store.tx(readHeld);
      assert.ok(await loadTrust(store));
      await store.close();
      return { honest: moves(before), forged: moves(higherOf(before, now)) };
    },
  ),
  directRow(
    'fleet',
    'state-root-older',
    'the root of before is put back into the copy, and the one after it is shown again',
    'metadata-version-invalid',
    () => {
      const repository = new HostileRepository();
      const [first, second] = [repository.bytes('root'), repository.publishRoot()];
      const seen = (root: Uint8Array | null): Result<unknown> =>
        followRoot(housePolicy, unwrap(trustRoot(housePolicy, root ?? new Uint8Array())), second);
      return damaged({}).then(async (image) => {
        const whole = await start(image);
        const present = whole.keeper.held();
        await whole.stop();
        const both = higherOf({ ...present, root: second }, { ...present, root: first });
        return { honest: seen(first), forged: seen(both.root) };
      });
    },
  ),
];

export const copyAttacks: readonly AttackCase[] = [...assignments, ...halves, ...others];
