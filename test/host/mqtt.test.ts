// Why: holds what the agent's bus promises: reconnecting, resubscribing, honest publications, codes.
// Trusts: the real broker of this project. Must never: take a status for the thing itself.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { type AgentBus, type BusStatus, connectBus } from '../../shared/host/mqtt.ts';
import { deviceTopic, tufTimestampTopic } from '../../shared/wire/topics.ts';
import { isFleetError } from '../broker/fault.ts';
import {
  type Credentials,
  Happenings,
  newAuthority,
  newDevice,
  recordingLog,
  region,
  serverIdentity,
  startTestBroker,
  type TestBroker,
} from '../broker/fleet.ts';

let broker: TestBroker;
let device: Credentials;
const opened: AgentBus[] = [];

before(async () => {
  broker = await startTestBroker();
  device = await newDevice(broker.ca);
});
after(async () => {
  await Promise.all(opened.map((bus) => bus.close()));
  await broker.close();
});

function connect(overrides: Partial<Parameters<typeof connectBus>[0]> = {}): {
  bus: AgentBus;
  status: Happenings<BusStatus>;
} {
  const status = new Happenings<BusStatus>();
  const bus = connectBus({
    url: `mqtts://localhost:${broker.port}`,
    ca: broker.ca.certificatePem,
    cert: device.cert,
    key: device.key,
    clientId: device.id,
    clock: systemClock,
    entropy: systemEntropy,
    log: recordingLog().log,
    onStatus: (one) => status.push(one),
    reconnectBaseMs: 5,
    reconnectMaxMs: 50,
    ...overrides,
  });
  opened.push(bus);
  return { bus, status };
}

const isConnected = (status: BusStatus): boolean => status === 'connected';
const isRefused = (code: string) => (status: BusStatus) =>
  typeof status === 'object' && status.refused === code;
const text = (payload: Uint8Array): string => Buffer.from(payload).toString();

test('publishes with acknowledgement, hears what it subscribed to, and ends without a last will', async () => {
  const will = {
    topic: deviceTopic(region, device.id, 'presence'),
    payload: Buffer.from('lost'),
    qos: 1 as const,
    retain: true,
  };
  const { bus, status } = connect({ will });
  const heard = new Happenings<{ payload: string; retained: boolean }>();
  // Before the connection stands: it is asked for as soon as it does.
  await bus.subscribe(deviceTopic(region, device.id, 'desired'), (message) => {
    heard.push({ payload: text(message.payload), retained: message.retained });
  });
  await assert.rejects(
    bus.publish(deviceTopic(region, device.id, 'reported'), Buffer.from('early'), { qos: 1, retain: false }),
    isFleetError('bus-offline'),
  );
  await broker.bus.publish(deviceTopic(region, device.id, 'desired'), Buffer.from('kept'), {
    qos: 1,
    retain: true,
  });
  await status.until(isConnected);
  assert.ok(bus.connected());
  assert.equal((await heard.until(({ payload }) => payload === 'kept')).retained, true);
  await bus.publish(deviceTopic(region, device.id, 'reported'), Buffer.from('report'), {
    qos: 1,
    retain: false,
  });
  assert.ok(broker.messages.all.some(({ payload }) => text(payload) === 'report'));
  await bus.publish(deviceTopic(region, device.id, 'fetch'), Buffer.from('ask'), { qos: 0, retain: false });
  await broker.messages.until(({ payload }) => text(payload) === 'ask');
  await bus.close();
  await broker.disconnected.until(() => broker.connectedDevices().length === 0);
  assert.ok(!broker.messages.all.some(({ payload }) => text(payload) === 'lost'));
  await assert.rejects(
    bus.publish(deviceTopic(region, device.id, 'reported'), Buffer.from('late'), { qos: 1, retain: false }),
    isFleetError('bus-offline'),
  );
});

test('a cancelled subscription hears nothing more', async () => {
  const { bus, status } = connect();
  await status.until(isConnected);
  const heard: string[] = [];
  const topic = deviceTopic(region, device.id, 'command');
  const bell = new Happenings<string>();
  const subscription = await bus.subscribe(topic, (message) => heard.push(text(message.payload)));
  await bus.subscribe(tufTimestampTopic(region), (message) => bell.push(text(message.payload)));
  await broker.bus.publish(topic, Buffer.from('one'), { qos: 1, retain: false });
  await broker.bus.publish(tufTimestampTopic(region), Buffer.from('a'), { qos: 1, retain: false });
  await bell.until((one) => one === 'a');
  assert.deepEqual(heard, ['one']);
  await subscription.cancel();
  await broker.bus.publish(topic, Buffer.from('two'), { qos: 1, retain: false });
  await broker.bus.publish(tufTimestampTopic(region), Buffer.from('b'), { qos: 1, retain: false });
  await bell.until((one) => one === 'b');
  assert.deepEqual(heard, ['one']);
  await bus.close();
});

