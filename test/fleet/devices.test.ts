// Why: reports prove themselves or are refused; standing, labels and presence are what the registry was told.
// Trusts: world.ts. Must never: check prose; codes and states only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { signReport } from '../../shared/trust/report.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic, tufTimestampTopic } from '../../shared/wire/topics.ts';
import { head, openWorld, refusalOf, region, rolloutFile } from './world.ts';

test('a signed report becomes the device’s view; its refusals become events once', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  device.models.set('digits', {
    name: 'digits',
    state: 'fetching',
    active: null,
    activeSha256: null,
    candidate: 'acme/digits@1.0.0',
    lastGood: null,
    target: 'acme/digits@1.0.0',
    rolloutId: null,
    reason: null,
    progress: { doneBytes: 1, totalBytes: 2 },
    probe: null,
  });
  device.refusals = [{ id: 1, code: 'blob-digest-mismatch', detail: 'a bit', atMs: 5, attack: true }];
  device.report();
  device.refusals.push({ id: 2, code: 'assignment-replayed', detail: 'old', atMs: 6, attack: true });
  device.report();
  device.report();
  await world.settle();
  const view = await world.view(device);
  assert.equal(view.models[0]?.state, 'fetching');
  assert.deepEqual(view.models[0]?.progress, { doneBytes: 1, totalBytes: 2 });
  assert.equal(view.timezone, 'Europe/Vienna');
  assert.equal((await world.events('blob-digest-mismatch')).length, 1);
  assert.deepEqual(
    (await world.events('assignment-replayed')).map((event) => event.subject),
    [device.id],
  );
});

test('reports that are forged, replayed or for somebody else are refused with their codes', async (t) => {
  const world = await openWorld(t);
  const [device, other] = await world.devices(2);
  assert.ok(device && other);
  const first = device.reportBody();
  device.report(first);
  await world.settle();
  device.report(device.reportBody(), other.seed);
  await world.settle();
  assert.equal((await world.events('report-signature-invalid')).length, 1);
  // The same bytes again are QoS 1 at work and nobody's fault; an older report is not.
  device.report(first);
  await world.settle();
  assert.equal((await world.events('report-replayed')).length, 0);
  device.report();
  await world.settle();
  device.report(first);
  await world.settle();
  assert.equal((await world.events('report-replayed')).length, 1);
  device.report({ ...device.reportBody(), region: 'elsewhere' });
  world.bus.say(deviceTopic(region, device.id, 'reported'), Buffer.from('nonsense'));
  await world.settle();
  assert.equal((await world.events('message-malformed')).length, 2);
  // Another device's genuine report on this device's topic.
  const envelope = signReport(other.reportBody(), signerFromSeed(other.seed, 'node'));
  world.bus.say(deviceTopic(region, device.id, 'reported'), encodeMessage({ ...head(world), envelope }));
  await world.settle();
  assert.equal((await world.events('report-signature-invalid')).length, 2);
});

test('revoking disconnects at once, clears the topic and holds', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  assert.ok(await device.assignment());
  const view = await world.fleet.devices.revoke(device.id, 'tester');
  assert.ok(view.ok && view.value.status === 'revoked');
  assert.deepEqual(world.bus.disconnected, [device.id]);
  assert.equal(await device.assignment(), null);
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id }), false);
  device.report();
  world.fleet.onRefused({ code: 'broker-not-authorized', subject: device.id, detail: 'knocks again' });
  world.fleet.onRefused({ code: 'broker-not-authorized', subject: '0'.repeat(32), detail: 'from elsewhere' });
  await world.settle();
  // Revoked, its report refused, and not let in again.
  assert.equal((await world.events('device-revoked')).length, 3);
  assert.equal((await world.events('device-unknown')).length, 1);
  assert.equal(refusalOf(await world.fleet.devices.release(device.id, 'tester')), 'device-revoked');
  assert.equal(refusalOf(await world.fleet.devices.revoke('0'.repeat(32), 'tester')), 'device-unknown');
});

test('labels are set, removed, checked and signed into the next assignment', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1, { site: 'a' });
  assert.ok(device);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  const before = await device.assignment();
  const { devices } = world.fleet;
  const labelled = await devices.label(device.id, { line: 'x', own: null });
  assert.ok(labelled.ok);
  assert.deepEqual(labelled.value.labels, { site: 'a', line: 'x' });
  const after = await device.assignment();
  assert.deepEqual(after?.labels, { site: 'a', line: 'x' });
  assert.equal(after?.epoch, (before?.epoch ?? 0) + 1);
  // The same again: nothing to sign.
  await devices.label(device.id, { line: 'x' });
  assert.equal((await device.assignment())?.epoch, after?.epoch);
  assert.equal(refusalOf(await devices.label(device.id, { 'no spaces here': 'x' })), 'input-invalid');
  const many = Object.fromEntries(Array.from({ length: 80 }, (_, index) => [`k${index}`, 'v']));
  assert.equal(refusalOf(await devices.label(device.id, many)), 'input-invalid');
  assert.equal(refusalOf(await devices.label('f'.repeat(32), {})), 'device-unknown');
});

test('presence follows connections, not the last will of one that was replaced', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const presence = async () => (await world.view(device)).presence;
  assert.equal(await presence(), 'online');
  // A second connection replaces the first, whose will and end come later.
  world.fleet.onConnected({ kind: 'device', deviceId: device.id });
  device.say('presence', { ...head(world), online: false });
  world.fleet.onDisconnected({ kind: 'device', deviceId: device.id });
  await world.settle();
  assert.equal(await presence(), 'online');
  device.offline();
  await world.settle();
  assert.equal(await presence(), 'offline');
  device.online();
  await world.settle();
  await world.restart();
  assert.equal(await presence(), 'unknown');
});

