// Why: the simulated network must not drift away from what it stands for: the same visitors come to it and to the real
// broker over real TLS, and both must treat them alike.
// Trusts: real sockets on loopback. Must never: compare what depends on timing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { type AgentBus, type BusStatus, type ConnectBusOptions, connectBus } from '../../shared/host/mqtt.ts';
import type { Clock, RegistryBus } from '../../shared/kernel/ports.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { deviceTopic, enrolClientId, enrolRequestTopic } from '../../shared/wire/topics.ts';
import { wallAt } from '../agent/hand-clock.ts';
import { recordingLog, startTestBroker } from '../broker/fleet.ts';
import {
  acknowledged,
  brokerTls,
  bytes,
  createScene,
  dayMs,
  fate,
  kept,
  newAuthority,
  newClaim,
  newDevice,
  region,
  startMs,
  type TestDevice,
  textOf,
} from './network-scene.ts';

/** One of the two worlds. */
interface Ground {
  bus: RegistryBus;
  connect(
    options: Omit<ConnectBusOptions, 'clock' | 'entropy' | 'log' | 'url'> & { host?: string },
  ): AgentBus;
  until(met: () => boolean): Promise<void>;
  barred: Set<string>;
  refused: string[];
  heard: string[];
}

interface Visitor {
  name: string;
  identity: TestDevice;
  ca: string;
  clientId?: string;
  host?: string;
  will?: string;
  barred?: boolean;
}

/** What becomes of a visitor, from its first status to its end. */
async function visit(ground: Ground, visitor: Visitor, neighbour: string): Promise<object> {
  const { identity, ca } = visitor;
  const own = (channel: Parameters<typeof deviceTopic>[2]) => deviceTopic(region, identity.id, channel);
  const foreign = deviceTopic(region, neighbour, 'reported');
  ground.refused.length = 0;
  ground.heard.length = 0;
  ground.barred.clear();
  if (visitor.barred === true) ground.barred.add(identity.id);
  const states: string[] = [];
  const will = visitor.will;
  const bus = ground.connect({
    ca,
    cert: identity.cert,
    key: identity.key,
    serverName: authorityServerName(ca),
    clientId: visitor.clientId ?? identity.id,
    ...(will === undefined ? {} : { will: { topic: will, payload: bytes('lost'), ...kept } }),
    ...(visitor.host === undefined ? {} : { host: visitor.host }),
    onStatus: (status: BusStatus) => states.push(typeof status === 'object' ? status.refused : status),
    reconnectBaseMs: 60_000,
    reconnectMaxMs: 60_000,
  });
  const fates: string[] = [];
  const settle = async (work: Promise<unknown>) => {
    const told = fate(work);
    await ground.until(() => told.is !== 'open');
    fates.push(told.is);
  };
  const received: string[] = [];
  const hear = (filter: string) =>
    bus.subscribe(filter, ({ topic, payload, retained }) =>
      received.push(`${topic} ${textOf(payload)} ${retained}`),
    );
  await ground.until(() => states.length > 0);
  if (states[0] === 'connected') {
    for (const filter of [own('desired'), own('renew/reply'), deviceTopic(region, neighbour, 'desired')]) {
      await settle(hear(filter));
    }
    if (fates[0] === 'done') await ground.until(() => received.length > 0);
    if (visitor.clientId?.includes('.') === true) {
      const request = enrolRequestTopic(region, identity.id, visitor.clientId.split('.')[1] ?? '');
      await settle(bus.publish(request, bytes('csr'), acknowledged));
    }
    // The last of them that is not allowed ends the connection.
    for (const topic of [own('renew'), own('presence'), own('reported'), foreign]) {
      const before = fates.length;
      await settle(bus.publish(topic, bytes('said'), topic === own('presence') ? kept : acknowledged));
      if (fates[before] !== 'done') break;
    }
    await ground.until(() => states.includes('disconnected'));
    const will = visitor.will;
    if (
      will !== undefined &&
      ground.refused.at(-1) !== undefined &&
      !ground.refused.includes('certificate-expired')
    )
      await ground.until(() => ground.heard.includes(`${will} lost`));
  }
  if (states[0] === 'broker-unreachable') await ground.until(() => ground.refused.length > 0);
  const closed = fate(bus.close());
  await ground.until(() => closed.is !== 'open');
  return {
    first: states[0],
    fates,
    received,
    refused: [...new Set(ground.refused)],
    heard: [...ground.heard],
  };
}

