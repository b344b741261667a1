// Why: a fleet lives through a rotation of its region's keys: every assignment is signed again by the new
// director, also after a crash in mid-way, and a claim made before still lets devices in.
// Trusts: world.ts, whose devices check as agents do. Must never: sign for the director.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseMessage, signedMessageSchema } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { bundleFrom, onlineChanges } from '../support/ceremony.ts';
import { Device, openWorld, region, rolloutFile, type World } from './world.ts';

async function rotate(world: World): Promise<void> {
  const plan = await world.repository.keys.plan({ newOnline: true });
  const bundle = bundleFrom(plan, onlineChanges(plan), { nowMs: world.clock.wall() });
  unwrap(await world.repository.keys.install(bundle));
}

/** Key id of the director on the device's topic. */
function signedBy(world: World, device: Device): string | undefined {
  const payload = world.bus.retained.get(deviceTopic(region, device.id, 'desired'));
  assert.ok(payload);
  return unwrap(parseMessage(signedMessageSchema, payload)).envelope.signatures[0]?.keyid;
}

test('after a rotation every assignment is signed by the new director, with the next epoch and the same content', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const devices = await world.devices(3);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  const before = await Promise.all(devices.map((device) => device.assignment()));
  const old = world.keyring.signer('director').keyId;
  await rotate(world);
  const now = world.keyring.signer('director').keyId;
  assert.notEqual(now, old);
  assert.equal(await world.fleet.director.reissue(), 3);
  for (const [index, device] of devices.entries()) {
    assert.equal(signedBy(world, device), now);
    // Checked under the region root in force, as the device does.
    const after = await device.assignment();
    assert.equal(after?.epoch, (before[index]?.epoch ?? 0) + 1);
    assert.deepEqual(after?.releases, before[index]?.releases);
  }
  assert.equal(await world.fleet.director.reissue(), 0, 'once is enough');
});

test('a registry that dies after the roots are in force signs the assignments when it starts again', async (t) => {
  const world = await openWorld(t);
  const devices = await world.devices(2);
  await rotate(world);
  await world.restart();
  const now = world.keyring.signer('director').keyId;
  for (const device of devices) assert.equal(signedBy(world, device), now);
});

test('assignments of a version that kept no key ids are those of its only key', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.store.tx((db) => db.sql.run('UPDATE assignments SET signed_by = NULL'));
  const before = await device.assignment();
  await world.restart();
  assert.deepEqual(await device.assignment(), before);
  await rotate(world);
  assert.equal(await world.fleet.director.reissue(), 1);
});

test('a claim made before a rotation still enrols, from the roots that it names', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim({ uses: 2 });
  await rotate(world);
  const device = new Device(world, 'late');
  const reply = await world.enrol(claim, device);
  assert.equal(reply.status, 'accepted');
  assert.ok(reply.status === 'accepted');
  assert.equal(sha256Hex(Buffer.from(reply.catalogueRoot, 'base64')), claim.catalogueRootSha256);
  assert.equal(sha256Hex(Buffer.from(reply.regionRoot, 'base64')), claim.regionRootSha256);
  assert.notEqual(claim.regionRootSha256, await world.repository.regionRootSha256());
  // The present director's word, which the device believes once it has walked to the present root.
  assert.equal(signedBy(world, device), world.keyring.signer('director').keyId);

  // A claim of a version that kept no root versions gets the roots in force.
  await world.store.tx((db) =>
    db.sql.run('UPDATE claims SET catalogue_root_version = NULL, region_root_version = NULL'),
  );
  const other = await world.enrol(claim, new Device(world, 'later'));
  assert.ok(other.status === 'accepted');
  assert.equal(sha256Hex(Buffer.from(other.regionRoot, 'base64')), await world.repository.regionRootSha256());
});
