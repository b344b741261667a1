// Why: the registry as a whole, in this process but over its real ports: TLS MQTT and HTTP, start to restart.
// Trusts: nothing it did not start. Must never: leave a port or a folder behind.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { get } from 'node:https';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { type Registry, type RegistryOptions, startRegistry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import {
  issueServerCertificate,
  makeCertificateAuthority,
  makeDeviceRequest,
} from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { type AgentBus, connectBus } from '../../shared/host/mqtt.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import {
  modelSchema,
  problemSchema,
  publisherSchema,
  registryInfoSchema,
  releasePushedSchema,
  tokenCreatedSchema,
} from '../../shared/wire/http.ts';
import { encodeMessage, enrolReplySchema, parseMessage } from '../../shared/wire/messages.ts';
import {
  enrolClientId,
  enrolReplyTopic,
  enrolRequestTopic,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import {
  countedEntropy,
  dayMs,
  heardLog,
  hexOf,
  identityModel,
  preparePush,
  publisherKey,
  temporaryFolder,
} from './support.ts';

const loopback = { host: '127.0.0.1', port: 0 };

function options(dataFolder: string, more: Partial<RegistryOptions> = {}): RegistryOptions {
  return {
    dataFolder,
    region: 'test',
    http: loopback,
    mqtt: loopback,
    version: '0.0.0-test',
    clock: systemClock,
    entropy: systemEntropy,
    log: heardLog(),
    ...more,
  };
}

async function started(
  t: TestContext,
  dataFolder: string,
  more: Partial<RegistryOptions> = {},
): Promise<Registry> {
  const registry = await startRegistry(options(dataFolder, more));
  t.after(() => registry.stop());
  return registry;
}

type Ask = (
  method: string,
  path: string,
  body?: object | Uint8Array,
  token?: string | null,
) => Promise<Response>;

function asking(registry: Registry): Ask {
  return (method, path, body, token = registry.adminToken) => {
    const bytes = body instanceof Uint8Array;
    const init: RequestInit = {
      method,
      headers: {
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined
          ? {}
          : { 'content-type': bytes ? 'application/octet-stream' : 'application/json' }),
      },
    };
    if (body !== undefined) init.body = bytes ? Buffer.from(body) : JSON.stringify(body);
    return fetch(`${registry.httpUrl}${path}`, init);
  };
}

async function codeOf(response: Response): Promise<string> {
  assert.equal(response.headers.get('content-type'), 'application/problem+json');
  const problem = problemSchema.parse(await response.json());
  assert.equal(problem.status, response.status);
  return problem.code;
}

async function faultOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return error instanceof FleetError ? error.code : String(error);
  }
  return 'no fault';
}

test('start, restart on the same ports, same identity; the admin token is private', async (t) => {
  const folder = temporaryFolder(t);
  const first = await startRegistry(options(folder));
  const { httpUrl, mqttUrl, adminToken } = first;
  const ask = asking(first);
  const info = registryInfoSchema.parse(await (await ask('GET', '/api/v1/registry')).json());
  assert.equal(info.http, httpUrl);
  assert.equal(info.mqtt, mqttUrl);
  assert.equal(info.keys, 'development');
  assert.match(mqttUrl, /^mqtts:\/\/127\.0\.0\.1:\d+$/);
  const file = join(folder, 'admin.token');
  assert.equal(readFileSync(file, 'utf8').trim(), adminToken);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(join(folder, 'keys', 'root-1.pem')).mode & 0o777, 0o600);
  assert.equal(await faultOf(startRegistry(options(folder))), 'state-locked');
  await first.stop();
  await first.stop();
  await assert.rejects(fetch(`${httpUrl}/healthz`));

  const second = await started(t, folder);
  assert.equal(second.httpUrl, httpUrl);
  assert.equal(second.mqttUrl, mqttUrl);
  assert.equal(second.adminToken, adminToken);
  const again = registryInfoSchema.parse(await (await asking(second)('GET', '/api/v1/registry')).json());
  assert.deepEqual(again, info);
});

