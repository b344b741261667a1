// Why: what one region makes of orders: repeated, old, refused, too early, and what it tells of its devices.
// Trusts: test/fleet/world.ts. Must never: need another region.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { NewAuditEntry } from '../../registry/audit/audit.ts';
import { createTakenOrders, type TakenOrders } from '../../registry/regions/taken-orders.ts';
import { regionalFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import {
  type RolloutOrder,
  type RolloutProgress,
  rolloutOrderSchema,
  rolloutProgressSchema,
} from '../../shared/wire/rollout-orders.ts';
import { openWorld, region, rolloutFile, type World } from '../fleet/world.ts';
import { publisherKey } from '../registry-core/support.ts';

const orderId = 'rr00000000000000aa';
const release = 'acme/digits@1.0.0';

interface Ordered {
  world: World;
  orders: TakenOrders;
  audited: NewAuditEntry[];
  /** What the policy says from now on. */
  allow(yes: boolean): void;
  give(change: Partial<RolloutOrder>, from?: string): Promise<void>;
  progress(from?: string): Promise<RolloutProgress[]>;
  last(): Promise<RolloutProgress>;
  /** Ids of rollouts that orders began. */
  begun(): Promise<string[]>;
}

async function ordered(t: TestContext): Promise<Ordered> {
  const world = await openWorld(t);
  const { core, rollouts, fleet, clock, log } = world;
  const audited: NewAuditEntry[] = [];
  let allowed = true;
  const orders = createTakenOrders({
    ...{ region, store: core.store, releases: core.releases, rollouts, events: fleet.events, clock, log },
    mayOrder: async () => ({ allowed, rule: 'test/rule', reason: 'the test says so' }),
    audit: { appendIn: (_db, entry) => void audited.push(entry) },
    heardIn: () => assert.fail('no order of its own'),
    taken: () => undefined,
  });
  const file = unwrap(regionalFile(rolloutFile('digits', { release, gates: { success: 1 } }))).text;
  const progress = async (from = 'home'): Promise<RolloutProgress[]> => {
    const items = await core.store.tx((db) => orders.outgoing.readIn(db, from, 0, 100));
    return items.map(({ body }) => rolloutProgressSchema.parse(body));
  };
  return {
    ...{ world, orders, audited, progress },
    allow: (yes) => {
      allowed = yes;
    },
    async give(change, from = 'home') {
      const order = {
        ...{ schemaVersion: 1, orderId, revision: 1, attempt: 1, name: 'digits', releases: [release], file },
        ...{ wish: 'run', startedBy: 'alice', by: null, reason: null, ...change },
      };
      await core.store.tx((db) => orders.incoming.takeIn(db, from, [{ id: 1, body: order }]));
      await orders.work();
      await world.settle();
      await orders.work();
    },
    async last() {
      const [only, ...others] = await progress();
      assert.ok(only);
      assert.deepEqual(others, []);
      return only;
    },
    begun: async () =>
      (await rollouts.list()).filter(({ createdBy }) => createdBy.startsWith('region:')).map(({ id }) => id),
  };
}

test('an order begins one rollout, however often and in whatever order its revisions come', async (t) => {
  const { world, orders, give, last, begun, audited } = await ordered(t);
  await world.push(release, 1);
  const [device] = await world.devices(1, { secret: 'label' });
  await give({ wish: 'wait' });
  assert.deepEqual(await begun(), []);
  for (const revision of [2, 2, 1]) await give({ revision });
  const [id = '', ...others] = await begun();
  assert.deepEqual(others, []);
  let said = await last();
  assert.deepEqual([said.state, said.revision, said.acted, said.rollout], ['running', 2, 2, id]);
  assert.deepEqual(said.waves, [{ index: 0, state: 'running', devices: { total: 1, pending: 1 } }]);

  await give({ revision: 4, wish: 'pause', by: 'bob', reason: 'lunch' });
  await give({ revision: 3 });
  assert.equal((await world.status(id)).state, 'paused');
  // What people here say stands: the next order to go on resumes what an order paused, and nothing else.
  unwrap(await world.rollouts.resume(id, 'carol', null));
  unwrap(await world.rollouts.pause(id, 'carol', 'the machine of line 3'));
  await give({ revision: 5 });
  said = await last();
  assert.deepEqual([said.state, said.acted, said.reason], ['paused', 5, 'paused there']);
  unwrap(await world.rollouts.resume(id, 'carol', null));
  await give({ revision: 6, wish: 'pause' });
  assert.equal((await last()).reason, 'paused by the coordinating region');
  await give({ revision: 7 });
  assert.equal((await last()).state, 'running');

  await device?.obey({ code: 'probe-golden-failed', detail: 'case 0 of line 3' });
  await world.settle();
  await orders.work();
  assert.equal((await last()).state, 'rolling-back');
  await device?.obey();
  await world.settle();
  await orders.work();
  said = await last();
  assert.equal(said.state, 'failed');
  assert.equal(said.reason, 'wave 0: gate probe is 0, limit 1');
  const told = JSON.stringify(said);
  for (const word of [device?.id ?? '', 'secret', 'label', 'line 3', 'carol'])
    assert.equal(told.includes(word), false, word);
  // Another try is another rollout.
  await give({ revision: 8, attempt: 2 });
  assert.equal((await begun()).length, 2);
  await give({ revision: 9, attempt: 3 });
  const [third = '', second = ''] = await begun();
  assert.equal((await world.status(second)).state, 'aborted');
  await give({ revision: 10, attempt: 3, wish: 'abort-revert' });
  assert.equal((await world.status(third)).state, 'rolling-back');
  assert.equal((await last()).rollout, third);
  assert.deepEqual(audited.map(({ action, outcome, actor }) => [action, outcome, actor]).slice(0, 2), [
    ['rollouts.order.run', 'done', 'region:home/alice'],
    ['rollouts.order.pause', 'done', 'region:home/bob'],
  ]);
});

test('an order that the policy does not let in begins nothing, and says by which rule', async (t) => {
  const { world, give, last, begun, allow, audited } = await ordered(t);
  await world.push(release, 1);
  allow(false);
  await give({});
  const said = await last();
  assert.deepEqual([said.state, said.code, said.rule], ['refused', 'policy-denied', 'test/rule']);
  assert.deepEqual([audited[0]?.outcome, audited[0]?.rule], ['refused', 'test/rule']);
  assert.equal((await world.events('policy-denied')).length, 1);
  // The refusal stands until another attempt, whatever the policy says by then.
  allow(true);
  await give({ revision: 2, wish: 'pause' });
  assert.equal((await last()).state, 'refused');
  assert.deepEqual(await begun(), []);
  await give({ revision: 3, attempt: 2 });
  assert.equal((await last()).state, 'running');
});

test('a release that is not here yet is waited for; what is no order is passed over', async (t) => {
  const { world, orders, give, last, begun, progress } = await ordered(t);
  await give({});
  assert.deepEqual([(await last()).state, (await last()).code], ['waiting', 'mirror-incomplete']);
  assert.deepEqual([(await last()).revision, (await last()).acted], [1, 0]);
  await world.push(release, 1);
  await orders.work();
  assert.equal((await last()).state, 'running');
  assert.equal((await begun()).length, 1);

  for (const wrong of [{ orderId: 'r1' }, { attempt: 0 }, { wish: 'dance' }, { file: 7 }])
    await give(wrong as object, 'east');
  assert.deepEqual(await progress('east'), []);
  assert.equal(world.log.events.filter(({ event }) => event === 'regions.order.refused').length, 4);
  await give({ file: '{"kind": "Rollout"}' }, 'east');
  const [said] = await progress('east');
  assert.deepEqual([said?.state, said?.code], ['refused', 'rollout-file-invalid']);
  assert.equal(rolloutOrderSchema.safeParse({}).success, false);
});

test('a release that was taken back before it came is not waited for', async (t) => {
  const { world, orders, give, last, begun, progress } = await ordered(t);
  const { repository, releases, store, clock } = world.core;
  for (const [index, version] of ['1.0.0', '2.0.0', '3.0.0'].entries())
    await world.push(`acme/digits@${version}`, index + 1);
  const metadata = nextPublisherTargets({
    ...{ namespace: 'acme', add: [], signers: [publisherKey('acme')] },
    current: await repository.file('3.acme.json'),
    floors: new Map([['digits', 2]]),
    withdrawn: new Map([['digits', new Set([2])]]),
    expiresAtMs: clock.wall() + 86_400_000,
  });
  unwrap(await releases.takeStep({ namespace: 'acme', metadata: unwrap(metadata), pushedBy: 'tester' }));
  // As in a region that mirrors the catalogue and has none of its releases yet.
  await store.tx((db) => db.sql.run('DELETE FROM releases'));
  const file = (named: string) =>
    unwrap(regionalFile(rolloutFile('digits', { release: named, gates: { success: 1 } }))).text;
  for (const [revision, version, code] of [
    [1, '1.0.0', 'release-below-floor'],
    [2, '2.0.0', 'release-withdrawn'],
  ] as const) {
    const named = `acme/digits@${version}`;
    await give({ revision, attempt: revision, releases: [named], file: file(named) });
    const said = await last();
    assert.deepEqual([said.state, said.code, said.acted], ['refused', code, revision]);
    assert.equal((await world.events(code)).at(0)?.code, code);
  }
  assert.deepEqual(await begun(), []);
  // Refused is an end: nothing is under way.
  assert.equal(await orders.work(), false);
  // One that the catalogue lets in still comes.
  const third = 'acme/digits@3.0.0';
  await give({ releases: [third], file: file(third) }, 'east');
  const [said] = await progress('east');
  assert.deepEqual([said?.state, said?.code], ['waiting', 'mirror-incomplete']);
});
