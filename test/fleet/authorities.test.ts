// Why: the fleet's certificate authority is replaced while devices are out there, and what was revoked stays out
// of brokers of other makers too.
// Trusts: world.ts; openssl, where it is there, as the second opinion on lists. Must never: check prose.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openAuthorities } from '../../registry/signing/authorities.ts';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { authoritiesSha256, authorityServerName } from '../../shared/trust/authorities.ts';
import { parseMessage, renewReplySchema } from '../../shared/wire/messages.ts';
import { countedEntropy, temporaryFolder } from '../registry-core/support.ts';
import { Device, head, openWorld, refusalOf, region, type World } from './world.ts';

const dayMs = 86_400_000;

async function renewed(world: World, device: Device): Promise<X509Certificate> {
  const csr = await makeDeviceRequest(device.seed);
  const payload = await world.reply(device, 'renew/reply', () =>
    device.say('renew', { ...head(world), csr }),
  );
  const { result } = unwrap(parseMessage(renewReplySchema, payload));
  assert.ok(result.status === 'accepted');
  return new X509Certificate(result.certificate);
}

const summary = async (world: World) =>
  (await world.fleet.authorities.list()).map(({ id, state, devices, claims }) => [
    id,
    state,
    devices,
    claims,
  ]);

test('rotate, renew, retire: devices move over by themselves, and nobody is cut off unasked', async (t) => {
  const world = await openWorld(t);
  const { authorities } = world.core;
  const [device, late] = await world.devices(2);
  assert.ok(device && late);
  const waiting = await world.claim({ uses: 1 });
  const [first] = authorities.present();
  const before = await device.assignment();
  assert.equal(before?.authoritiesSha256, authoritiesSha256([first.certificatePem]));
  assert.equal(
    refusalOf(await world.fleet.authorities.retire('ca-1', { force: true, by: 'tester' })),
    'conflict',
  );

  let told = 0;
  authorities.onChange(() => {
    told += 1;
  });
  unwrap(await world.fleet.authorities.rotate('tester'));
  await world.settle();
  const [second] = authorities.present();
  assert.equal(second.number, 2);
  assert.equal(told, 1);
  assert.notEqual(
    new X509Certificate(second.certificatePem).subject,
    new X509Certificate(first.certificatePem).subject,
  );
  // The broker shows each device a certificate of the authority that it names; strangers get the oldest one's.
  const broker = authorities.broker();
  const shown = (pem: string | undefined) => new X509Certificate(pem ?? '');
  for (const one of [first, second]) {
    const cert = shown(broker.named.get(authorityServerName(one.certificatePem)));
    assert.ok(
      cert.checkIssued(shown(one.certificatePem)) && cert.verify(shown(one.certificatePem).publicKey),
    );
    assert.equal(cert.checkHost('localhost'), 'localhost');
  }
  assert.equal(broker.cert, broker.named.get(authorityServerName(first.certificatePem)));

  // Every device is told by its assignment, once.
  const after = await device.assignment();
  assert.equal(after?.epoch, (before?.epoch ?? 0) + 1);
  assert.equal(after?.authoritiesSha256, authorities.sha256());
  assert.deepEqual(await summary(world), [
    ['ca-2', 'issuing', 0, 0],
    ['ca-1', 'in-force', 2, 1],
  ]);
  const certificate = await renewed(world, device);
  assert.ok(certificate.checkIssued(shown(second.certificatePem)));
  // A claim from before enrols by the authority it names; the device can check no other yet.
  const claimed = new Device(world, 'claimed');
  const enrolled = await world.enrol(waiting, claimed);
  assert.ok(enrolled.status === 'accepted');
  assert.ok(new X509Certificate(enrolled.certificate).checkIssued(shown(first.certificatePem)));
  assert.equal((await world.claim()).fleetCa, second.certificatePem);
  assert.deepEqual((await summary(world))[1], ['ca-1', 'in-force', 2, 0]);

  // The answer to a renewal was lost: the device says which certificate it really holds.
  const held = (await world.view(late)).trust.certificateExpiresAtMs;
  await renewed(world, late);
  assert.equal((await world.view(late)).trust.authority, 'ca-2');
  late.says = { certificateExpiresAtMs: held };
  late.report();
  await world.settle();
  assert.equal((await world.view(late)).trust.authority, 'ca-1');

  const refused = await world.fleet.authorities.retire('ca-1', { force: false, by: 'tester' });
  assert.ok(!refused.ok && refused.refusal.code === 'conflict' && /^2 /.test(refused.refusal.detail));
  late.says = { certificateExpiresAtMs: Date.parse((await renewed(world, late)).validTo) };
  late.report();
  await renewed(world, claimed);
  await world.settle();
  unwrap(await world.fleet.authorities.retire('ca-1', { force: false, by: 'tester' }));
  await world.settle();
  assert.deepEqual(await summary(world), [
    ['ca-2', 'issuing', 3, 1],
    ['ca-1', 'retired', 0, 0],
  ]);
  assert.equal(authorities.broker().ca, second.certificatePem);
  assert.equal(authorities.broker().named.size, 1);
  assert.equal((await device.assignment())?.authoritiesSha256, authoritiesSha256([second.certificatePem]));
  unwrap(await world.fleet.authorities.retire('1', { force: false, by: 'tester' })); // idempotent
  assert.equal(
    refusalOf(await world.fleet.authorities.retire('ca-9', { force: true, by: 'tester' })),
    'not-found',
  );
  assert.equal(
    refusalOf(await world.fleet.authorities.retire('x', { force: true, by: 'tester' })),
    'not-found',
  );
});