test('a start that cannot work says why and holds nothing afterwards', async (t) => {
  const folder = temporaryFolder(t);
  assert.equal(
    await faultOf(startRegistry(options(folder, { http: { host: '0.0.0.0', port: 0 } }))),
    'listen-insecure',
  );
  const other = createServer();
  await new Promise<void>((resolve) => {
    other.listen(0, '127.0.0.1', resolve);
  });
  t.after(() => other.close());
  const address = other.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  assert.equal(
    await faultOf(startRegistry(options(folder, { http: { host: '127.0.0.1', port } }))),
    'port-in-use',
  );
  assert.equal(
    await faultOf(startRegistry(options(folder, { mqtt: { host: '127.0.0.1', port } }))),
    'port-in-use',
  );
  assert.equal(
    await faultOf(startRegistry(options(folder, { httpTls: { cert: 'no', key: 'pem' } }))),
    'config-invalid',
  );
  // The folder is free again, and is the registry of its first region for ever.
  assert.equal(await faultOf(startRegistry(options(folder, { region: 'elsewhere' }))), 'config-invalid');
  const registry = await started(t, folder);
  assert.equal((await fetch(`${registry.httpUrl}/readyz`)).status, 200);
});

test('access: no token, a wrong one, too little, bound elsewhere', async (t) => {
  const registry = await started(t, temporaryFolder(t));
  const ask = asking(registry);
  assert.equal((await ask('GET', '/healthz', undefined, null)).status, 200);
  const missing = await ask('GET', '/api/v1/models', undefined, null);
  assert.equal(missing.status, 401);
  assert.match(missing.headers.get('www-authenticate') ?? '', /^Bearer/);
  assert.equal(await codeOf(missing), 'token-missing');
  assert.equal(await codeOf(await ask('GET', '/api/v1/models', undefined, 'lepton_nobody')), 'token-invalid');

  const make = async (body: object) =>
    tokenCreatedSchema.parse(await (await ask('POST', '/api/v1/tokens', body)).json());
  const viewer = await make({ user: 'vera', role: 'viewer' });
  assert.equal((await ask('GET', '/api/v1/models', undefined, viewer.token)).status, 200);
  assert.equal(await codeOf(await ask('GET', '/api/v1/tokens', undefined, viewer.token)), 'role-forbidden');
  const publisher = await make({ user: 'pat', role: 'publisher', namespace: 'acme', ttlMs: 60_000 });
  const key = { keys: [hexOf(publisherKey('pat'))], threshold: 1 };
  assert.equal(
    await codeOf(await ask('PUT', '/api/v1/publishers/other', key, publisher.token)),
    'namespace-forbidden',
  );
  // A free namespace may be taken once; after that it is the admin's to change.
  assert.equal((await ask('PUT', '/api/v1/publishers/acme', key, publisher.token)).status, 200);
  assert.equal(
    await codeOf(await ask('PUT', '/api/v1/publishers/acme', key, publisher.token)),
    'role-forbidden',
  );
  const listed = await ask('GET', '/api/v1/tokens');
  assert.equal((await listed.text()).includes(publisher.token), false);

  assert.equal((await ask('DELETE', `/api/v1/tokens/${viewer.id}`, {})).status, 200);
  assert.equal(await codeOf(await ask('GET', '/api/v1/models', undefined, viewer.token)), 'token-invalid');
});

