// Why: what each session of a device may be used for, in which order they are tried, with which credentials.
// Trusts: a bus whose events are given by hand. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Line, type LineParts, openLine } from '../../agent/bus/line.ts';
import type { TrustedClock } from '../../agent/trust/clock.ts';
import type { Identity } from '../../agent/trust/identity.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { issueDeviceCertificate, makeCertificateAuthority } from '../../shared/host/certificates.ts';
import type { BusStatus, ConnectBusOptions, Restart, SessionScope } from '../../shared/host/mqtt.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { countingEntropy, handClock, settle, silent } from './hand-clock.ts';

const dayMs = 86_400_000;
const goodDates = { notBeforeMs: 0, notAfterMs: 10 * dayMs };
const seed = new Uint8Array(32).fill(5);
const deviceId = deviceIdOf(publicKeyOf(seed));

async function identityWith(parts: Partial<Identity> = {}): Promise<Identity> {
  const caSeed = new Uint8Array(32).fill(6);
  const validity = { notBeforeMs: 0, notAfterMs: 20 * dayMs };
  const certificatePem = await makeCertificateAuthority({ seed: caSeed, name: 'ca', ...validity });
  const publicKey = publicKeyOf(seed);
  const certificate = await issueDeviceCertificate({
    ca: { seed: caSeed, certificatePem },
    deviceId,
    publicKey,
    notBeforeMs: 0,
    notAfterMs: 5 * dayMs,
  });
  return {
    seed,
    deviceId,
    certificate,
    region: 'eu',
    brokerUrl: 'mqtts://broker:1',
    fleetCa: certificatePem,
    labels: {},
    telemetryEpoch: 1,
    claimId: 'c',
    settled: true,
    authoritiesIssuedAtMs: 0,
    proven: null,
    ...parts,
  };
}

interface Scene {
  line: Line;
  options: ConnectBusOptions;
  restarts: Restart[];
  /** `cert` of each change of credentials. */
  used: string[];
  limited: { session: string; denied: number }[];
  answer: { next: Restart; renewed: boolean };
  refused: string[];
  proven: number;
  published: string[];
  signed: { nowMs: number; ageMs: number } | null;
  admit(dates?: { notBeforeMs: number; notAfterMs: number }): SessionScope | null;
  status(status: BusStatus): Promise<void>;
}

async function open(identity: Identity): Promise<Scene> {
  const clock = handClock();
  let options: ConnectBusOptions | null = null;
  let connected = false;
  const scene: Omit<Scene, 'line' | 'options'> = {
    restarts: [],
    used: [],
    limited: [],
    answer: { next: 'now', renewed: false },
    refused: [],
    proven: 0,
    published: [],
    signed: null,
    admit: (dates = goodDates) => options?.admit?.(dates) ?? null,
    status: async (status) => {
      connected = status === 'connected';
      options?.onStatus(status);
      await settle();
    },
  };
  const nobody = (): never => assert.fail('not asked for');
  const time: TrustedClock = {
    nowMs: nobody,
    floorMs: nobody,
    source: nobody,
    answered: nobody,
    proven: nobody,
    follow: nobody,
    signed: () => scene.signed,
  };
  const parts: LineParts = {
    identity: () => identity,
    time,
    connect: (given) => {
      options = given;
      return {
        connected: () => connected,
        publish: async (topic) => void scene.published.push(topic),
        subscribe: async () => ({ cancel: async () => undefined }),
        use: ({ cert }) => scene.used.push(cert),
        restart: (when) => scene.restarts.push(when),
        close: async () => undefined,
      };
    },
    onBytes: () => undefined,
    onDesired: () => undefined,
    onTimestamp: () => undefined,
    onTelemetryAnswer: () => undefined,
    onTimeAnswer: () => undefined,
    onRenewal: () => undefined,
    onUp: () => undefined,
    onDown: () => undefined,
    onLimited: async (session, { denied }) => {
      scene.limited.push({ session, denied });
      return scene.answer;
    },
    onProven: () => {
      scene.proven += 1;
    },
    onRefused: (code) => scene.refused.push(code),
    clock,
    entropy: countingEntropy(),
    log: silent,
  };
  const line = await openLine(parts);
  return Object.assign(scene, { line, options: options ?? assert.fail() });
}

const topicsOf = (scope: SessionScope | null): string[] | string | null =>
  scope === null || scope === 'full'
    ? scope
    : [...scope.only].map((topic) => topic.slice(deviceTopic('eu', deviceId, 'time').length - 4)).sort();
const timeTopics = ['time', 'time/reply'];
const renewalTopics = ['renew', 'renew/reply', 'time', 'time/reply'];
const denial: BusStatus = { refused: 'broker-not-authorized', detail: '' };

