// Why: holds who may connect, publish and subscribe (DESIGN 4) over real TLS with a real MQTT client.
// Trusts: nothing the broker says about itself alone. Must never: pass when a refusal has another reason.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import {
  deviceTopic,
  enrolClientId,
  enrolReplyTopic,
  enrolRequestTopic,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import { isFleetError } from './fault.ts';
import {
  type Credentials,
  joined,
  newAuthority,
  newClaim,
  newClient,
  newDevice,
  region,
  serverIdentity,
  startTestBroker,
  type TestBroker,
} from './fleet.ts';

const hourMs = 3_600_000;
let broker: TestBroker;
let device: Credentials;
let other: Credentials;

before(async () => {
  broker = await startTestBroker();
  device = await newDevice(broker.ca);
  other = await newDevice(broker.ca);
});
after(() => broker.close());

const client = (credentials: { cert?: string; key?: string }, id: string) =>
  newClient(broker.port, broker.ca.certificatePem, credentials, id);

test('a connection without a client certificate ends before MQTT, counted', async () => {
  assert.equal(await client({}, device.id).answer, 'closed');
  const refusal = await broker.refusals.until(({ code }) => code === 'broker-no-certificate');
  assert.equal(refusal.subject, null);
});

test('a certificate of another authority is refused, even for the right device id', async () => {
  const foreign = await newAuthority('test fleet');
  const stranger = await newDevice(foreign);
  assert.equal(await client(stranger, stranger.id).answer, 'closed');
  await broker.refusals.until(
    ({ code, detail }) => code === 'broker-certificate-untrusted' && /authority/.test(detail),
  );
});

test('the server’s own certificate cannot be used as a client’s', async () => {
  const server = await serverIdentity(broker.ca, [device.id]);
  assert.equal(await client(server, device.id).answer, 'closed');
  await broker.refusals.until(
    ({ code, detail }) => code === 'broker-certificate-untrusted' && /client/.test(detail),
  );
});

test('a device certificate that is not valid yet is refused', async () => {
  const early = await newDevice(broker.ca, { from: hourMs, to: 2 * hourMs });
  assert.equal(await client(early, early.id).answer, 'closed');
  await broker.refusals.until(
    ({ code, detail }) => code === 'broker-certificate-untrusted' && /not valid yet/.test(detail),
  );
});

test('TLS 1.2 is not spoken', async () => {
  const socket = connectTls({
    host: '127.0.0.1',
    port: broker.port,
    ca: broker.ca.certificatePem,
    servername: 'localhost',
    cert: device.cert,
    key: device.key,
    maxVersion: 'TLSv1.2',
  });
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve));
  assert.match(error.code ?? '', /PROTOCOL_VERSION/);
});

test('a device is let in under its own id only, and borrowing an id does not evict the owner', async () => {
  const owner = await joined(broker, device);
  const borrower = client(other, device.id);
  assert.equal(await borrower.answer, 2);
  const refusal = await broker.refusals.until(
    ({ code, subject }) => code === 'broker-client-id-borrowed' && subject === other.id,
  );
  assert.ok(refusal.detail.includes(device.id));
  // The owner is still there and is heard.
  await owner.publish(deviceTopic(region, device.id, 'reported'), 'still here');
  await broker.messages.until(({ payload }) => Buffer.from(payload).toString() === 'still here');
  assert.deepEqual(broker.connectedDevices(), [device.id]);
  assert.equal(await client(device, '').answer, 2);
  await owner.end();
});

test('a revoked device gets CONNACK 5', async () => {
  const revoked = await newDevice(broker.ca);
  broker.barred.add(revoked.id);
  assert.equal(await client(revoked, revoked.id).answer, 5);
  await broker.refusals.until(
    ({ code, subject }) => code === 'broker-not-authorized' && subject === revoked.id,
  );
  broker.barred.delete(revoked.id);
  const back = await joined(broker, revoked);
  await back.end();
});