test('bad requests are problems with a code, never a stack', async (t) => {
  const registry = await started(t, temporaryFolder(t));
  const ask = asking(registry);
  assert.equal(await codeOf(await ask('GET', '/nothing')), 'not-found');
  assert.equal(
    await codeOf(await ask('POST', '/api/v1/tokens', { user: 'NOT A NAME', role: 'viewer' })),
    'input-invalid',
  );
  const malformed = await fetch(`${registry.httpUrl}/api/v1/tokens`, {
    method: 'POST',
    headers: { authorization: `Bearer ${registry.adminToken}`, 'content-type': 'application/json' },
    body: '{"user": ',
  });
  assert.equal(await codeOf(malformed), 'input-invalid');
  assert.equal(await codeOf(await ask('GET', '/api/v1/metadata/..%2Fregistry.sqlite')), 'metadata-missing');
  assert.equal(await codeOf(await ask('GET', `/api/v1/blobs/${'0'.repeat(64)}`)), 'not-found');
  assert.equal(await codeOf(await ask('GET', '/api/v1/models/acme/none')), 'not-found');
  assert.equal(await codeOf(await ask('GET', '/api/v1/publishers/none')), 'namespace-unknown');
  assert.equal(await codeOf(await ask('GET', '/api/v1/publishers/none/pending')), 'not-found');
  const huge = new Uint8Array(17 * 1024 * 1024);
  assert.equal(
    await codeOf(await ask('POST', '/api/v1/releases', { metadata: Buffer.from(huge).toString('base64') })),
    'body-too-large',
  );
  assert.equal(
    await codeOf(await ask('PUT', `/api/v1/blobs/${'0'.repeat(64)}`, huge)),
    'blob-digest-mismatch',
  );
  assert.equal(
    await codeOf(await ask('PUT', `/api/v1/blobs/${'0'.repeat(64)}`, huge, null)),
    'token-missing',
  );
});

test('a push over HTTP: upload, sign, list, download', async (t) => {
  const log = heardLog();
  const registry = await started(t, temporaryFolder(t), { log });
  const ask = asking(registry);
  const key = publisherKey('acme');
  const publisher = publisherSchema.parse(
    await (await ask('PUT', '/api/v1/publishers/acme', { keys: [hexOf(key)], threshold: 1 })).json(),
  );
  assert.deepEqual([publisher.metadataVersion, publisher.versionFloor, publisher.counterFloors], [0, 0, {}]);
  const model = identityModel('http');
  const push = preparePush({
    releaseId: 'acme/echo@1.0.0',
    model,
    current: null,
    counter: 1,
    signers: [key],
    expiresAtMs: systemClock.wall() + 365 * dayMs,
  });
  const blob = `/api/v1/blobs/${sha256Hex(model)}`;
  assert.equal((await ask('HEAD', blob)).status, 404);
  assert.equal((await ask('PUT', blob, model)).status, 201);
  assert.equal((await ask('PUT', blob, model)).status, 200);
  const head = await ask('HEAD', blob);
  assert.equal(head.status, 200);
  assert.equal(head.headers.get('content-length'), String(model.length));
  const body = {
    releaseId: push.releaseId,
    metadata: Buffer.from(push.metadata).toString('base64'),
    manifest: Buffer.from(push.manifest).toString('base64'),
  };
  const pushed = await ask('POST', '/api/v1/releases', body);
  assert.equal(pushed.status, 201);
  const outcome = releasePushedSchema.parse(await pushed.json());
  assert.equal(outcome.digest, sha256Hex(push.manifest));

  const shown = modelSchema.parse(await (await ask('GET', '/api/v1/models/acme/echo')).json());
  assert.equal(shown.versions[0]?.digest, outcome.digest);
  const metadata = await ask('GET', '/api/v1/metadata/1.acme.json');
  assert.deepEqual(Buffer.from(await metadata.arrayBuffer()), Buffer.from(push.metadata));
  assert.equal((await ask('GET', '/api/v1/metadata/region/1.root.json')).status, 200);
  assert.equal(
    log.events.some(({ event }) => event === 'release.accepted'),
    true,
  );
  assert.equal(JSON.stringify(log.events).includes(registry.adminToken), false);
});