test('good dates are a full session, bad ones one for the time alone, and verified ones that do not hold none', async () => {
  const scene = await open(await identityWith());
  assert.equal(scene.admit(), 'full');
  assert.deepEqual(topicsOf(scene.admit({ notBeforeMs: 5_000, notAfterMs: 6_000 })), timeTopics);
  scene.signed = { nowMs: 11 * dayMs, ageMs: 1 };
  assert.equal(scene.admit(), null);
  assert.equal(scene.options.serverName, authorityServerName(scene.options.ca));
});

test('time that was had is a new attempt at once; none is one with a pause', async () => {
  const scene = await open(await identityWith());
  scene.admit({ notBeforeMs: 5_000, notAfterMs: 6_000 });
  await scene.status('limited');
  scene.answer = { next: 'later', renewed: false };
  scene.admit({ notBeforeMs: 5_000, notAfterMs: 6_000 });
  await scene.status('limited');
  assert.deepEqual(
    scene.limited.map(({ session }) => session),
    ['time', 'time'],
  );
  assert.deepEqual(scene.restarts, ['now', 'later']);
  assert.deepEqual(scene.published, [], 'no presence in such a session');
});

test('a broker that denies: a session for a renewal, then everything, then the renewal, then everything', async () => {
  const scene = await open(await identityWith());
  assert.equal(scene.admit(), 'full');
  await scene.status(denial);
  assert.deepEqual(topicsOf(scene.admit()), renewalTopics);
  await scene.status('limited');
  await scene.status('disconnected');
  assert.equal(scene.admit(), 'full', 'its certificate may be good after all');
  await scene.status(denial);
  assert.deepEqual(topicsOf(scene.admit()), renewalTopics);
  scene.answer = { next: 'now', renewed: true };
  await scene.status('limited');
  await scene.status('disconnected');
  assert.deepEqual(scene.limited, [
    { session: 'renewal', denied: 1 },
    { session: 'renewal', denied: 2 },
  ]);
  assert.equal(scene.admit(), 'full');
  await scene.status('connected');
  assert.deepEqual(scene.published, [deviceTopic('eu', deviceId, 'presence')]);
  assert.deepEqual(scene.refused, ['broker-not-authorized'], 'one and the same, told once');
});

test('a device that is revoked is denied everything, in turns, for ever', async () => {
  const scene = await open(await identityWith());
  const tried: unknown[] = [];
  for (let attempt = 0; attempt < 6; attempt += 1) {
    tried.push(scene.admit() === 'full' ? 'full' : 'renewal');
    await scene.status(denial);
  }
  assert.deepEqual(tried, ['full', 'renewal', 'full', 'renewal', 'full', 'renewal']);
});

test('its own certificate is over by signed time: a renewal first, and everything where that brought none', async () => {
  const scene = await open(await identityWith());
  scene.signed = { nowMs: 6 * dayMs, ageMs: 1 };
  assert.deepEqual(topicsOf(scene.admit()), renewalTopics);
  scene.answer = { next: 'later', renewed: false };
  await scene.status('limited');
  await scene.status('disconnected');
  assert.equal(scene.admit(), 'full', 'a stolen time key must not lock it out');
});

test('renewed credentials are proven by a connection, and take turns with the old ones where they fail', async () => {
  const old = await identityWith();
  const proven = { certificate: 'old', fleetCa: old.fleetCa, authoritiesIssuedAtMs: 0 };
  const scene = await open({ ...old, proven });
  assert.equal(scene.options.cert, old.certificate);
  scene.admit();
  await scene.status({ refused: 'broker-certificate-untrusted', detail: '' });
  await scene.status({ refused: 'broker-unreachable', detail: '' });
  assert.deepEqual(scene.used, ['old']);
  scene.admit();
  await scene.status('connected');
  assert.equal(scene.proven, 0, 'it stands with the old ones');
  scene.line.renewed();
  assert.deepEqual(scene.used, ['old', old.certificate]);
  assert.deepEqual(scene.restarts, ['now']);
  await scene.status('disconnected');
  scene.admit();
  await scene.status('connected');
  assert.equal(scene.proven, 1);
});

test('signed time that says the broker’s certificate is over ends the session', async () => {
  const scene = await open(await identityWith());
  scene.admit();
  await scene.status('connected');
  scene.signed = { nowMs: 9 * dayMs, ageMs: 1 };
  scene.line.timeVerified();
  assert.deepEqual(scene.restarts, []);
  scene.signed = { nowMs: 11 * dayMs, ageMs: 1 };
  scene.line.timeVerified();
  assert.deepEqual(scene.restarts, ['later']);
  assert.deepEqual(scene.refused, ['broker-server-untrusted']);
});