test('a claim of an authority that was retired by force lets nobody in', async (t) => {
  const world = await openWorld(t);
  await world.devices(1);
  const claim = await world.claim();
  unwrap(await world.fleet.authorities.rotate('tester'));
  unwrap(await world.fleet.authorities.retire('ca-1', { force: true, by: 'tester' }));
  const result = await world.enrol(claim, new Device(world, 'too late'));
  assert.ok(result.status === 'refused' && result.code === 'claim-expired');
});

test('cut off between the new authority and its assignments, the next start goes on', async (t) => {
  const world = await openWorld(t);
  const devices = await world.devices(3);
  // As `rotate` does it, without what follows.
  unwrap(await world.core.authorities.rotate(() => undefined));
  assert.notEqual((await devices[0]?.assignment())?.authoritiesSha256, world.core.authorities.sha256());
  await world.restart();
  for (const device of devices) {
    assert.equal((await device.assignment())?.authoritiesSha256, world.core.authorities.sha256());
    assert.equal((await device.assignment())?.epoch, 2);
  }
  // And not again at every start.
  await world.restart();
  assert.equal((await devices[0]?.assignment())?.epoch, 2);
});

test('reissueAll signs everything again with the next epoch, in batches', async (t) => {
  const world = await openWorld(t);
  const devices = await world.devices(3);
  const [gone] = devices.slice(-1);
  assert.ok(gone);
  await world.fleet.devices.revoke(gone.id, 'tester');
  await world.fleet.director.reissueAll();
  await world.settle();
  assert.equal((await devices[0]?.assignment())?.epoch, 2);
  assert.equal((await devices[1]?.assignment())?.epoch, 2);
  assert.equal(await gone.assignment(), null);
});

/** Authorities on the world's own keys and store, as after a restart. */
const reopened = (world: World) =>
  openAuthorities({
    ...world,
    disk: openDisk(join(world.folder, 'keys')),
    region,
    hosts: ['localhost'],
    entropy: countedEntropy('another'),
  });

test('authorities outlive a restart; what a cut-off rotation left is taken up when it is whole', async (t) => {
  const world = await openWorld(t);
  const { number } = unwrap(await world.core.authorities.rotate(() => undefined));
  const folder = join(world.folder, 'keys', 'authorities');
  assert.equal((await reopened(world)).sha256(), world.core.authorities.sha256());
  // Cut off after the files and before the row.
  const { qb } = world.store;
  await world.store.tx((db) => db.run(qb.deleteFrom('authorities').where('number', '=', number)));
  assert.equal((await reopened(world)).present()[0].number, 2);
  // A second attempt wrote its key and was cut off: key and certificate are not one pair.
  await world.store.tx((db) => db.run(qb.deleteFrom('authorities').where('number', '=', number)));
  writeFileSync(join(folder, '2.pem'), readFileSync(join(world.folder, 'keys', 'director.pem')));
  const left = await reopened(world);
  assert.deepEqual(
    left.present().map((one) => one.number),
    [1],
  );
  const made = unwrap(await left.rotate(() => undefined));
  assert.equal(made.number, 2);
  assert.equal((await reopened(world)).present()[0].certificatePem, made.certificatePem);
});

test('at most eight in force; two rotations at once make two', async (t) => {
  const world = await openWorld(t);
  const { authorities } = world.core;
  await Promise.all([authorities.rotate(() => undefined), authorities.rotate(() => undefined)]);
  assert.deepEqual(
    authorities.present().map((one) => one.number),
    [3, 2, 1],
  );
  for (let index = 0; index < 5; index += 1) unwrap(await authorities.rotate(() => undefined));
  assert.equal(refusalOf(await authorities.rotate(() => undefined)), 'conflict');
});

