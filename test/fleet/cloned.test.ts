// Why: two devices with one key are both shut out until somebody decides, and neither old reports nor old numbers
// come back after that. Trusts: world.ts. Must never: check prose; codes and states only.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { apiParts } from './api-parts.ts';
import { type Device, openWorld, type World } from './world.ts';

async function openPair(t: TestContext): Promise<{ world: World; device: Device; copy: Device }> {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const copy: Device = Object.assign(Object.create(Object.getPrototypeOf(device)), device);
  copy.says = { boot: 1, session: '1'.repeat(32) };
  device.says = { boot: 1, session: '0'.repeat(32) };
  await device.obey();
  await world.settle();
  return { world, device, copy };
}

test('a second device with the key: both are out, told as an attack, at once', async (t) => {
  const { world, device, copy } = await openPair(t);
  copy.counter = device.counter;
  copy.report();
  await world.settle();
  assert.equal((await world.view(device)).status, 'quarantined');
  assert.deepEqual(world.bus.disconnected, [device.id]);
  assert.equal(await device.assignment(), null);
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id }), false);
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id, expired: true }), false);
  const [event] = await world.events('report-cloned');
  assert.equal(event?.attack, true);
  assert.deepEqual(
    (await world.fleet.events.list({ attacks: true, limit: 10 })).map(({ code }) => code),
    ['report-cloned'],
  );
  assert.equal((await world.view(device)).trust.attacks, 1);
  const parts = apiParts(world);
  const metrics = await createApi(parts, () => true).metrics.text(parts);
  assert.match(metrics, /lepton_attacks_total\{code="report-cloned"\} 1/);
  // Neither is heard any more.
  device.report();
  await world.settle();
  assert.equal((await world.view(device)).trust.epoch, 1);
  assert.equal((await world.events('device-quarantined')).length, 1);
});

test('after a release whichever goes on may, and no report from before comes back', async (t) => {
  const { world, device, copy } = await openPair(t);
  // The one with the higher numbers is the copy, and goes away; its reports were recorded.
  copy.says = { boot: 7, session: '1'.repeat(32) };
  copy.counter = 90;
  copy.epoch = device.epoch;
  const recorded = copy.reportBody();
  copy.says = { boot: 1, session: '2'.repeat(32) };
  copy.counter = device.counter;
  copy.report();
  await world.settle();
  assert.equal((await world.view(device)).status, 'quarantined');
  await world.fleet.devices.release(device.id, 'tester');
  await world.settle();
  // From before, and not yet with the new assignment: nothing is taken, and nobody is woken.
  device.report();
  copy.report(recorded);
  await world.settle();
  assert.equal((await world.events('report-replayed')).length, 0);
  assert.equal((await world.view(device)).trust.epoch, 1);
  await device.obey();
  await world.settle();
  assert.equal((await world.view(device)).trust.epoch, 2);
  // Now the same recorded report has higher numbers than the device, and still is from before.
  copy.report(recorded);
  await world.settle();
  assert.equal((await world.view(device)).status, 'active');
  assert.equal((await world.events('report-replayed')).length, 1);
  // The other one, when it comes back, is told apart again.
  copy.epoch = 2;
  copy.says = { boot: 1, session: '3'.repeat(32) };
  copy.report();
  await world.settle();
  assert.equal((await world.view(device)).status, 'quarantined');
});

test('enrolling the same key again ends a quarantine, and reports begin anew', async (t) => {
  const { world, device, copy } = await openPair(t);
  copy.counter = device.counter;
  copy.report();
  await world.settle();
  const before = device.reportBody();
  const claim = await world.claim();
  assert.equal((await world.enrol(claim, device)).status, 'accepted');
  await world.settle();
  assert.equal((await world.view(device)).status, 'active');
  device.report(before);
  await world.settle();
  assert.equal((await world.view(device)).trust.epoch, 1);
  // Wiped: it counts from one.
  device.counter = 0;
  device.refusals = [{ id: 1, code: 'disk-io', detail: 'new', atMs: 1, attack: false }];
  await device.obey();
  await world.settle();
  const view = await world.view(device);
  assert.equal(view.trust.epoch, (await device.assignment())?.epoch);
});

test('what a device reports about itself is shown; an unknown code counts as an attack when it says so', async (t) => {
  const { world, device } = await openPair(t);
  const held = { root: 1, regionRoot: 1, timestamp: 1, snapshot: 1, targets: 1 };
  device.says = {
    ...device.says,
    held,
    clock: { wallMs: world.clock.wall() - 90_000, source: 'wall' },
  };
  device.refusals = [
    { id: 1, code: 'some-future-code', detail: 'x', atMs: 1, attack: true },
    { id: 2, code: 'disk-io', detail: 'y', atMs: 1, attack: false },
  ];
  device.report();
  await world.settle();
  const { trust } = await world.view(device);
  assert.deepEqual(trust.held, held);
  assert.equal(trust.clock?.source, 'wall');
  assert.ok(Math.abs((trust.clock?.offsetMs ?? 0) + 90_000) < 5_000);
  assert.equal(trust.attacks, 1);
  assert.equal((await world.events('some-future-code'))[0]?.attack, true);
  assert.equal((await world.events('disk-io'))[0]?.attack, false);
  assert.deepEqual([...world.fleet.counters().attacks], [['other', 1]]);
});
