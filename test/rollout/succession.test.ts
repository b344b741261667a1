// Why: several rollouts of one name, devices that come later, crowds and restarts.
// Trusts: test/fleet/world.ts. Must never: check prose; states, verdicts and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { rolloutFile } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

test('a later rollout takes over; when it is taken back the earlier one holds again', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const first = await world.start(rolloutFile('first', { release: v1 }));
  await devices[0]?.obey();
  await world.settle();
  const second = await world.start(rolloutFile('second', { release: v2 }));
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
  const superseded = await world.status(first);
  assert.deepEqual([superseded.state, superseded.waves[0]?.state], ['aborted', 'running']);
  await devices[0]?.obey(golden);
  await world.settle();
  // Release 1 was proven on the first device and not on the second, which never had anything.
  assert.deepEqual(await all(devices, assigned), [v1, null]);
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(second)).state, 'failed');
});

test('a succeeded rollout counts its devices again when a later one was taken back', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  await onRelease1(world, devices);
  const [first] = await world.rollouts.list();
  const second = await world.start(rolloutFile('second', { release: v2 }));
  const reasons = async () =>
    (await world.status(first?.id ?? '')).devices.map(({ reason }) => reason?.split(':')[0]);
  await devices[0]?.obey(golden);
  await world.settle();
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(second)).state, 'failed');
  assert.deepEqual(await reasons(), [undefined, undefined]);
  // Unlike while a later one holds them.
  await world.start(rolloutFile('third', { release: v2 }));
  unwrap(await world.fleet.devices.label(devices[0]?.id ?? '', { touched: 'yes' }));
  await world.settle();
  assert.deepEqual(await reasons(), ['update-superseded', 'update-superseded']);
});

test('an older rollout takes no device that a later one holds', async (t) => {
  const world = await world2(t);
  const [atA] = await world.devices(1, { site: 'a' });
  const [moves] = await world.devices(1, { site: 'b' });
  assert.ok(atA && moves);
  const older = await world.start(
    rolloutFile('older', { release: v1, selector: { matchLabels: { site: 'a' } } }),
  );
  await atA.obey();
  await world.settle();
  await world.start(rolloutFile('later', { release: v2, selector: { matchLabels: { site: 'b' } } }));
  await moves.obey();
  unwrap(await world.fleet.devices.label(moves.id, { site: 'a' }));
  await world.settle();
  assert.equal(await assigned(moves), v2);
  assert.deepEqual(
    (await world.status(older)).devices.map((device) => device.id),
    [atA.id],
  );
});

test('devices that match later get a succeeded rollout; the latest that matches wins', async (t) => {
  const world = await world2(t);
  const [first] = await world.devices(1, { site: 'a' });
  assert.ok(first);
  const everywhere = await world.start(rolloutFile('everywhere', { release: v1 }));
  await first.obey();
  await world.settle();
  const siteB = await world.start(
    rolloutFile('site-b', { release: v2, selector: { matchLabels: { site: 'b' } } }),
  );
  assert.match((await world.status(siteB)).reason ?? '', /waiting/);
  const [atA] = await world.devices(1, { site: 'a' });
  const [atB] = await world.devices(1, { site: 'b' });
  assert.ok(atA && atB);
  assert.deepEqual(await all([first, atA, atB], assigned), [v1, v1, v2]);
  await all([atA, atB], (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(siteB)).state, 'succeeded');
  assert.equal(
    (await world.status(everywhere)).devices.find((device) => device.id === atA.id)?.state,
    'committed',
  );
  // A label that changes is a late match, too.
  unwrap(await world.fleet.devices.label(atA.id, { site: 'b' }));
  await world.settle();
  assert.equal(await assigned(atA), v2);
  assert.equal(await assigned(first), v1);
});

test('a registry restarted after every step ends where one without restarts ends', async (t) => {
  for (const restarts of [false, true]) {
    const world = await world2(t);
    const again = async (): Promise<void> => {
      if (!restarts) return;
      await world.restart();
      for (const device of devices) device.online();
      await world.settle();
    };
    const devices = await world.devices(3);
    await onRelease1(world, devices);
    await again();
    const id = await world.start(rolloutFile('digits-2', { release: v2 }));
    await again();
    await devices[0]?.obey();
    await again();
    await devices[1]?.obey('fetching');
    await again();
    await devices[2]?.obey(golden);
    await world.settle();
    await again();
    await all(devices, (device) => device.obey());
    await world.settle();
    await again();
    const status = await world.status(id);
    assert.equal(status.state, 'failed');
    assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);
    // No epoch was spent on a restart.
    assert.deepEqual(await all(devices, async (device) => (await device.assignment())?.epoch), [4, 4, 4]);
  }
});

test('a crowd larger than one transaction is assigned whole', async (t) => {
  const world = await world2(t);
  const { qb } = world.store;
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.store.tx((db) => {
    const row = db.first(qb.selectFrom('devices').selectAll());
    assert.ok(row);
    for (let index = 0; index < 450; index += 1) {
      db.run(qb.insertInto('devices').values({ ...row, device_id: index.toString(16).padStart(32, '0') }));
    }
  });
  const id = await world.start(rolloutFile('digits', { release: v1 }));
  await world.settle();
  assert.equal((await world.status(id)).waves[0]?.devices['total'], 451);
  const issued = await world.store.tx((db) => db.all(qb.selectFrom('assignments').select('epoch')));
  assert.equal(issued.length, 451);
});
