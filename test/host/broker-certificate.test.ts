// Why: a wrong date is the one thing about a broker's certificate that a device may look past, and only to ask the
// time. Everything else, with or without a wrong date beside it, is final before a byte of MQTT is sent.
// Trusts: real TLS servers with real certificates. Must never: wait without a limit.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createServer, type TLSSocket } from 'node:tls';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import {
  type CertificateAuthority,
  issueDeviceCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
} from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import {
  type BusStatus,
  type ConnectBusOptions,
  connectBus,
  type SessionScope,
} from '../../shared/host/mqtt.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { isFleetError } from '../broker/fault.ts';
import {
  Happenings,
  newAuthority,
  newDevice,
  randomSeed,
  recordingLog,
  region,
  startTestBroker,
} from '../broker/fleet.ts';

const dayMs = 86_400_000;
const now = Date.now();
const wide = { notBeforeMs: now - 9_000 * dayMs, notAfterMs: now + 9_000 * dayMs };
const dates = {
  good: { notBeforeMs: now - dayMs, notAfterMs: now + dayMs },
  over: { notBeforeMs: now - 20 * dayMs, notAfterMs: now - 10 * dayMs },
  early: { notBeforeMs: now + 10 * dayMs, notAfterMs: now + 20 * dayMs },
};

async function authorityNamed(name: string, validity = wide): Promise<CertificateAuthority> {
  const seed = randomSeed();
  return { seed, certificatePem: await makeCertificateAuthority({ seed, name, ...validity }) };
}

interface Server {
  port: number;
  /** Bytes of MQTT that it was sent. */
  bytes(): number;
  names: string[];
}

