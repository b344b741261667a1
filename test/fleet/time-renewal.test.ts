// Why: a device gets signed time and its next certificate over the bus, and nobody gets another's.
// Trusts: world.ts. Must never: check prose; codes, states and signatures only.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { checkAuthorities } from '../../shared/trust/authorities.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { checkTime } from '../../shared/trust/time.ts';
import {
  parseMessage,
  type RenewReply,
  renewReplySchema,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { type Device, head, openWorld, refusalOf, region, type World } from './world.ts';

const nonce = '00112233445566778899aabbccddeeff';
const dayMs = 86_400_000;

async function regionRootOf(world: World) {
  return unwrap(parseRegionRoot(await world.repository.regionRoot()));
}

async function openOne(t: TestContext): Promise<{ world: World; device: Device }> {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  return { world, device };
}

test('time is signed for this device, this region and this question', async (t) => {
  const { world, device } = await openOne(t);
  const payload = await world.reply(device, 'time/reply', () =>
    device.say('time', { ...head(world), nonce }),
  );
  const { envelope } = unwrap(parseMessage(signedMessageSchema, payload));
  const asked = { envelope, regionRoot: await regionRootOf(world), deviceId: device.id, region, nonce };
  const told = unwrap(checkTime(asked));
  assert.ok(Math.abs(told - world.clock.wall()) < 5_000);
  assert.equal(refusalOf(checkTime({ ...asked, deviceId: 'f'.repeat(32) })), 'time-replayed');
  assert.equal(refusalOf(checkTime({ ...asked, nonce: 'f'.repeat(32) })), 'time-replayed');
});

test('time is bounded for each device alone, and not told to strangers or those that were shut out', async (t) => {
  const world = await openWorld(t);
  const [device, other] = await world.devices(2);
  assert.ok(device && other);
  const answers = (id: string): number =>
    world.bus.published.filter(({ topic }) => topic === deviceTopic(region, id, 'time/reply')).length;
  for (let index = 0; index < 100; index += 1) device.say('time', { ...head(world), nonce });
  await world.settle();
  assert.ok(answers(device.id) >= 10 && answers(device.id) < 20, String(answers(device.id)));
  other.say('time', { ...head(world), nonce });
  other.say('time', { ...head(world), nonce: 'short' });
  await world.settle();
  assert.equal(answers(other.id), 1);
  await world.fleet.devices.revoke(other.id, 'tester');
  other.say('time', { ...head(world), nonce });
  await world.settle();
  assert.equal(answers(other.id), 1);
});

async function renew(world: World, device: Device, seed = device.seed): Promise<RenewReply['result']> {
  const csr = await makeDeviceRequest(seed);
  const payload = await world.reply(device, 'renew/reply', () =>
    device.say('renew', { ...head(world), csr }),
  );
  return unwrap(parseMessage(renewReplySchema, payload)).result;
}

test('renews with a new certificate and the signed list; a repetition within a minute gets the same', async (t) => {
  const { world, device } = await openOne(t);
  world.clock.advance(200 * dayMs);
  const first = await renew(world, device);
  assert.ok(first.status === 'accepted');
  const certificate = new X509Certificate(first.certificate);
  const [authority] = world.core.authorities.present();
  assert.equal(certificate.subject, `CN=${device.id}`);
  assert.ok(certificate.checkIssued(new X509Certificate(authority.certificatePem)));
  assert.ok(Date.parse(certificate.validTo) > world.clock.wall() + 365 * dayMs);
  assert.equal((await world.view(device)).trust.certificateExpiresAtMs, Date.parse(certificate.validTo));
  const list = unwrap(
    checkAuthorities({
      envelope: first.authorities,
      regionRoot: await regionRootOf(world),
      region,
      heldIssuedAtMs: 0,
    }),
  );
  assert.deepEqual(list.certificates, [authority.certificatePem]);

  const again = await renew(world, device);
  assert.ok(again.status === 'accepted' && again.certificate === first.certificate);
  // Asked twice at once: still one.
  world.clock.advance(2 * 60_000);
  const [one, two] = await Promise.all([renew(world, device), renew(world, device)]);
  assert.ok(one.status === 'accepted' && two.status === 'accepted');
  assert.notEqual(one.certificate, first.certificate);
  const rows = await world.store.tx((db) => db.all(world.store.qb.selectFrom('certificates').selectAll()));
  assert.equal(rows.length, 3);
});

test('a day has so many certificates; beyond that the last one comes again', async (t) => {
  const { world, device } = await openOne(t);
  const seen = new Set<string>();
  for (let index = 0; index < 26; index += 1) {
    world.clock.advance(2 * 60_000);
    const result = await renew(world, device);
    assert.ok(result.status === 'accepted');
    seen.add(result.certificate);
  }
  // With the one of the enrolment, 24 a day.
  assert.equal(seen.size, 23);
});

test('refused: another key, no request, revoked, quarantined, unknown', async (t) => {
  const world = await openWorld(t);
  const [device, other] = await world.devices(2);
  assert.ok(device && other);
  const codeOf = (result: RenewReply['result']): string =>
    result.status === 'refused' ? result.code : 'accepted';
  assert.equal(codeOf(await renew(world, device, other.seed)), 'renewal-refused');
  const garbage = await world.reply(device, 'renew/reply', () =>
    device.say('renew', { ...head(world), csr: 'nonsense' }),
  );
  assert.equal(codeOf(unwrap(parseMessage(renewReplySchema, garbage)).result), 'enrolment-request-invalid');
  await world.fleet.devices.quarantine(device.id, { code: 'report-cloned', detail: 'two' });
  assert.equal(codeOf(await renew(world, device)), 'device-quarantined');
  await world.fleet.devices.release(device.id, 'tester');
  assert.equal(codeOf(await renew(world, device)), 'accepted');
  await world.fleet.devices.revoke(device.id, 'tester');
  assert.equal(codeOf(await renew(world, device)), 'device-revoked');
  const rows = await world.store.tx((db) =>
    db.all(world.store.qb.selectFrom('certificates').selectAll().where('device_id', '=', device.id)),
  );
  assert.equal(rows.length, 1); // within the minute of its enrolment it got that one again
  const { qb } = world.store;
  await world.store.tx((db) => {
    for (const table of ['assignments', 'devices'] as const) {
      db.run(qb.deleteFrom(table).where('device_id', '=', other.id));
    }
  });
  assert.equal(codeOf(await renew(world, other)), 'device-unknown');
  assert.ok((await world.events('renewal-refused')).length === 1);
});

test('certificates of a version before are taken up, so that they can be revoked', async (t) => {
  const { world, device } = await openOne(t);
  const { qb } = world.store;
  const all = () => world.store.tx((db) => db.all(qb.selectFrom('certificates').selectAll()));
  const before = await all();
  await world.store.tx((db) => db.run(qb.deleteFrom('certificates')));
  await world.restart();
  assert.deepEqual(
    (await all()).map(({ issued_at_ms: _, ...row }) => row),
    before.map(({ issued_at_ms: _, ...row }) => row),
  );
  await world.restart();
  assert.equal((await all()).length, 1);
  assert.equal(before[0]?.device_id, device.id);
});
