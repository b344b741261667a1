// Why: a claim lets in as many devices as it says, for as long as it says, and a crash burns none of it.
// Trusts: world.ts. Must never: check prose; codes and states only.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { Device, enrolWith, head, openWorld } from './world.ts';

test('a claim file is valid and names both roots', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim({ labels: { site: 'a' }, uses: 2 });
  assert.deepEqual(claimFileSchema.parse(claim), claim);
  assert.equal(claim.catalogueRootSha256, sha256Hex(await world.repository.catalogueRoot()));
  assert.equal(claim.regionRootSha256, sha256Hex(await world.repository.regionRoot()));
  assert.match(new X509Certificate(claim.certificate).subject, new RegExp(`CN=${claim.claimId}`));
  // The private key is in the file alone.
  const rows = await world.store.tx((db) => db.all(world.store.qb.selectFrom('claims').selectAll()));
  assert.doesNotMatch(JSON.stringify(rows), /PRIVATE/);
});

test('enrols with the claim’s labels over the device’s own', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim({ labels: { site: 'a' } });
  const device = new Device(world, 'one');
  const result = await world.enrol(claim, device);
  assert.ok(result.status === 'accepted');
  assert.equal(result.deviceId, device.id);
  assert.deepEqual(result.labels, { own: 'yes', site: 'a' });
  const certificate = new X509Certificate(result.certificate);
  assert.equal(certificate.subject, `CN=${device.id}`);
  assert.ok(certificate.checkIssued(new X509Certificate(claim.fleetCa)));
  assert.equal(sha256Hex(Buffer.from(result.catalogueRoot, 'base64')), claim.catalogueRootSha256);
  assert.equal(sha256Hex(Buffer.from(result.regionRoot, 'base64')), claim.regionRootSha256);
  const view = await world.view(device);
  assert.deepEqual(
    [view.status, view.presence, view.labels],
    ['active', 'unknown', { own: 'yes', site: 'a' }],
  );
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id }), true);
});

test('the same key and claim again: the same certificate, no use spent', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim({ uses: 2 });
  const device = new Device(world, 'one');
  const first = await world.enrol(claim, device, 'attempt1');
  const again = await world.enrol(claim, device, 'attempt2');
  assert.ok(first.status === 'accepted' && again.status === 'accepted');
  assert.equal(again.certificate, first.certificate);
  assert.equal((await world.enrol(claim, new Device(world, 'two'))).status, 'accepted');
  const third = await world.enrol(claim, new Device(world, 'three'));
  assert.ok(third.status === 'refused');
  assert.equal(third.code, 'claim-used-up');
  // Also when the claim is used up or has ended.
  world.clock.advance(2 * 86_400_000);
  const late = await world.enrol(claim, device, 'attempt3');
  assert.ok(late.status === 'accepted');
  assert.equal(late.certificate, first.certificate);
});

test('a use that was spent before a crash gives its certificate afterwards', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim();
  const device = new Device(world, 'one');
  const { qb } = world.store;
  await world.store.tx((db) => {
    const use = { claim_id: claim.claimId, device_id: device.id, certificate: null, at_ms: 1 };
    db.run(qb.insertInto('claim_uses').values(use));
    db.run(qb.updateTable('claims').set({ used: 1 }));
  });
  assert.equal((await world.enrol(claim, device)).status, 'accepted');
  const uses = await world.store.tx((db) => db.first(qb.selectFrom('claims').select('used')));
  assert.equal(uses?.used, 1);
});

test('two devices at once on a claim of one use: one is refused', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim();
  const results = await Promise.all([
    world.enrol(claim, new Device(world, 'one'), 'attempt1'),
    world.enrol(claim, new Device(world, 'two'), 'attempt2'),
  ]);
  assert.deepEqual(results.map((result) => result.status).sort(), ['accepted', 'refused']);
});

test('refusals have their codes and become events', async (t) => {
  const world = await openWorld(t);
  const claim = await world.claim({ uses: 5, ttlMs: 1_000 });
  const code = async (payload: Uint8Array, claimId = claim.claimId): Promise<string> => {
    const result = await enrolWith(world, claimId, 'attempt1', payload);
    assert.ok(result.status === 'refused');
    return result.code;
  };
  const device = new Device(world, 'one');
  const agent = { version: '1', runtime: '1', arch: 'x64' };
  const csr = await makeDeviceRequest(device.seed);
  const body = { ...head(world), csr, labels: {}, timezone: 'UTC', agent };
  assert.equal(await code(encodeMessage(body), 'f'.repeat(24)), 'claim-unknown');
  assert.equal(await code(Buffer.from('{')), 'enrolment-request-invalid');
  assert.equal(await code(encodeMessage({ ...body, csr: 'no request' })), 'enrolment-request-invalid');
  const edited = csr.replace(/[A-Za-z](?=[^\n]*\n-----END)/, (letter) => (letter === 'A' ? 'B' : 'A'));
  assert.equal(await code(encodeMessage({ ...body, csr: edited })), 'enrolment-request-invalid');
  world.clock.advance(2_000);
  assert.equal(await code(encodeMessage(body)), 'claim-expired');
  await world.settle();
  for (const wanted of ['claim-unknown', 'enrolment-request-invalid', 'claim-expired']) {
    assert.ok((await world.events(wanted)).length > 0, wanted);
  }
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id }), false);
});

test('a revoked key stays revoked, whatever claim it brings', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.fleet.devices.revoke(device.id, 'tester');
  const result = await world.enrol(await world.claim(), device);
  assert.ok(result.status === 'refused');
  assert.equal(result.code, 'device-revoked');
});