test('the broker’s own certificates are issued again before a third of their life is left', async (t) => {
  const world = await openWorld(t);
  const { authorities } = world.core;
  let told = 0;
  authorities.onChange(() => {
    told += 1;
  });
  const before = authorities.broker().cert;
  world.clock.advance(700 * dayMs);
  await authorities.renewBroker();
  assert.equal(told, 0);
  world.clock.advance(40 * dayMs);
  await authorities.renewBroker();
  assert.equal(told, 1);
  const after = new X509Certificate(authorities.broker().cert);
  assert.ok(Date.parse(after.validTo) > Date.parse(new X509Certificate(before).validTo) + 700 * dayMs);
});

/** What openssl says; null where there is none. */
function openssl(...args: string[]): string | null {
  const done = spawnSync('openssl', args, { encoding: 'utf8' });
  return done.error === undefined ? `${done.stdout}${done.stderr}` : null;
}

test('lists for other brokers: revoked and quarantined certificates, by each authority, with growing numbers', async (t) => {
  const world = await openWorld(t);
  const [good, revoked, held] = await world.devices(3);
  assert.ok(good && revoked && held);
  unwrap(await world.fleet.authorities.rotate('tester'));
  await renewed(world, revoked);
  await world.fleet.devices.revoke(revoked.id, 'tester');
  await world.fleet.devices.quarantine(held.id, { code: 'report-cloned', detail: 'two' });
  const list = await world.fleet.revocation.revoked();
  assert.deepEqual(
    list.map(({ id, status, certificates }) => [id, status, certificates.map((one) => one.authority)]),
    [
      [held.id, 'quarantined', ['ca-1']],
      [revoked.id, 'revoked', ['ca-1', 'ca-2']],
    ].sort((a, b) => (list[0]?.id === a[0] ? -1 : list[0]?.id === b[0] ? 1 : 0)),
  );

  const files = await world.fleet.revocation.brokerFiles();
  assert.match(files.acl, /pattern write lepton\/1\/test\/d\/%u\/reported/);
  const lists = files.revoked.match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----\n/g) ?? [];
  const cas = world.core.authorities.present();
  assert.equal(lists.length, 2);
  const folder = temporaryFolder(t);
  const at = (name: string) => join(folder, name);
  const serials = list.flatMap(({ certificates }) => certificates);
  for (const [index, ca] of cas.entries()) {
    writeFileSync(at('crl.pem'), lists[index] ?? '');
    writeFileSync(at('ca.pem'), ca.certificatePem);
    const said = openssl('crl', '-in', at('crl.pem'), '-CAfile', at('ca.pem'), '-noout', '-text');
    if (said === null) return t.diagnostic('openssl is not here');
    assert.match(said, /verify OK/);
    for (const { serial, authority } of serials) {
      assert.equal(said.includes(serial), authority === `ca-${ca.number}`, serial);
    }
  }
  // As a broker uses them: all authorities and all lists in one file each.
  writeFileSync(at('authorities.pem'), files.authorities);
  writeFileSync(at('revoked.crl.pem'), files.revoked);
  const rows = await world.store.tx((db) => db.all(world.store.qb.selectFrom('certificates').selectAll()));
  for (const row of rows) {
    writeFileSync(at('device.pem'), row.certificate);
    // The tests' clock is not the machine's.
    const now = String(Math.floor(world.clock.wall() / 1_000));
    const said =
      openssl(
        'verify',
        '-attime',
        now,
        '-crl_check',
        '-CAfile',
        at('authorities.pem'),
        '-CRLfile',
        at('revoked.crl.pem'),
        at('device.pem'),
      ) ?? '';
    if (row.device_id === good.id) assert.match(said, /OK/);
    else assert.match(said, /certificate revoked/);
  }
  const numberOf = (pem: string): number => {
    writeFileSync(at('crl.pem'), pem);
    return Number.parseInt(
      /crlNumber=0x([0-9A-F]+)/.exec(
        openssl('crl', '-in', at('crl.pem'), '-noout', '-crlnumber') ?? '',
      )?.[1] ?? '0',
      16,
    );
  };
  const again = await world.fleet.revocation.brokerFiles();
  const first = numberOf(files.revoked);
  assert.ok(numberOf(again.revoked) > first);
  // A store from before the last list gives a higher number all the same.
  await world.store.tx((db) => db.run(world.store.qb.updateTable('authorities').set({ crl_number: 0 })));
  world.clock.advance(10_000);
  await world.fleet.devices.release(held.id, 'tester');
  const later = await world.fleet.revocation.brokerFiles();
  assert.ok(numberOf(later.revoked) > first);
  const ended = list.find((one) => one.id === held.id)?.certificates[0]?.serial ?? '';
  writeFileSync(at('crl.pem'), later.revoked.slice(later.revoked.lastIndexOf('-----BEGIN')));
  assert.equal((openssl('crl', '-in', at('crl.pem'), '-noout', '-text') ?? ended).includes(ended), false);
});
