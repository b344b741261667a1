// Why: what the registry's bus over a broker of another maker keeps, bounds and does not hear.
// Trusts: nothing: the line is the test's own. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectExternalBroker } from '../../registry/broker/external.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import type { AgentBus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { BusMessage } from '../../shared/kernel/ports.ts';
import { deviceTopic, everyDeviceFilter, sharedFilter } from '../../shared/wire/topics.ts';
import { until } from '../support/processes.ts';
import { recordingLog } from './fleet.ts';

const region = 'north';
const device = 'd'.repeat(32);
const desired = deviceTopic(region, device, 'desired');
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

interface Sent {
  topic: string;
  payload: string;
  retain: boolean;
  /** The broker takes it, or the connection is lost first. */
  done(error?: Error): void;
}

function openLine(barred = new Set<string>()) {
  const sent: Sent[] = [];
  const handlers = new Map<string, (message: BusMessage) => void>();
  const refused: (string | null)[] = [];
  let up = false;
  let lost = 0;
  let options: ConnectBusOptions | undefined;
  const connect = (given: ConnectBusOptions): AgentBus => {
    options = given;
    return {
      connected: () => up,
      use: () => undefined,
      restart: () => undefined,
      close: async () => undefined,
      subscribe: async (filter, handler) => {
        handlers.set(filter, handler);
        return { cancel: async () => undefined };
      },
      publish: (topic, payload, { retain }) =>
        new Promise((resolve, reject) => {
          const done = (error?: Error): void => (error === undefined ? resolve() : reject(error));
          sent.push({ topic, payload: text(payload), retain, done });
        }),
    };
  };
  const broker = connectExternalBroker({
    url: 'mqtts://127.0.0.1:1',
    group: 'g',
    credentials: { ca: '', cert: '', key: '' },
    clock: systemClock,
    entropy: systemEntropy,
    log: recordingLog().log,
    mayConnect: async (identity) => identity.kind === 'device' && !barred.has(identity.deviceId),
    onRefused: ({ subject }) => refused.push(subject),
    onLost: () => {
      lost += 1;
    },
    connect,
  });
  const lose = (): void => {
    up = false;
    for (const one of sent) one.done(new FleetError('bus-offline', 'lost'));
    options?.onStatus('disconnected');
  };
  const connected = (): void => {
    up = true;
    options?.onStatus('connected');
  };
  return { broker, sent, handlers, refused, lose, connected, lost: () => lost };
}

test('retained messages outlive the broker: the latest of each topic comes with every connection', async () => {
  const { broker, sent, lose, connected, lost } = openLine();
  const publish = (payload: string): Promise<void> =>
    broker.bus.publish(desired, Buffer.from(payload), { qos: 1, retain: true });
  // Nobody waits for a broker that is not there.
  await publish('one');
  await publish('two');
  assert.equal(sent.length, 0);
  connected();
  assert.deepEqual(
    sent.map(({ topic, payload, retain }) => [topic, payload, retain]),
    [[desired, 'two', true]],
  );
  sent[0]?.done();
  const third = publish('three');
  lose();
  await third;
  assert.equal(lost(), 1);
  sent.length = 0;
  connected();
  await until('it is published again', () => sent.some(({ payload }) => payload === 'three'));
  for (const one of sent) one.done();
  // A topic that was cleared is not kept.
  const cleared = publish('');
  await until('it is sent', () => sent.some(({ payload }) => payload === ''));
  for (const one of sent) one.done();
  await cleared;
  lose();
  sent.length = 0;
  connected();
  assert.equal(sent.length, 0);
  await broker.close();
});

test('answers are refused without a broker; frames wait for the line, so many and no more', async () => {
  const { broker, sent, connected } = openLine();
  const answer = broker.bus.publish(deviceTopic(region, device, 'telemetry/ack'), Buffer.from('x'), {
    qos: 1,
    retain: false,
  });
  // The line says what it cannot take.
  await until('the line was asked', () => sent.length === 1);
  sent[0]?.done(new FleetError('bus-offline', 'not connected'));
  await assert.rejects(answer, { code: 'bus-offline' });
  const topic = deviceTopic(region, device, 'bytes');
  assert.equal(await broker.bus.sendBulk(device, topic, Buffer.from('f')), false);

  connected();
  sent.length = 0;
  const frames = Array.from({ length: 500 }, (_, index) =>
    broker.bus.sendBulk(device, topic, Buffer.from(`${index}`), Buffer.from('-body')),
  );
  await until('the line has some', () => sent.length > 0);
  await new Promise((resolve) => setImmediate(resolve));
  const first = sent.length;
  assert.ok(first <= 32, `${first} frames are in memory`);
  for (let at = 0; at < 500; at += 1) {
    await until('the next is there', () => sent.length > at);
    sent[at]?.done();
    assert.ok(sent.length - at <= 33);
  }
  assert.deepEqual(await Promise.all(frames), Array(500).fill(true));
  assert.deepEqual(
    sent.map(({ payload }) => payload),
    Array.from({ length: 500 }, (_, index) => `${index}-body`),
    'in order',
  );
  await broker.close();
});

test('what was retained is not heard again, nor is a device that is shut out; presence is', async () => {
  const barred = new Set<string>();
  const { broker, handlers, refused } = openLine(barred);
  const heard: string[] = [];
  for (const channel of ['reported', 'presence'] as const)
    await broker.bus.subscribe(everyDeviceFilter(region, channel), ({ payload }) =>
      heard.push(text(payload)),
    );
  const shared = sharedFilter('g', everyDeviceFilter(region, 'reported'));
  const own = everyDeviceFilter(region, 'presence');
  assert.deepEqual([...handlers.keys()], [shared, own]);
  const say = (channel: 'reported' | 'presence', payload: string, retained: boolean): void =>
    handlers.get(channel === 'presence' ? own : shared)?.({
      topic: deviceTopic(region, device, channel),
      payload: Buffer.from(payload),
      retained,
    });
  say('reported', 'retained', true);
  say('presence', 'there', true);
  say('reported', 'new', false);
  await until('what counts was heard', () => heard.length === 2);
  assert.deepEqual(heard, ['there', 'new']);
  barred.add(device);
  say('reported', 'revoked', false);
  say('reported', 'revoked', false);
  await until('it is told', () => refused.length > 0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([heard.length, refused], [2, [device]]);
  await broker.close();
});