test('a claim connects as claim.attempt and reaches only its own enrolment topics', async () => {
  const claim = await newClaim(broker.ca);
  const attempt = 'abcdef0123456789';
  assert.equal(await client(claim, claim.id).answer, 2);
  assert.equal(await client(claim, `${claim.id}.short`).answer, 2);
  assert.equal(await client(claim, `${'z'.repeat(20)}.${attempt}`).answer, 2);
  const enrolling = client(claim, enrolClientId(claim.id, attempt));
  assert.equal(await enrolling.answer, 0);
  assert.deepEqual(
    await enrolling.subscribe(
      enrolReplyTopic(region, claim.id, attempt),
      enrolReplyTopic(region, claim.id, 'ffffffffffffffff'),
      tufTimestampTopic(region),
      deviceTopic(region, device.id, 'desired'),
    ),
    [1, 128, 128, 128],
  );
  await enrolling.publish(enrolRequestTopic(region, claim.id, attempt), 'please');
  const request = await broker.messages.until(({ payload }) => Buffer.from(payload).toString() === 'please');
  assert.equal(request.topic, enrolRequestTopic(region, claim.id, attempt));
  await broker.bus.publish(enrolReplyTopic(region, claim.id, attempt), Buffer.from('here'), {
    qos: 1,
    retain: false,
  });
  await enrolling.received.until(({ payload }) => payload === 'here');
  await enrolling.publish(enrolRequestTopic(region, claim.id, 'ffffffffffffffff'), 'for another');
  await enrolling.closed;
  await broker.refusals.until(
    ({ code, subject }) => code === 'broker-publish-denied' && subject === `claim:${claim.id}`,
  );
});

test('an expired claim connects, to be answered on its own topics', async () => {
  const claim = await newClaim(broker.ca, { from: -2 * hourMs, to: -hourMs });
  const enrolling = client(claim, enrolClientId(claim.id, 'abcdef0123456789'));
  assert.equal(await enrolling.answer, 0);
  assert.deepEqual(await enrolling.subscribe(tufTimestampTopic(region)), [128]);
  await enrolling.end();
});

test('every topic that is not its own is denied to a device, each time ending the connection', async () => {
  const own = (channel: Parameters<typeof deviceTopic>[2]): string => deviceTopic(region, device.id, channel);
  const denied: [string, { retain?: boolean; qos?: 0 | 1 | 2 }][] = [
    [own('desired'), { retain: true }],
    [own('desired'), {}],
    [own('bytes'), { qos: 0 }],
    [own('reported'), { retain: true }],
    [own('reported'), { qos: 2 }],
    [deviceTopic(region, other.id, 'reported'), {}],
    [deviceTopic(region, other.id, 'desired'), { retain: true }],
    [deviceTopic('south', device.id, 'reported'), {}],
    [tufTimestampTopic(region), { retain: true }],
    [`lepton/1/${region}/d/${device.id}`, {}],
    ['$SYS/broker', {}],
    ['free/speech', {}],
  ];
  for (const [topic, options] of denied) {
    const before = broker.refusals.all.length;
    const heard = broker.messages.all.length;
    const speaker = await joined(broker, device);
    await speaker.publish(topic, 'x', options);
    await speaker.closed;
    const refusal = broker.refusals.all[before];
    assert.equal(refusal?.code, 'broker-publish-denied', topic);
    assert.equal(refusal?.subject, device.id);
    assert.equal(broker.messages.all.length, heard, `${topic} was delivered`);
  }
  // Nothing that was refused is retained.
  const fresh = await joined(broker, other);
  await fresh.subscribe(deviceTopic(region, other.id, 'desired'), tufTimestampTopic(region));
  await broker.bus.publish(deviceTopic(region, other.id, 'desired'), Buffer.from('marker'), {
    qos: 1,
    retain: false,
  });
  await fresh.received.until(({ payload }) => payload === 'marker');
  assert.equal(fresh.received.all.length, 1);
  await fresh.end();
});