async function tlsServer(t: TestContext, key: string, cert: string): Promise<Server> {
  let bytes = 0;
  const names: string[] = [];
  const sockets = new Set<TLSSocket>();
  const server = createServer({ key, cert, minVersion: 'TLSv1.3' }, (socket) => {
    sockets.add(socket);
    names.push(String(socket.servername));
    socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return { port: address.port, bytes: () => bytes, names };
}

async function statusWith(
  t: TestContext,
  server: { port: number },
  ca: string,
  own: { cert: string; key: string },
  over: Partial<ConnectBusOptions> = {},
): Promise<{ status: BusStatus; admitted: number }> {
  const seen = new Happenings<BusStatus>();
  let admitted = 0;
  const bus = connectBus({
    url: `mqtts://127.0.0.1:${server.port}`,
    ca,
    ...own,
    clientId: 'x',
    clock: systemClock,
    entropy: systemEntropy,
    log: recordingLog().log,
    onStatus: (status) => seen.push(status),
    // Would let everything pass: what is refused here is refused before anybody is asked about dates.
    admit: () => {
      admitted += 1;
      return 'full';
    },
    reconnectBaseMs: 60_000,
    ...over,
  });
  t.after(() => bus.close());
  const timer = systemClock.timer(1_500);
  await Promise.race([seen.until(() => true), timer.done]);
  timer.cancel();
  await bus.close();
  return { status: seen.all[0] ?? 'disconnected', admitted };
}

test('whatever else is wrong is final, also where a wrong date stands before it', async (t) => {
  const ca = await authorityNamed('fleet');
  const twin = await authorityNamed('fleet');
  const foreign = await authorityNamed('foreign');
  const own = await newDevice(ca);
  const hosts = ['127.0.0.1', 'localhost'];
  const seed = randomSeed();
  const key = pkcs8PemFromSeed(seed);
  const cases: [string, (when: typeof dates.good) => Promise<{ key: string; cert: string }>][] = [
    [
      'another authority',
      async (when) => ({ key, cert: await issueServerCertificate({ ca: foreign, seed, hosts, ...when }) }),
    ],
    [
      'another authority of the same name',
      async (when) => ({ key, cert: await issueServerCertificate({ ca: twin, seed, hosts, ...when }) }),
    ],
    [
      'another host',
      async (when) => ({
        key,
        cert: await issueServerCertificate({ ca, seed, hosts: ['elsewhere.example'], ...when }),
      }),
    ],
    [
      'the name that is sent in TLS instead of the host',
      async (when) => ({
        key,
        cert: await issueServerCertificate({
          ca,
          seed,
          hosts: [authorityServerName(ca.certificatePem)],
          ...when,
        }),
      }),
    ],
    [
      'a device’s certificate, by which it would be a broker',
      async (when) => ({
        key,
        cert: await issueDeviceCertificate({
          ca,
          deviceId: deviceIdOf(publicKeyOf(seed)),
          publicKey: publicKeyOf(seed),
          ...when,
        }),
      }),
    ],
    [
      'signed by itself',
      async (when) => ({ key, cert: await makeCertificateAuthority({ seed, name: '127.0.0.1', ...when }) }),
    ],
  ];
  for (const [name, make] of cases) {
    for (const [when, validity] of Object.entries(dates)) {
      const shown = await make(validity);
      const server = await tlsServer(t, shown.key, shown.cert);
      const serverName = authorityServerName(ca.certificatePem);
      const { status, admitted } = await statusWith(t, server, ca.certificatePem, own, { serverName });
      assert.equal(
        typeof status === 'object' ? status.refused : status,
        'broker-server-untrusted',
        `${name}, ${when}`,
      );
      assert.equal(admitted, 0, `${name}, ${when}`);
      assert.equal(server.bytes(), 0, `${name}, ${when}: nothing was said to it`);
    }
  }
});

test('where only dates are wrong, the caller is asked, with the dates of leaf and authority together', async (t) => {
  const key = randomSeed();
  const short = await authorityNamed('short', { notBeforeMs: now - 5 * dayMs, notAfterMs: now - dayMs / 2 });
  const own = await newDevice(await newAuthority());
  const seen: { notBeforeMs: number; notAfterMs: number }[] = [];
  for (const validity of Object.values(dates)) {
    const cert = await issueServerCertificate({ ca: short, seed: key, hosts: ['127.0.0.1'], ...validity });
    const server = await tlsServer(t, pkcs8PemFromSeed(key), cert);
    const refusedByDate = await statusWith(t, server, short.certificatePem, own, {
      admit: (found) => {
        seen.push(found);
        return null;
      },
    });
    const { status } = refusedByDate;
    assert.equal(typeof status === 'object' ? status.refused : status, 'broker-server-untrusted');
    assert.equal(server.bytes(), 0);
  }
  assert.deepEqual(
    seen.map(({ notAfterMs }) => Math.round((notAfterMs - now) / (dayMs / 2))),
    [-1, -20, -1],
  );
  // Without a caller the wall clock decides.
  const cert = await issueServerCertificate({ ca: short, seed: key, hosts: ['127.0.0.1'], ...dates.good });
  const server = await tlsServer(t, pkcs8PemFromSeed(key), cert);
  const options: ConnectBusOptions = {
    url: `mqtts://127.0.0.1:${server.port}`,
    ca: short.certificatePem,
    cert: own.cert,
    key: own.key,
    clientId: 'x',
    clock: systemClock,
    entropy: systemEntropy,
    log: recordingLog().log,
    onStatus: (status) => heard.push(status),
  };
  const heard = new Happenings<BusStatus>();
  const bus = connectBus(options);
  await heard.until((status) => typeof status === 'object' && status.refused === 'broker-server-untrusted');
  await bus.close();
});

test('a limited session hears and says what it was admitted for, without a last will, and ends for a full one', async (t) => {
  const broker = await startTestBroker();
  t.after(() => broker.close());
  const device = await newDevice(broker.ca);
  const seen = new Happenings<BusStatus>();
  const time = deviceTopic(region, device.id, 'time');
  const timeReply = deviceTopic(region, device.id, 'time/reply');
  const scopes: SessionScope[] = [{ only: new Set([time, timeReply]) }, 'full'];
  const presence = deviceTopic(region, device.id, 'presence');
  const bus = connectBus({
    url: `mqtts://127.0.0.1:${broker.port}`,
    ca: broker.ca.certificatePem,
    cert: device.cert,
    key: device.key,
    clientId: device.id,
    will: { topic: presence, payload: Buffer.from('gone'), qos: 1, retain: true },
    clock: systemClock,
    entropy: systemEntropy,
    log: recordingLog().log,
    onStatus: (status) => seen.push(status),
    admit: () => scopes.shift() ?? 'full',
    reconnectBaseMs: 60_000,
  });
  t.after(() => bus.close());
  const heard = new Happenings<string>();
  const desired = deviceTopic(region, device.id, 'desired');
  await broker.bus.publish(desired, Buffer.from('kept'), { qos: 1, retain: true });
  await bus.subscribe(timeReply, ({ payload }) => heard.push(Buffer.from(payload).toString()));
  await bus.subscribe(desired, ({ payload }) => heard.push(Buffer.from(payload).toString()));
  await seen.until((status) => status === 'limited');
  assert.equal(bus.connected(), false);
  for (const channel of ['presence', 'reported', 'fetch', 'telemetry', 'result', 'renew'] as const) {
    const topic = deviceTopic(region, device.id, channel);
    await assert.rejects(
      bus.publish(topic, Buffer.from('x'), { qos: 1, retain: false }),
      isFleetError('bus-offline'),
      channel,
    );
  }
  await bus.publish(time, Buffer.from('what time is it'), { qos: 1, retain: false });
  await broker.bus.publish(timeReply, Buffer.from('late'), { qos: 1, retain: false });
  await heard.until((one) => one === 'late');
  assert.deepEqual(heard.all, ['late'], 'what is retained for it does not come');
  // Broken off: no will was left.
  bus.restart('now');
  await seen.until((status) => status === 'connected');
  await heard.until((one) => one === 'kept');
  assert.equal(bus.connected(), true);
  assert.deepEqual(
    broker.messages.all.map(({ payload }) => Buffer.from(payload).toString()),
    ['what time is it'],
  );
  await bus.close();
});

test('credentials change with the next connection, and the server name says which authority is trusted', async (t) => {
  const ca = await newAuthority();
  const seed = randomSeed();
  const cert = await issueServerCertificate({ ca, seed, hosts: ['127.0.0.1'], ...dates.good });
  const server = await tlsServer(t, pkcs8PemFromSeed(seed), cert);
  const own = await newDevice(ca);
  const credentials = { ca: ca.certificatePem, cert: own.cert, key: own.key };
  const bus = connectBus({
    ...credentials,
    url: `mqtts://127.0.0.1:${server.port}`,
    serverName: 'ca-one.lepton.internal',
    clientId: 'x',
    clock: systemClock,
    entropy: systemEntropy,
    log: recordingLog().log,
    onStatus: () => undefined,
  });
  t.after(() => bus.close());
  const until = async (count: number): Promise<void> => {
    while (server.names.length < count) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  await until(1);
  bus.use({ ...credentials, serverName: 'ca-two.lepton.internal' });
  bus.restart('now');
  await until(2);
  assert.deepEqual(server.names, ['ca-one.lepton.internal', 'ca-two.lepton.internal']);
});
