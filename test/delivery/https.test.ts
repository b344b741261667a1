// Why: holds the promise that devices download over HTTPS on the broker's port as over MQTT: same certificates, same
// rights, same turns, ranges to the byte, and no patience with whoever only pretends to ask.
// Trusts: Node's TLS and HTTP as the device's side. Must never: wait for a fixed time, or check prose.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { request as httpsRequest } from 'node:https';
import { type TestContext, test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { parseRange } from '../../registry/api/byte-range.ts';
import { createDeviceBlobs } from '../../registry/api/device-blobs.ts';
import { type Registry, startRegistry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import { newClient, newDevice, startTestBroker } from '../broker/fleet.ts';
import { addDevice, type DownloadingDevice, releaseWith } from '../support/downloading.ts';
import { until, workplace } from '../support/processes.ts';

const MiB = 1024 * 1024;
const releaseId = 'acme/big@1.0.0';

test('ranges as RFC 9110 has them', () => {
  const rows: [string | undefined, ReturnType<typeof parseRange>][] = [
    [undefined, null],
    ['bytes=0-99', { from: 0, until: 100 }],
    ['bytes=10-', { from: 10, until: 1_000 }],
    ['bytes=-10', { from: 990, until: 1_000 }],
    ['bytes=-5000', { from: 0, until: 1_000 }],
    ['bytes=990-5000', { from: 990, until: 1_000 }],
    ['bytes=1000-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-4', null],
    ['bytes=-', null],
    ['bytes=0-1,5-6', null],
    ['lines=0-1', null],
    ['bytes=99999999999999999999-', null],
  ];
  for (const [header, range] of rows) assert.deepEqual(parseRange(header, 1_000), range, header);
  assert.equal(parseRange('bytes=0-', 0), 'unsatisfiable');
});

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

const tlsOf = (port: number, device: Pick<DownloadingDevice, 'cert' | 'key' | 'authority'>) => ({
  ...{ host: '127.0.0.1', port, servername: 'localhost', ca: device.authority },
  ...{ cert: device.cert, key: device.key, ALPNProtocols: ['http/1.1'] },
});

function get(
  port: number,
  device: DownloadingDevice,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = httpsRequest(
      { ...tlsOf(port, device), path, method, headers, agent: false },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
          }),
        );
      },
    );
    asked.on('error', reject);
    asked.end();
  });
}

async function open(t: TestContext): Promise<{ registry: Registry; port: number }> {
  const place = workplace('https');
  t.after(() => place.close());
  const address = { host: '127.0.0.1', port: 0 };
  const registry = await startRegistry({
    ...{
      dataFolder: place.path('registry'),
      region: 'eu-west',
      http: address,
      mqtt: address,
      version: '0.0.0-test',
    },
    ...{ clock: systemClock, entropy: systemEntropy, log: openLog({ level: 'error' }), encoder: null },
    limits: { downloadsMax: 1, downloadWaitMs: 200, downloadTurnMs: 3_600_000 },
  });
  place.onClose(() => registry.stop());
  return { registry, port: Number(new URL(registry.mqttUrl).port) };
}