test('presence that a failing store did not take is stored a little later, unless there is a newer word', async (t) => {
  const world = await openWorld(t);
  const [one, other] = await world.devices(2);
  assert.ok(one && other);
  const presences = async () => [(await world.view(one)).presence, (await world.view(other)).presence];
  const { store } = world;
  const { tx } = store;
  store.tx = async () => {
    throw new FleetError('disk-full', 'no space left');
  };
  one.offline();
  other.offline();
  await world.pass(world.core.limits.publishRetryMs * 3);
  // The one speaks again, on a connection that the store does not hear of either; the other stays away.
  one.online();
  await world.settle();
  store.tx = tx;
  assert.deepEqual(await presences(), ['online', 'online'], 'nothing was stored so far');
  await world.pass(world.core.limits.publishRetryMs * 2);
  assert.deepEqual(await presences(), ['online', 'offline']);

  // It was away when the registry started anew, and its word on coming back was lost.
  await world.restart();
  assert.deepEqual(await presences(), ['unknown', 'unknown']);
  store.tx = async () => {
    throw new FleetError('disk-io', 'a bad block');
  };
  other.online();
  await world.settle();
  store.tx = tx;
  await world.pass(world.core.limits.publishRetryMs * 2);
  assert.deepEqual(await presences(), ['unknown', 'online']);
});

test('after a restart every retained topic is there again, byte for byte', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  const retained = new Map(world.bus.retained);
  assert.deepEqual([...retained.keys()].sort(), [
    deviceTopic(region, device.id, 'desired'),
    tufTimestampTopic(region),
  ]);
  await world.restart();
  for (const [topic, bytes] of retained)
    assert.deepEqual(Buffer.from(world.bus.retained.get(topic) ?? []), Buffer.from(bytes));
  // A new timestamp rings at once.
  await world.push('acme/digits@2.0.0', 2);
  await world.settle();
  assert.notDeepEqual(
    Buffer.from(world.bus.retained.get(tufTimestampTopic(region)) ?? []),
    Buffer.from(retained.get(tufTimestampTopic(region)) ?? []),
  );
});

test('a bus that takes nothing keeps nobody from deciding; it is published later', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  world.bus.failing = true;
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  assert.deepEqual((await device.assignment())?.releases, []);
  world.bus.failing = false;
  await world.pass(3_000);
  assert.equal((await device.assignment())?.epoch, 2);
});

test('an assignment is signed again at half its life, with the next epoch and the same content', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  await device.obey();
  await world.settle();
  const before = await device.assignment();
  world.clock.advance(14 * 86_400_000);
  await world.settle();
  assert.equal((await device.assignment())?.epoch, before?.epoch);
  world.clock.advance(2 * 86_400_000);
  await world.settle();
  const after = await device.assignment();
  assert.equal(after?.epoch, (before?.epoch ?? 0) + 1);
  assert.deepEqual(after?.releases, before?.releases);
  assert.ok((after?.expiresAtMs ?? 0) > world.clock.wall() + 29 * 86_400_000);
});

test('strangers’ events are counted beyond a bound and do not fill the table', async (t) => {
  const world = await openWorld(t);
  for (let index = 0; index < 500; index += 1) {
    world.fleet.onRefused({ code: 'broker-no-certificate', subject: null, detail: 'flood' });
  }
  world.fleet.onRefused({ code: 'broker-client-id-borrowed', subject: 'a', detail: 'one' });
  await world.settle();
  const { length } = await world.fleet.events.list({ code: 'broker-no-certificate', limit: 1_000 });
  assert.ok(length >= 200 && length < 300, String(length));
  assert.equal(world.fleet.counters().eventsDropped, 500 - length);
  assert.equal((await world.events('broker-client-id-borrowed')).length, 1);
  const page = await world.fleet.events.list({ limit: 10 });
  const next = await world.fleet.events.list({ limit: 10, before: page.at(-1)?.id ?? 0 });
  assert.ok((next[0]?.id ?? 0) < (page.at(-1)?.id ?? 0));
});

test('a quarantine that ends spends an epoch, from which reports begin anew', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  const { qb } = world.store;
  await world.store.tx((db) => db.run(qb.updateTable('devices').set({ status: 'quarantined' })));
  await world.restart();
  assert.equal(await device.assignment(), null);
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id }), false);
  const released = await world.fleet.devices.release(device.id, 'tester');
  assert.ok(released.ok && released.value.status === 'active');
  await world.settle();
  assert.equal((await device.assignment())?.epoch, 3);
  // Idempotent: nothing was to be ended.
  await world.fleet.devices.release(device.id, 'tester');
  assert.equal((await device.assignment())?.epoch, 3);
});

test('an assignment that could not be read for publishing is published when the store is well again', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const { store } = world.core;
  const { tx } = store;
  let failed = false;
  const before = (await device.assignment())?.epoch ?? 0;
  // The commit of the label succeeds, the read for publishing after it fails.
  store.tx = async (work) => {
    if (failed || !world.log.events.some(({ event }) => event === 'device.labelled')) return tx(work);
    failed = true;
    throw new FleetError('disk-io', 'simulated');
  };
  await assert.rejects(world.fleet.devices.label(device.id, { line: 'x' }));
  await world.pass(10_000);
  store.tx = tx;
  assert.ok(((await device.assignment())?.epoch ?? 0) > before);
});