test('after the broker is back on its port it reconnects and hears its topics again', async () => {
  const ca = await newAuthority();
  const first = await startTestBroker({ ca });
  const own = await newDevice(ca);
  const topic = deviceTopic(region, own.id, 'desired');
  const heard = new Happenings<string>();
  const { bus, status } = connect({
    url: `mqtts://127.0.0.1:${first.port}`,
    ca: ca.certificatePem,
    cert: own.cert,
    key: own.key,
    clientId: own.id,
  });
  await bus.subscribe(topic, (message) => heard.push(text(message.payload)));
  await status.until(isConnected);
  const failing = bus.publish(deviceTopic(region, own.id, 'reported'), Buffer.alloc(100), {
    qos: 1,
    retain: false,
  });
  const settled = failing.catch((error: unknown) => error);
  await first.close();
  await settled;
  await status.until((one) => one === 'disconnected');
  await status.until(isRefused('broker-unreachable'));
  assert.equal(bus.connected(), false);
  const second = await startTestBroker({ ca, port: first.port });
  await second.bus.publish(topic, Buffer.from('after'), { qos: 1, retain: true });
  await heard.until((one) => one === 'after');
  await bus.close();
  await second.close();
});

test('what waits for an acknowledgement is rejected when the connection goes', async () => {
  const { bus, status } = connect();
  await status.until(isConnected);
  // Not its own topic: the broker ends the connection instead of acknowledging.
  await assert.rejects(
    bus.publish(deviceTopic(region, device.id, 'desired'), Buffer.from('mine'), { qos: 1, retain: true }),
    isFleetError('bus-offline'),
  );
  await bus.close();
});

test('a denied subscription is a fault with its own code and leaves the others alone', async () => {
  const { bus, status } = connect();
  await status.until(isConnected);
  await assert.rejects(
    bus.subscribe(deviceTopic(region, '0'.repeat(32), 'desired'), () => undefined),
    isFleetError('broker-subscribe-denied'),
  );
  const heard = new Happenings<string>();
  await bus.subscribe(deviceTopic(region, device.id, 'command'), (message) =>
    heard.push(text(message.payload)),
  );
  await broker.bus.publish(deviceTopic(region, device.id, 'command'), Buffer.from('go'), {
    qos: 1,
    retain: false,
  });
  await heard.until((one) => one === 'go');
  await bus.close();
});

test('CONNACK 2 and 5, a foreign authority, a wrong host and a closed port each have their code', async () => {
  const other = await newDevice(broker.ca);
  const borrowed = connect({ clientId: other.id });
  await borrowed.status.until(isRefused('broker-client-id-borrowed'));
  await borrowed.bus.close();

  broker.barred.add(device.id);
  const barred = connect();
  await barred.status.until(isRefused('broker-not-authorized'));
  broker.barred.delete(device.id);
  // It goes on trying by itself.
  await barred.status.until(isConnected);
  await barred.bus.close();

  const foreign = connect({ ca: (await newAuthority()).certificatePem });
  await foreign.status.until(isRefused('broker-server-untrusted'));
  await foreign.bus.close();

  const elsewhere = await startTestBroker({
    ca: broker.ca,
    tls: { ...(await serverIdentity(broker.ca, ['elsewhere.example'])), ca: broker.ca.certificatePem },
  });
  const misled = connect({ url: `mqtts://127.0.0.1:${elsewhere.port}` });
  await misled.status.until(isRefused('broker-server-untrusted'));
  await misled.bus.close();
  await elsewhere.close();

  const nobody = connect({ url: `mqtts://127.0.0.1:${elsewhere.port}` });
  await nobody.status.until(isRefused('broker-unreachable'));
  await nobody.bus.close();
});

test('close while connecting to a server that never answers is prompt and final', async () => {
  const mute = createServer((socket) => socket.on('error', () => undefined));
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
  const address = mute.address();
  assert.ok(address !== null && typeof address === 'object');
  const reached = new Promise<void>((resolve) => mute.once('connection', () => resolve()));
  const { bus, status } = connect({ url: `mqtts://127.0.0.1:${address.port}` });
  await reached;
  await bus.close();
  assert.equal(status.all.length, 0);
  await new Promise<void>((resolve) => mute.close(() => resolve()));
});

test('a connection cut off leaves the last will', async () => {
  const topic = deviceTopic(region, device.id, 'presence');
  const { bus, status } = connect({ will: { topic, payload: Buffer.from('cut off'), qos: 1, retain: true } });
  await status.until(isConnected);
  await broker.bus.disconnect(device.id);
  await broker.messages.until(({ payload }) => text(payload) === 'cut off');
  await status.until((one) => one === 'disconnected');
  await bus.close();
});