test('files come whole and in ranges, to whom they are assigned, one device at a time, until it is revoked', async (t) => {
  const { registry, port } = await open(t);
  const file = randomBytes(3 * MiB + 17);
  const sha256 = await releaseWith(registry, releaseId, file);
  const device = await addDevice(registry, releaseId);
  const stranger = await addDevice(registry, null);
  const path = `/v1/device/blobs/${sha256}`;

  const whole = await get(port, device, path);
  assert.deepEqual(
    [whole.status, whole.headers['accept-ranges'], whole.body.length],
    [200, 'bytes', file.length],
  );
  assert.equal(sha256Hex(whole.body), sha256);
  const part = await get(port, device, path, { range: `bytes=${MiB - 5}-${2 * MiB + 4}` });
  assert.equal(part.status, 206);
  assert.equal(part.headers['content-range'], `bytes ${MiB - 5}-${2 * MiB + 4}/${file.length}`);
  assert.equal(Buffer.compare(part.body, file.subarray(MiB - 5, 2 * MiB + 5)), 0);
  const rest = await get(port, device, path, { range: `bytes=${3 * MiB}-`, 'if-range': `"${sha256}"` });
  assert.equal(Buffer.compare(rest.body, file.subarray(3 * MiB)), 0);
  const head = await get(port, device, path, {}, 'HEAD');
  assert.deepEqual(
    [head.status, head.headers['content-length'], head.body.length],
    [200, `${file.length}`, 0],
  );

  const codeOf = ({ status, headers, body }: Answer): [number, string] => {
    assert.equal(headers['content-type'], 'application/problem+json');
    const { code } = JSON.parse(body.toString()) as { code: string };
    return [status, code];
  };
  const beyond = await get(port, device, path, { range: `bytes=${file.length}-` });
  assert.deepEqual(codeOf(beyond), [416, 'fetch-range']);
  assert.equal(beyond.headers['content-range'], `bytes */${file.length}`);
  assert.deepEqual(codeOf(await get(port, stranger, path)), [403, 'fetch-denied']);
  assert.deepEqual(codeOf(await get(port, device, `/v1/device/blobs/${'0'.repeat(64)}`)), [
    403,
    'fetch-denied',
  ]);
  assert.deepEqual(codeOf(await get(port, device, '/api/v1/models')), [404, 'not-found']);
  assert.deepEqual(codeOf(await get(port, device, path, {}, 'DELETE')), [405, 'method-not-allowed']);

  // One device has the only turn and reads nothing; the next is told to come again, with the time.
  const other = await addDevice(registry, releaseId);
  const big = await asking(port, device, path);
  await until('it downloads', () => registry.parts.fleet.counters().downloads.downloading === 1);
  const busy = await get(port, other, path);
  assert.deepEqual(codeOf(busy), [503, 'fetch-busy']);
  assert.equal(busy.headers['retry-after'], '1');

  const gone = new Promise<void>((resolve) => big.once('close', () => resolve()));
  await registry.parts.fleet.devices.revoke(device.id, 'tester');
  big.resume();
  await gone;
  await assert.rejects(get(port, device, path), 'a revoked device gets no answer');
  await until('the turn is free', async () => (await get(port, other, path)).status === 200);
});

/** A connection that asked and reads nothing. */
function asking(port: number, device: DownloadingDevice, path: string): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls(tlsOf(port, device), () => {
      socket.pause();
      socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`);
      resolve(socket);
    });
    socket.once('error', reject);
  });
}

test('who may not come is not answered, who does not ask is ended, MQTT goes on beside', async (t) => {
  const log = { emit: () => undefined };
  const downloads = {
    find: async () => 'denied' as const,
    send: async () => 'sent' as const,
    counters: () => assert.fail(),
    stop: () => undefined,
  };
  const deviceBlobs = createDeviceBlobs({
    downloads,
    mayConnect: async () => true,
    log,
    headMs: 300,
    idleMs: 300,
  });
  const broker = await startTestBroker({ acceptHttp: deviceBlobs.accept });
  t.after(() => broker.close());
  t.after(() => deviceBlobs.close());
  const authority = broker.ca.certificatePem;
  const closed = (
    credentials: { cert: string; key: string },
    ask: (socket: TLSSocket) => void,
  ): Promise<void> =>
    new Promise((resolve) => {
      const socket = connectTls(tlsOf(broker.port, { ...credentials, authority }), () => ask(socket));
      socket.on('error', () => undefined);
      socket.resume();
      socket.once('close', () => resolve());
    });
  const device = await newDevice(broker.ca);
  const expired = await newDevice(broker.ca, { from: -7_200_000, to: -3_600_000 });
  // Nothing, a head that never ends, one that is too long, and one after a good request.
  await closed(device, () => undefined);
  await closed(device, (socket) => {
    socket.write('GET / HTTP/1.1\r\n');
    const dribble = setInterval(() => socket.write('a: b\r\n'), 50);
    socket.once('close', () => clearInterval(dribble));
  });
  await closed(device, (socket) => socket.write(`GET / HTTP/1.1\r\nlong: ${'x'.repeat(20_000)}\r\n\r\n`));
  await closed(device, (socket) => {
    socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    const dribble = setInterval(() => socket.write('GET / HTTP/1.1\r\na'), 50);
    socket.once('close', () => clearInterval(dribble));
  });
  await closed(expired, (socket) => socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'));
  assert.ok(
    broker.refusals.all.some(
      ({ code, subject }) => code === 'broker-not-authorized' && subject === expired.id,
    ),
  );
  const client = newClient(broker.port, authority, device, device.id);
  assert.equal(await client.answer, 0);
  await client.end();
});