test('subscriptions outside its own topics are answered 128 and counted; the connection stays', async () => {
  const listener = await joined(broker, device);
  const filters = [
    deviceTopic(region, other.id, 'desired'),
    deviceTopic(region, other.id, 'bytes'),
    deviceTopic(region, device.id, 'reported'),
    `lepton/1/${region}/d/+/desired`,
    `lepton/1/${region}/#`,
    `lepton/1/${region}/d/${device.id}/+`,
    '#',
    '+/1/north/tuf/timestamp',
    '$SYS/#',
    deviceTopic('south', device.id, 'desired'),
  ];
  const before = broker.refusals.all.length;
  assert.deepEqual(
    await listener.subscribe(...filters),
    filters.map(() => 128),
  );
  const refusals = broker.refusals.all.slice(before);
  assert.deepEqual(
    refusals.map(({ code }) => code),
    filters.map(() => 'broker-subscribe-denied'),
  );
  assert.deepEqual(await listener.subscribe(deviceTopic(region, device.id, 'desired')), [1]);
  await listener.end();
});

test('a last will outside its own presence is refused at CONNECT', async () => {
  const will = {
    topic: deviceTopic(region, other.id, 'presence'),
    payload: Buffer.from('gone'),
    qos: 1 as const,
    retain: true,
  };
  const liar = newClient(broker.port, broker.ca.certificatePem, device, device.id, { will });
  assert.equal(await liar.answer, 5);
  await broker.refusals.until(
    ({ code, detail }) => code === 'broker-publish-denied' && detail.startsWith('last will'),
  );
});

test('a second connection of a device replaces the first; its will comes before the new one speaks', async () => {
  const topic = deviceTopic(region, device.id, 'presence');
  const will = { topic, payload: Buffer.from('offline 1'), qos: 1 as const, retain: true };
  const first = newClient(broker.port, broker.ca.certificatePem, device, device.id, { will });
  assert.equal(await first.answer, 0);
  await first.publish(topic, 'online 1', { retain: true });
  const second = await joined(broker, device);
  await first.closed;
  await second.publish(topic, 'online 2', { retain: true });
  await broker.messages.until(({ payload }) => Buffer.from(payload).toString() === 'online 2');
  const heard = broker.messages.all
    .filter((message) => message.topic === topic)
    .map(({ payload }) => Buffer.from(payload).toString());
  assert.deepEqual(heard.slice(-3), ['online 1', 'offline 1', 'online 2']);
  assert.deepEqual(broker.connectedDevices(), [device.id]);
  await second.end();
  await broker.disconnected.until(() => broker.connectedDevices().length === 0);
});

test('many connections of one device at once leave exactly one', async () => {
  const rivals = Array.from({ length: 8 }, () => client(device, device.id));
  const answers = await Promise.all(rivals.map(({ answer }) => answer));
  assert.ok(answers.includes(0));
  const last = await joined(broker, device);
  await Promise.all(rivals.map(({ closed }) => closed));
  assert.deepEqual(broker.connectedDevices(), [device.id]);
  await last.publish(deviceTopic(region, device.id, 'reported'), 'the last one');
  await broker.messages.until(({ payload }) => Buffer.from(payload).toString() === 'the last one');
  await last.end();
});

test('retained: sent on subscribing, replaced, removed, and the newest comes last', async () => {
  const topic = deviceTopic(region, device.id, 'desired');
  const publish = (text: string): Promise<void> =>
    broker.bus.publish(topic, Buffer.from(text), { qos: 1, retain: true });
  await publish('one');
  const listener = await joined(broker, device);
  await listener.subscribe(topic);
  const one = await listener.received.until(({ payload }) => payload === 'one');
  assert.equal(one.retained, true);
  await publish('two');
  const two = await listener.received.until(({ payload }) => payload === 'two');
  assert.equal(two.retained, false);
  // Publishing while the subscription is being answered must not bring an older one after a newer one.
  const again = listener.subscribe(topic);
  for (let n = 0; n < 50; n += 1) await publish(`n${n}`);
  await again;
  await listener.received.until(({ payload }) => payload === 'n49');
  const order = listener.received.all
    .map(({ payload }) => Number(payload.slice(1)))
    .filter((n) => !Number.isNaN(n));
  assert.deepEqual(
    order,
    [...order].sort((a, b) => a - b),
  );
  await publish('');
  await listener.end();
  const fresh = await joined(broker, device);
  await fresh.subscribe(topic, tufTimestampTopic(region));
  await broker.bus.publish(tufTimestampTopic(region), Buffer.from('bell'), { qos: 0, retain: false });
  await fresh.received.until(({ payload }) => payload === 'bell');
  assert.deepEqual(
    fresh.received.all.map(({ payload }) => payload),
    ['bell'],
  );
  await fresh.end();
});