/** Connects with a certificate of the fleet, and again whenever the connection is lost. */
function connected(
  t: TestContext,
  identity: { url: string; ca: string; cert: string; key: string; clientId: string },
): { bus: AgentBus; ready: Promise<void> } {
  let isReady: () => void = () => undefined;
  const ready = new Promise<void>((resolve) => {
    isReady = resolve;
  });
  const bus = connectBus({
    ...identity,
    clock: systemClock,
    entropy: systemEntropy,
    log: heardLog(),
    onStatus: (status) => {
      if (status === 'connected') isReady();
    },
    reconnectBaseMs: 20,
    reconnectMaxMs: 100,
  });
  t.after(() => bus.close());
  return { bus, ready };
}

test('a device enrols with a claim and hears the doorbell, also after the registry restarted', {
  timeout: 60_000,
}, async (t) => {
  const folder = temporaryFolder(t);
  const first = await startRegistry(options(folder));
  let running = first;
  t.after(() => running.stop());
  const ask = asking(first);
  const claim = claimFileSchema.parse(
    await (await ask('POST', '/api/v1/claims', { labels: { site: 'a' } })).json(),
  );
  const attempt = 'attempt1';
  const enrolling = connected(t, {
    url: claim.brokerUrl,
    ca: claim.fleetCa,
    cert: claim.certificate,
    key: claim.privateKey,
    clientId: enrolClientId(claim.claimId, attempt),
  });
  const seed = systemEntropy.bytes(32);
  let answered: (payload: Uint8Array) => void = () => undefined;
  const reply = new Promise<Uint8Array>((resolve) => {
    answered = resolve;
  });
  await enrolling.bus.subscribe(enrolReplyTopic('test', claim.claimId, attempt), ({ payload }) =>
    answered(payload),
  );
  await enrolling.ready;
  const request = {
    schemaVersion: 1,
    messageId: 'm1',
    sentAtMs: systemClock.wall(),
    csr: await makeDeviceRequest(seed),
    labels: {},
    timezone: 'UTC',
    agent: { version: '0', runtime: 'test', arch: 'x64' },
  };
  await enrolling.bus.publish(enrolRequestTopic('test', claim.claimId, attempt), encodeMessage(request), {
    qos: 1,
    retain: false,
  });
  const { result } = unwrap(parseMessage(enrolReplySchema, await reply));
  assert.equal(result.status, 'accepted');
  assert.ok(result.status === 'accepted');
  assert.equal(sha256Hex(Buffer.from(result.catalogueRoot, 'base64')), claim.catalogueRootSha256);
  await enrolling.bus.close();

  const device = connected(t, {
    url: claim.brokerUrl,
    ca: claim.fleetCa,
    cert: result.certificate,
    key: pkcs8PemFromSeed(seed),
    clientId: result.deviceId,
  });
  const heard: Uint8Array[] = [];
  const waiting = new Set<() => void>();
  await device.bus.subscribe(tufTimestampTopic('test'), ({ payload }) => {
    heard.push(payload);
    for (const look of waiting) look();
  });
  const hears = (bytes: Uint8Array): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (!heard.some((one) => Buffer.from(one).equals(bytes))) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });
  const timestamp = async (registry: Registry): Promise<Uint8Array> =>
    (await registry.parts.repository.file('timestamp.json')) ?? new Uint8Array();
  await hears(await timestamp(first));

  // A new delegation signs a new timestamp, and everybody is told.
  const put = await ask('PUT', '/api/v1/publishers/acme', {
    keys: [hexOf(publisherKey('acme'))],
    threshold: 1,
  });
  assert.equal(put.status, 200);
  await hears(await timestamp(first));

  await first.stop();
  heard.length = 0;
  running = await startRegistry(options(folder));
  assert.equal(running.mqttUrl, first.mqttUrl);
  await hears(await timestamp(running));
});

