// Why: holds what a device whose only fault is an expired certificate may do at the broker: ask for a new one and
// for the time, over real TLS with a real MQTT client.
// Trusts: nothing the broker says about itself alone. Must never: pass when a refusal has another reason.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { issueDeviceCertificate } from '../../shared/host/certificates.ts';
import {
  deviceSubscribes,
  deviceTopic,
  enrolReplyTopic,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import {
  type Credentials,
  joined,
  newClient,
  newDevice,
  region,
  startTestBroker,
  type TestBroker,
} from './fleet.ts';

const hourMs = 3_600_000;
let broker: TestBroker;

before(async () => {
  broker = await startTestBroker();
});
after(() => broker.close());

const expiredDevice = (): Promise<Credentials> => newDevice(broker.ca, { from: -2 * hourMs, to: -hourMs });

const connect = (
  credentials: Credentials,
  will?: { topic: string; payload: Buffer; qos: 0 | 1; retain: boolean },
) =>
  newClient(
    broker.port,
    broker.ca.certificatePem,
    credentials,
    credentials.id,
    will === undefined ? {} : { will },
  );

/** The same device with a certificate that is good now. */
async function renewed(device: Credentials): Promise<Credentials> {
  const cert = await issueDeviceCertificate({
    ca: broker.ca,
    deviceId: device.id,
    publicKey: publicKeyOf(device.seed),
    notBeforeMs: Date.now() - hourMs,
    notAfterMs: Date.now() + hourMs,
  });
  return { ...device, cert };
}

test('is let in, told once, and may use renewal and time alone', async () => {
  const device = await expiredDevice();
  const client = connect(device);
  assert.equal(await client.answer, 0);
  const granted = await client.subscribe(
    ...deviceSubscribes.map((channel) => deviceTopic(region, device.id, channel)),
    tufTimestampTopic(region),
    enrolReplyTopic(region, 'a'.repeat(16), 'attempt1'),
  );
  assert.deepEqual(granted, [128, 128, 128, 128, 1, 1, 128, 128, 128]);
  await client.publish(deviceTopic(region, device.id, 'renew'), 'please');
  await client.publish(deviceTopic(region, device.id, 'time'), 'what time');
  await broker.messages.until(({ payload }) => Buffer.from(payload).toString() === 'what time');
  await broker.bus.publish(deviceTopic(region, device.id, 'renew/reply'), Buffer.from('here'), {
    qos: 1,
    retain: false,
  });
  await client.received.until(({ payload }) => payload === 'here');
  const told = await broker.refusals.until(({ subject }) => subject === device.id);
  // Subscribing to the others is refused as well, with its own code.
  assert.equal(told.code, 'certificate-expired');
  await client.end();
  const again = connect(device);
  assert.equal(await again.answer, 0);
  await again.end();
  const codes = broker.refusals.all.filter(({ subject }) => subject === device.id).map(({ code }) => code);
  assert.equal(codes.filter((code) => code === 'certificate-expired').length, 1);
});

for (const channel of ['reported', 'presence', 'fetch', 'telemetry', 'result'] as const) {
  test(`may not publish on ${channel}`, async () => {
    const device = await expiredDevice();
    const client = connect(device);
    assert.equal(await client.answer, 0);
    await client.publish(deviceTopic(region, device.id, channel), 'as if nothing were');
    await client.closed;
    await broker.refusals.until(
      ({ code, subject }) => code === 'broker-publish-denied' && subject === device.id,
    );
    const heard = broker.messages.all.filter(({ topic }) => topic.includes(device.id));
    assert.deepEqual(heard, []);
  });
}

test('never counts as online, leaves no last will and gets no bulk', async () => {
  const device = await expiredDevice();
  const client = connect(device, {
    topic: deviceTopic(region, device.id, 'presence'),
    payload: Buffer.from('offline'),
    qos: 1,
    retain: true,
  });
  assert.equal(await client.answer, 0);
  assert.equal(broker.connectedDevices().includes(device.id), false);
  const identity = await broker.connected.until((one) => one.kind === 'device' && one.deviceId === device.id);
  assert.ok(identity.kind === 'device' && identity.expired === true);
  await client.subscribe(deviceTopic(region, device.id, 'bytes'));
  assert.equal(
    await broker.bus.sendBulk(device.id, deviceTopic(region, device.id, 'bytes'), Buffer.from('frame')),
    false,
  );
  await client.kill();
  await broker.disconnected.until((one) => one.kind === 'device' && one.deviceId === device.id);
  assert.deepEqual(
    broker.messages.all.filter(({ topic }) => topic === deviceTopic(region, device.id, 'presence')),
    [],
  );
});

test('does not end the connection that shows the new certificate, but gives way to it', async () => {
  const old = await expiredDevice();
  const waiting = connect(old);
  assert.equal(await waiting.answer, 0);
  const good = await joined(broker, await renewed(old));
  await waiting.closed;
  await broker.connected.until(
    (one) => one.kind === 'device' && one.deviceId === old.id && one.expired === undefined,
  );
  assert.ok(broker.connectedDevices().includes(old.id));
  // Unavailable, not refused: it may try again when the other one is gone.
  assert.equal(await connect(old).answer, 3);
  await good.publish(deviceTopic(region, old.id, 'reported'), 'undisturbed');
  await broker.messages.until(({ payload }) => Buffer.from(payload).toString() === 'undisturbed');
  await good.end();
  await broker.disconnected.until(
    (one) => one.kind === 'device' && one.deviceId === old.id && one.expired === undefined,
  );
  // After a good one, the next expiry is news again.
  const back = connect(old);
  assert.equal(await back.answer, 0);
  const told = broker.refusals.all.filter(
    ({ code, subject }) => code === 'certificate-expired' && subject === old.id,
  );
  assert.equal(told.length, 2);
  await back.end();
});

test('an expired certificate of a device that is shut out is refused, and disconnected at once', async () => {
  const device = await expiredDevice();
  const client = connect(device);
  assert.equal(await client.answer, 0);
  broker.barred.add(device.id);
  await broker.bus.disconnect(device.id);
  await client.closed;
  assert.equal(await connect(device).answer, 5);
  await broker.refusals.until(
    ({ code, subject }) => code === 'broker-not-authorized' && subject === device.id,
  );
});
