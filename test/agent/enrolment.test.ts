// Why: enrolment by claim against refusals, lies, silence and cuts: one key, one use.
// Trusts: the stand-in's broker and certificates, which are the real ones. Must never: wait without a limit.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { enrol } from '../../agent/bus/enrolment.ts';
import { makeCertificateRequest } from '../../agent/trust/certificate-request.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { readDeviceRequest } from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import type { AgentBus } from '../../shared/host/mqtt.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { silent } from './hand-clock.ts';
import { answerTo, deploy, refusalOf, scene, statusOf, until } from './scene.ts';

test('the request for a certificate is what the X.509 library reads, and only the key’s own', async () => {
  for (let first = 0; first < 20; first += 1) {
    const seed = new Uint8Array(32).fill(first + 1);
    const request = makeCertificateRequest(seed);
    const read = await readDeviceRequest(request);
    assert.ok(read.ok, read.ok ? '' : read.refusal.detail);
    assert.deepEqual(read.value.publicKey, publicKeyOf(seed));
    assert.equal(read.value.deviceId, deviceIdOf(publicKeyOf(seed)));
  }
  const der = Buffer.from(
    makeCertificateRequest(new Uint8Array(32).fill(9)).replace(/-----[^-]+-----/g, ''),
    'base64',
  );
  const broken = Buffer.from(der);
  broken[broken.length - 1] = (broken.at(-1) ?? 0) ^ 1;
  const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${broken.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
  const read = await readDeviceRequest(pem);
  assert.equal(read.ok ? 'accepted' : read.refusal.code, 'enrolment-request-invalid');
});

test('enrolment: each refusal has its code, and a local failure spends no claim', async (t) => {
  const { registry, folder, start } = await scene(t);
  assert.equal(await refusalOf(start()), 'enrolment-required');
  assert.equal(await refusalOf(start({ claim: await registry.claim({ expired: true }) })), 'claim-expired');

  const forged: ClaimFile = { ...(await registry.claim()), regionRootSha256: '0'.repeat(64) };
  assert.equal(await refusalOf(start({ claim: forged })), 'enrolment-root-mismatch');

  const used = await registry.claim();
  const before = registry.enrolRequests.length;
  assert.equal(
    await refusalOf(start({ claim: used, http: { host: '0.0.0.0', port: 0 } })),
    'listen-insecure',
  );
  assert.equal(registry.enrolRequests.length, before, 'nothing was asked before the local checks');
  const first = await start({ claim: used, stateFolder: join(folder, 'first') });
  assert.equal(await refusalOf(start({ claim: used, stateFolder: join(folder, 'second') })), 'claim-used-up');
  assert.equal(await refusalOf(start({ stateFolder: join(folder, 'first') })), 'state-locked');
  await first.stop();
});

test('attempts without an answer leave nothing behind on the signal that ends them', async (t) => {
  const { registry } = await scene(t);
  const claim = await registry.claim();
  const cut = new AbortController();
  const { signal } = cut;
  let attempts = 0;
  const most = { listeners: 0 };
  const enrolling = enrol({
    claim,
    seed: new Uint8Array(32).fill(5),
    labels: {},
    timezone: 'UTC',
    agent: { version: '0', runtime: '0', arch: 'x64' },
    connect: ({ onStatus }) => {
      attempts += 1;
      most.listeners = Math.max(most.listeners, getEventListeners(signal, 'abort').length);
      if (attempts === 30) cut.abort();
      queueMicrotask(() => onStatus({ refused: 'broker-unreachable', detail: 'nobody' }));
      return { ...silentBus };
    },
    clock: { ...systemClock, timer: () => systemClock.timer(0) },
    entropy: systemEntropy,
    log: silent,
    signal,
  });
  assert.equal(await refusalOf(enrolling), 'interrupted');
  assert.equal(attempts, 30);
  assert.ok(most.listeners <= 2, `${most.listeners} listeners`);
});

/** A line that never carries anything. */
const silentBus: AgentBus = {
  connected: () => false,
  publish: async () => undefined,
  subscribe: async () => ({ cancel: async () => undefined }),
  use: () => undefined,
  restart: () => undefined,
  close: async () => undefined,
};

test('an enrolment that is cut off goes on with the same key and spends one use', async (t) => {
  const { registry, start } = await scene(t);
  const claim = await registry.claim({ uses: 1 });
  // The registry enrols the device; its answer never arrives, and the power fails.
  registry.tamper.enrolReply = () => null;
  const cut = new AbortController();
  const starting = refusalOf(start({ claim, signal: cut.signal }));
  await until('it asked', () => registry.enrolRequests.length > 0);
  cut.abort();
  assert.equal(await starting, 'interrupted');

  delete registry.tamper.enrolReply;
  const agent = await start({ claim });
  assert.equal(new Set(registry.enrolRequests).size, 1, 'one key');
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
});

test('a certificate for another key is not taken', async (t) => {
  const { registry, folder, start } = await scene(t);
  const other = await registry.claim();
  let stolen: unknown = null;
  registry.tamper.enrolReply = (result) => {
    stolen ??= result['certificate'];
    return { ...result, certificate: stolen };
  };
  const first = await start({ claim: other, stateFolder: join(folder, 'first') });
  await first.stop();
  const code = await refusalOf(start({ claim: await registry.claim(), stateFolder: join(folder, 'second') }));
  assert.equal(code, 'enrolment-certificate-invalid');
});

test('it waits for a registry that is not there yet', async (t) => {
  const { registry, lines, start } = await scene(t);
  const claim = await registry.claim();
  await registry.stop();
  const starting = start({ claim });
  await until('it tried', () => lines.some((line) => line.event === 'agent.enrolment.retry'));
  await registry.start();
  const agent = await starting;
  await until('it is online', () => registry.connected().includes(agent.deviceId));
});

test('re-enrolment makes a new device that keeps serving; cut off, it is not made twice', async (t) => {
  const { registry, lines, start } = await scene(t);
  const first = await start({ claim: await registry.claim() });
  await deploy(registry, first, 'acme/tiny@1.0.0', 2);
  await first.stop();

  const claim = await registry.claim();
  const second = await start({ claim, reEnroll: true });
  assert.notEqual(second.deviceId, first.deviceId);
  assert.equal((await answerTo(second)).status, 200);
  assert.equal((await statusOf(second)).epoch, 0);
  await second.stop();
  assert.equal(lines.filter((line) => line.event === 'agent.enrolled').length, 2);

  // Without the flag, a claim that is given again changes nothing.
  const third = await start({ claim });
  assert.equal(third.deviceId, second.deviceId);
});