async function realGround(tls: BrokerTls): Promise<Ground & { close(): Promise<void> }> {
  const clock: Clock = wallAt(systemClock, startMs);
  const refused: string[] = [];
  const heard: string[] = [];
  const broker = await startTestBroker({
    tls,
    clock,
    onRefused: ({ code }) => refused.push(code),
    onMessage: (_identity, { topic, payload }) => heard.push(`${topic} ${textOf(payload)}`),
  });
  return {
    bus: broker.bus,
    barred: broker.barred,
    refused,
    heard,
    connect: ({ host = 'localhost', ...options }) =>
      connectBus({
        ...options,
        url: `mqtts://${host}:${broker.port}`,
        clock,
        entropy: systemEntropy,
        log: recordingLog().log,
      }),
    until: async (met) => {
      while (!met()) await systemClock.timer(2).done;
    },
    close: broker.close,
  };
}

async function simulatedGround(tls: BrokerTls): Promise<Ground> {
  const scene = createScene({ seed: 5 });
  const heard: string[] = [];
  const { broker, refused } = await scene.registry(tls, 'registry', ({ topic, payload }) =>
    heard.push(`${topic} ${textOf(payload)}`),
  );
  const of = scene.world.boot('device-1');
  const connect = scene.network.connect(of);
  return {
    bus: broker.bus,
    barred: scene.barred,
    refused,
    heard,
    connect: ({ host = 'localhost', ...options }) =>
      connect({
        ...options,
        url: `mqtts://${host}:8883`,
        clock: scene.world.clock(of),
        entropy: scene.world.entropy(of),
        log: scene.log(of),
      }),
    until: async (met) => {
      for (let steps = 0; !met(); steps += 1) {
        assert.ok(steps < 100_000, 'it never comes');
        await scene.world.run(scene.world.nowMs() + 10);
      }
    },
  };
}

test('the real broker and the simulated one treat the same visitors alike', async () => {
  const ca = await newAuthority();
  const foreign = await newAuthority(2);
  const pem = ca.certificatePem;
  const tls = await brokerTls(ca);
  const device = await newDevice(ca, 10);
  const neighbour = await newDevice(ca, 11);
  const late = await newDevice(ca, 13, startMs - dayMs);
  const claim = await newClaim(ca, 14);
  const attempt = 'abcdef0123456789';
  const presence = (one: TestDevice) => deviceTopic(region, one.id, 'presence');
  const visitors: Visitor[] = [
    { name: 'a device', identity: device, ca: pem, will: presence(device) },
    { name: 'an expired device', identity: late, ca: pem, will: presence(late) },
    { name: 'a claim', identity: claim, ca: pem, clientId: enrolClientId(claim.id, attempt) },
    { name: 'a claim by another name', identity: claim, ca: pem, clientId: claim.id },
    { name: 'a device that believes others', identity: device, ca: foreign.certificatePem },
    { name: 'a device that asked for another host', identity: device, ca: pem, host: '127.0.0.1' },
    { name: 'a device of another fleet', identity: await newDevice(foreign, 12), ca: pem },
    { name: 'a borrower of an id', identity: device, ca: pem, clientId: neighbour.id },
    { name: 'a device with another’s will', identity: device, ca: pem, will: presence(neighbour) },
    { name: 'a revoked device', identity: device, ca: pem, barred: true },
  ];
  const real = await realGround(tls);
  const simulated = await simulatedGround(tls);
  try {
    const kinds = new Set<string>();
    for (const ground of [real, simulated]) {
      for (const one of [device, late]) {
        const retained = ground.bus.publish(deviceTopic(region, one.id, 'desired'), bytes('kept'), kept);
        const told = fate(retained);
        await ground.until(() => told.is === 'done');
      }
    }
    for (const visitor of visitors) {
      const expected = await visit(real, visitor, neighbour.id);
      assert.deepEqual(await visit(simulated, visitor, neighbour.id), expected, visitor.name);
      kinds.add(JSON.stringify(expected));
    }
    assert.ok(kinds.size >= 8, [...kinds].join('\n'));
  } finally {
    await real.close();
  }
});
