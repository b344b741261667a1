// Why: authorities, renewal and expiry over the real broker, real TLS and the real command line; and what OpenSSL, by
// which brokers of other makers judge, does with the files of `lepton broker files`.
// Trusts: Node's TLS and MQTT.js as the device's side. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { connect as connectTls, createServer } from 'node:tls';
import { type Registry, startRegistry } from '../../registry/registry.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { authorityServerName, checkAuthorities } from '../../shared/trust/authorities.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { checkTime } from '../../shared/trust/time.ts';
import { type ClaimFile, claimFileSchema } from '../../shared/wire/claim.ts';
import type { AuthorityView, FleetEvent, RevokedDevice } from '../../shared/wire/http.ts';
import {
  encodeMessage,
  enrolReplySchema,
  parseMessage,
  renewReplySchema,
  schemaVersion,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { deviceTopic, enrolClientId, enrolReplyTopic, enrolRequestTopic } from '../../shared/wire/topics.ts';
import {
  type Credentials,
  newAuthority,
  newClient,
  randomSeed,
  serverIdentity,
  type TestClient,
} from '../broker/fleet.ts';
import { type LeptonRunner, leptonRunner, until, workplace } from '../support/processes.ts';

const region = 'eu-west';
const dayMs = 86_400_000;
const head = () => ({ schemaVersion, messageId: 'm', sentAtMs: Date.now() }) as const;

interface Place {
  registry: Registry;
  lepton: LeptonRunner;
  port: number;
  /** The registry's wall clock runs ahead by this. */
  ahead: { ms: number };
  path(...parts: string[]): string;
}

async function open(t: TestContext): Promise<Place> {
  const place = workplace('real-broker');
  t.after(() => place.close());
  const ahead = { ms: 0 };
  const clock: Clock = { ...systemClock, wall: () => systemClock.wall() + ahead.ms };
  const registry = await startRegistry({
    dataFolder: place.path('registry'),
    region,
    http: { host: '127.0.0.1', port: 0 },
    mqtt: { host: '127.0.0.1', port: 0 },
    version: '0.0.0-test',
    clock,
    entropy: systemEntropy,
    log: openLog({ level: 'error' }),
  });
  place.onClose(() => registry.stop());
  const lepton = leptonRunner(place, { http: registry.httpUrl, token: registry.adminToken }, true);
  return { registry, lepton, port: Number(new URL(registry.mqttUrl).port), ahead, path: place.path };
}

async function claimOf(place: Place): Promise<ClaimFile> {
  const file = place.path('claim.json');
  await place.lepton(['claims', 'create', '--out', file]);
  return claimFileSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
}

interface Device extends Credentials {
  /** The authority by which it checks the broker. */
  authority: string;
}

const dial = (place: Place, device: Device): TestClient =>
  newClient(place.port, device.authority, device, device.id, {
    servername: authorityServerName(device.authority),
  });

async function enrol(place: Place, claim: ClaimFile): Promise<Device> {
  const seed = randomSeed();
  const client = newClient(
    place.port,
    claim.fleetCa,
    { cert: claim.certificate, key: claim.privateKey },
    enrolClientId(claim.claimId, 'attempt1'),
    { servername: authorityServerName(claim.fleetCa) },
  );
  assert.equal(await client.answer, 0);
  await client.subscribe(enrolReplyTopic(region, claim.claimId, 'attempt1'));
  const agent = { version: '0.1.0', runtime: '1', arch: 'x64' };
  const body = { ...head(), csr: await makeDeviceRequest(seed), labels: {}, timezone: 'UTC', agent };
  await client.publish(
    enrolRequestTopic(region, claim.claimId, 'attempt1'),
    Buffer.from(encodeMessage(body)),
  );
  const reply = await client.received.until(() => true);
  const { result } = unwrap(parseMessage(enrolReplySchema, Buffer.from(reply.payload)));
  assert.ok(result.status === 'accepted');
  await client.end();
  const id = deviceIdOf(publicKeyOf(seed));
  return { id, seed, cert: result.certificate, key: pkcs8PemFromSeed(seed), authority: claim.fleetCa };
}

async function ask(
  client: TestClient,
  device: Device,
  channel: 'time' | 'renew',
  body: object,
): Promise<Buffer> {
  const topic = deviceTopic(region, device.id, `${channel}/reply`);
  const before = client.received.all.length;
  await client.subscribe(topic);
  await client.publish(deviceTopic(region, device.id, channel), Buffer.from(encodeMessage(body)));
  const reply = await client.received.until(
    (one) => one.topic === topic && client.received.all.indexOf(one) >= before,
  );
  return Buffer.from(reply.payload);
}

/** The device with the certificate and the authority that it gets over this connection. */
async function renew(place: Place, client: TestClient, device: Device): Promise<Device> {
  const body = { ...head(), csr: await makeDeviceRequest(device.seed) };
  const { result } = unwrap(parseMessage(renewReplySchema, await ask(client, device, 'renew', body)));
  assert.ok(result.status === 'accepted', JSON.stringify(result));
  const regionRoot = unwrap(parseRegionRoot(await place.registry.parts.repository.regionRoot()));
  const list = unwrap(
    checkAuthorities({ envelope: result.authorities, regionRoot, region, heldIssuedAtMs: 0 }),
  );
  return { ...device, cert: result.certificate, authority: list.certificates[0] ?? '' };
}

const shown = (client: TestClient): X509Certificate => {
  const certificate = client.socket.getPeerX509Certificate();
  assert.ok(certificate);
  return certificate;
};

/** A broker of another maker, as far as TLS: its own certificate, our authorities and our lists. */
async function openForeignBroker(t: TestContext, folder: string) {
  const ca = await newAuthority('of another maker');
  const server = createServer({
    ...(await serverIdentity(ca)),
    ca: readFileSync(`${folder}/authorities.pem`),
    crl: readFileSync(`${folder}/revoked.crl.pem`, 'utf8'),
    requestCert: true,
    // Node would end the connection without a word; what OpenSSL made of the certificate is asked below.
    rejectUnauthorized: false,
    minVersion: 'TLSv1.3',
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  /** OpenSSL's word on the certificate; null where it is good. */
  return async ({ cert, key }: Credentials): Promise<string | null> => {
    const judged = new Promise<string | null>((resolve, reject) => {
      server.once('tlsClientError', reject);
      server.once('secureConnection', (socket) => {
        server.removeAllListeners('tlsClientError');
        resolve(socket.authorized ? null : String(socket.authorizationError));
        socket.destroy();
      });
    });
    const client = connectTls({ port, host: '127.0.0.1', ca: ca.certificatePem, cert, key });
    client.on('error', () => undefined);
    try {
      return await judged;
    } finally {
      client.destroy();
    }
  };
}

test('the authority is replaced under a connected device, from the command line', async (t) => {
  const place = await open(t);
  const { lepton } = place;
  const old = await enrol(place, await claimOf(place));
  const client = dial(place, old);
  assert.equal(await client.answer, 0);
  const list = async () => (await lepton(['authorities', 'list', '--json'])).json() as AuthorityView[];
  assert.deepEqual(
    (await list()).map(({ id, state, devices }) => [id, state, devices]),
    [['ca-1', 'issuing', 1]],
  );
  const { stderr } = await lepton(['authorities', 'retire', 'ca-1', '--force'], 1);
  assert.match(stderr, /conflict/);
  await lepton(['authorities', 'rotate']);
  const fresh = await renew(place, client, old);
  assert.notEqual(fresh.authority, old.authority);
  // Both are taken, and each is shown what it can check.
  const second = dial(place, fresh);
  assert.equal(await second.answer, 0);
  await client.closed; // one device, one connection
  assert.ok(shown(second).checkIssued(new X509Certificate(fresh.authority)));
  await second.end();
  const again = dial(place, old);
  assert.equal(await again.answer, 0);
  assert.ok(shown(again).checkIssued(new X509Certificate(old.authority)));

  await lepton(['authorities', 'retire', 'ca-1']);
  await again.closed;
  // It cannot check the broker any more; where it could, its certificate is worth nothing.
  assert.equal(await dial(place, old).answer, 'closed');
  assert.equal(await dial(place, { ...old, authority: fresh.authority }).answer, 'closed');
  const last = dial(place, fresh);
  assert.equal(await last.answer, 0);
  assert.deepEqual(
    (await list()).map(({ id, state, devices }) => [id, state, devices]),
    [
      ['ca-2', 'issuing', 1],
      ['ca-1', 'retired', 0],
    ],
  );

  // Revoked: out at once, and on the lists for brokers of other makers.
  await lepton(['devices', 'revoke', old.id]);
  await last.closed;
  const revoked = (await lepton(['devices', 'revoked', '--json'])).json() as RevokedDevice[];
  assert.deepEqual(
    revoked.map(({ id, status, certificates }) => [id, status, certificates.length]),
    [[old.id, 'revoked', 2]],
  );
  const out = place.path('broker');
  await lepton(['broker', 'files', '--out', out]);
  assert.match(readFileSync(`${out}/acl`, 'utf8'), /pattern write/);
  assert.match(readFileSync(`${out}/revoked.crl.pem`, 'utf8'), /BEGIN X509 CRL/);
  assert.equal(readFileSync(`${out}/authorities.pem`, 'utf8'), fresh.authority);
  assert.match(readFileSync(`${out}/mosquitto.conf`, 'utf8'), /^tls_version tlsv1.3$/m);
  const other = await enrol(place, await claimOf(place));
  const judged = await openForeignBroker(t, out);
  assert.equal(await judged(other), null);
  assert.equal(await judged(fresh), 'CERT_REVOKED');
  assert.notEqual(await judged(old), null, 'its authority was retired');
  const attacks = (await lepton(['events', '--attacks', '--json'])).json() as FleetEvent[];
  assert.ok(attacks.length > 0 && attacks.every((event) => event.attack));
  assert.ok(attacks.some((event) => event.code === 'broker-certificate-untrusted'));
});

test('a device that was off until its certificate expired gets time and a new one, and is back', async (t) => {
  const place = await open(t);
  const device = await enrol(place, await claimOf(place));
  place.ahead.ms = 400 * dayMs;
  const client = dial(place, device);
  assert.equal(await client.answer, 0);
  const nonce = '0'.repeat(32);
  const payload = await ask(client, device, 'time', { ...head(), nonce });
  const { envelope } = unwrap(parseMessage(signedMessageSchema, payload));
  const regionRoot = unwrap(parseRegionRoot(await place.registry.parts.repository.regionRoot()));
  const timeMs = unwrap(checkTime({ envelope, regionRoot, deviceId: device.id, region, nonce }));
  assert.ok(Math.abs(timeMs - Date.now() - place.ahead.ms) < 60_000);
  assert.deepEqual(await client.subscribe(deviceTopic(region, device.id, 'desired')), [128]);
  const view = async () => unwrap(await place.registry.parts.fleet.devices.show(device.id));
  assert.notEqual((await view()).presence, 'online');
  const fresh = await renew(place, client, device);
  const back = dial(place, fresh);
  assert.equal(await back.answer, 0);
  await client.closed;
  assert.deepEqual(await back.subscribe(deviceTopic(region, device.id, 'desired')), [1]);
  await until('it is online', async () => (await view()).presence === 'online');
  const events = (
    await place.lepton(['events', '--code', 'certificate-expired', '--json'])
  ).json() as FleetEvent[];
  assert.deepEqual(
    events.map(({ subject, attack }) => [subject, attack]),
    [[device.id, false]],
  );
  // Shut out while its certificate is expired as well.
  await back.end();
  place.ahead.ms = 800 * dayMs;
  const late = dial(place, fresh);
  assert.equal(await late.answer, 0);
  await place.lepton(['devices', 'revoke', device.id]);
  await late.closed;
  assert.equal(await dial(place, fresh).answer, 5);
});