test('the registry hears every device by wildcard, with what is retained', async () => {
  const topic = deviceTopic(region, device.id, 'presence');
  const speaker = await joined(broker, device);
  await speaker.publish(topic, 'here', { retain: true });
  const heard: { topic: string; retained: boolean }[] = [];
  const subscription = await broker.bus.subscribe(`lepton/1/${region}/d/+/presence`, (message) => {
    heard.push({ topic: message.topic, retained: message.retained });
  });
  assert.deepEqual(heard, [{ topic, retained: true }]);
  await speaker.publish(topic, 'still', { retain: true });
  assert.equal(heard.length, 2);
  await subscription.cancel();
  await speaker.publish(topic, 'unheard', { retain: true });
  assert.equal(heard.length, 2);
  await speaker.end();
});

test('a subscriber that throws costs its message’s sender the connection, not the broker', async () => {
  const topic = deviceTopic(region, device.id, 'result');
  const subscription = await broker.bus.subscribe(topic, () => {
    throw new Error('a bug');
  });
  const speaker = await joined(broker, device);
  await speaker.publish(topic, 'poison');
  await speaker.closed;
  assert.ok(broker.logLines.some(({ event }) => event === 'broker.message.failed'));
  await subscription.cancel();
  const back = await joined(broker, device);
  await back.publish(topic, 'fine');
  await back.end();
});

test('a packet longer than the limit ends the connection before it is collected', async () => {
  const speaker = await joined(broker, device);
  await speaker.publish(deviceTopic(region, device.id, 'reported'), Buffer.alloc(300 * 1024));
  await speaker.closed;
  await broker.refusals.until(
    ({ code, detail }) => code === 'broker-publish-denied' && /packet of more than/.test(detail),
  );
  // Only announced, never sent: a fixed header that promises 200 MiB.
  const announcer = await joined(broker, device);
  announcer.socket.write(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x64]));
  await announcer.closed;
});

test('a session is clean whatever the client asks for', async () => {
  const topic = deviceTopic(region, device.id, 'command');
  const stay = newClient(broker.port, broker.ca.certificatePem, device, device.id, { clean: false });
  assert.equal(await stay.answer, 0);
  await stay.subscribe(topic);
  await stay.end();
  await broker.disconnected.until(() => broker.connectedDevices().length === 0);
  await broker.bus.publish(topic, Buffer.from('missed'), { qos: 1, retain: false });
  const back = newClient(broker.port, broker.ca.certificatePem, device, device.id, { clean: false });
  assert.equal(await back.answer, 0);
  await back.subscribe(topic);
  await broker.bus.publish(topic, Buffer.from('seen'), { qos: 1, retain: false });
  await back.received.until(({ payload }) => payload === 'seen');
  assert.deepEqual(
    back.received.all.map(({ payload }) => payload),
    ['seen'],
  );
  await back.end();
});

test('disconnect ends a device’s connection and resolves when it is gone', async () => {
  const held = await joined(broker, device);
  await broker.bus.disconnect(device.id);
  assert.deepEqual(broker.connectedDevices(), []);
  await held.closed;
  await broker.bus.disconnect(device.id);
});

test('a port in use has its own code; close frees the port and ends every connection', async () => {
  await assert.rejects(startTestBroker({ ca: broker.ca, port: broker.port }), isFleetError('port-in-use'));
  const second = await startTestBroker({ ca: broker.ca });
  const held = await joined(second, device);
  await second.close();
  await held.closed;
  const third = await startTestBroker({ ca: broker.ca, port: second.port });
  assert.equal(third.port, second.port);
  await third.close();
  await assert.rejects(
    second.bus.publish(tufTimestampTopic(region), Buffer.from('x'), { qos: 0, retain: false }),
    isFleetError('bus-offline'),
  );
});