test('with a certificate the API speaks HTTPS, and the address says so', async (t) => {
  const nowMs = systemClock.wall();
  const dates = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + dayMs };
  const caSeed = systemEntropy.bytes(32);
  const ca = await makeCertificateAuthority({ seed: caSeed, name: 'test', ...dates });
  const seed = systemEntropy.bytes(32);
  const cert = await issueServerCertificate({
    ca: { certificatePem: ca, seed: caSeed },
    seed,
    hosts: ['127.0.0.1'],
    ...dates,
  });
  const registry = await started(t, temporaryFolder(t), { httpTls: { cert, key: pkcs8PemFromSeed(seed) } });
  assert.match(registry.httpUrl, /^https:/);
  const status = await new Promise<number | undefined>((resolve, reject) => {
    get(`${registry.httpUrl}/healthz`, { ca, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    }).on('error', reject);
  });
  assert.equal(status, 200);
});

test('a stop lets the upload under way end, and it is there after the restart', async (t) => {
  const folder = temporaryFolder(t);
  const first = await startRegistry(options(folder));
  const bytes = countedEntropy('drained').bytes(200_000);
  const path = `/api/v1/blobs/${sha256Hex(bytes)}`;
  let go: () => void = () => undefined;
  const stopping = new Promise<void>((resolve) => {
    go = resolve;
  });
  async function* halves(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 100_000);
    await stopping;
    yield bytes.subarray(100_000);
  }
  const upload = fetch(`${first.httpUrl}${path}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${first.adminToken}` },
    body: ReadableStream.from(halves()),
    duplex: 'half',
  });
  // The registry has the request once its first bytes stand on the disk.
  while (!readdirSync(join(folder, 'blobs')).some((name) => name.endsWith('.unverified'))) {
    await systemClock.timer(5).done;
  }
  const stopped = first.stop();
  go();
  assert.equal((await upload).status, 201);
  await stopped;
  const second = await started(t, folder);
  assert.equal((await asking(second)('HEAD', path)).status, 200);
});

test('a file of several megabytes goes up and comes down unchanged', async (t) => {
  const registry = await started(t, temporaryFolder(t));
  const ask = asking(registry);
  const bytes = countedEntropy('big').bytes(5_000_003);
  const path = `/api/v1/blobs/${sha256Hex(bytes)}`;
  assert.equal((await ask('PUT', path, bytes)).status, 201);
  assert.deepEqual(new Uint8Array(await (await ask('GET', path)).arrayBuffer()), bytes);
});

test('the OpenAPI document is 3.1 and names every route that is served', async (t) => {
  const registry = await started(t, temporaryFolder(t));
  const response = await fetch(`${registry.httpUrl}/api/v1/openapi.json`);
  assert.equal(response.status, 200);
  const document = z
    .object({ openapi: z.string(), paths: z.record(z.string(), z.record(z.string(), z.unknown())) })
    .parse(await response.json());
  assert.equal(document.openapi, '3.1.0');
  for (const [path, method] of [
    ['/api/v1/tokens', 'post'],
    ['/api/v1/tokens/{id}', 'delete'],
    ['/api/v1/publishers/{namespace}', 'put'],
    ['/api/v1/publishers/{namespace}/pending', 'get'],
    ['/api/v1/publishers/{namespace}/metadata', 'post'],
    ['/api/v1/blobs/{sha256}', 'put'],
    ['/api/v1/metadata/{name}', 'get'],
    ['/api/v1/releases', 'post'],
    ['/api/v1/models/{namespace}/{name}', 'get'],
    ['/api/v1/registry', 'get'],
    ['/api/v1/claims', 'post'],
    ['/api/v1/devices', 'get'],
    ['/api/v1/events', 'get'],
    ['/api/v1/rollouts', 'post'],
  ] as const) {
    assert.ok(document.paths[path]?.[method], `${method} ${path}`);
  }
  const metrics = await (await fetch(`${registry.httpUrl}/metrics`)).text();
  assert.match(metrics, /^lepton_registry_info\{region="test"/m);
  assert.match(metrics, /^lepton_releases 0$/m);
});
