// Why: the simulated network fails only as it is told to, as a real one fails, and the same way from the same seed.
// Trusts: the agent's real connection logic on top of it. Must never: let real time in.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { guarded } from '../../firmware-sim/guard.ts';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import type { CertificateAuthority } from '../../shared/host/certificates.ts';
import { deviceTopic, tufTimestampTopic } from '../../shared/wire/topics.ts';
import {
  acknowledged,
  brokerTls,
  bytes,
  createScene,
  fate,
  kept,
  minuteMs,
  newAuthority,
  newDevice,
  region,
  type TestDevice,
} from './network-scene.ts';

let ca: CertificateAuthority;
let tls: BrokerTls;
let device: TestDevice;
let other: TestDevice;
let pem: string;
before(async () => {
  ca = await newAuthority();
  pem = ca.certificatePem;
  tls = await brokerTls(ca);
  device = await newDevice(ca, 10);
  other = await newDevice(ca, 11);
});

const topic = (channel: Parameters<typeof deviceTopic>[2], id = device.id) =>
  deviceTopic(region, id, channel);
const willOf = () => ({ topic: topic('presence'), payload: bytes('lost'), ...kept });

test('a device that loses its power is missed after the keepalive, and its reboot does not wait for that', async () => {
  const silent = createScene({ seed: 2 });
  const north = await silent.registry(tls);
  const one = silent.device(device, pem, { will: willOf() });
  await silent.world.run(5_000);
  silent.world.kill(one.of);
  await silent.world.run(10_000);
  assert.deepEqual(north.presence, [`+${device.id}`]);
  await silent.world.run(5_000 + 46_000);
  assert.deepEqual(north.presence, [`+${device.id}`, `-${device.id}`]);
  assert.deepEqual(
    north.heard.map(({ text }) => text),
    ['lost'],
  );

  const quick = createScene({ seed: 2 });
  const south = await quick.registry(tls);
  const first = quick.device(device, pem, { will: willOf() });
  await quick.world.run(5_000);
  quick.world.kill(first.of);
  const second = quick.device(device, pem);
  await quick.world.run(8_000);
  assert.deepEqual(second.states(), ['connected']);
  assert.deepEqual(south.presence, [`+${device.id}`, `-${device.id}`, `+${device.id}`]);
  await quick.world.run(5 * minuteMs);
  assert.equal(south.presence.length, 3);
  assert.deepEqual(first.states(), ['connected']);
});

test('a power cut before a publication takes it back, one after it does not, and nobody is answered', async () => {
  for (const cut of ['before', 'after'] as const) {
    const scene = createScene({ cutAt: ({ kind }) => (kind === 'bus.publish' ? cut : null) });
    const north = await scene.registry(tls);
    const one = scene.device(device, pem);
    await scene.world.run(5_000);
    const report = fate(one.bus.publish(topic('reported'), bytes('report'), acknowledged));
    await scene.world.run(minuteMs);
    assert.equal(report.is, 'open');
    assert.deepEqual(
      north.heard.map(({ text }) => text),
      cut === 'before' ? [] : ['report'],
    );
    assert.deepEqual(scene.cuts, [one.of]);
  }
});

test('messages are lost, doubled and overtaken where the fault says so, and nowhere else', async () => {
  const sent = async (faults: string[], qos: 0 | 1, seed = 1) => {
    const scene = createScene({ faults, seed });
    const north = await scene.registry(tls);
    const one = scene.device(device, pem);
    await scene.world.run(5_000);
    const fates = ['a', 'b', 'c'].map((text) =>
      fate(one.bus.publish(topic('reported'), bytes(text), { qos, retain: false })),
    );
    await scene.world.run(2 * minuteMs);
    return { heard: north.heard.map(({ text }) => text).join(''), fates: fates.map(({ is }) => is), one };
  };
  assert.equal((await sent([], 1)).heard, 'abc');
  assert.equal((await sent(['link.drop device-1 1'], 0)).heard, 'ac');
  assert.equal((await sent(['link.duplicate device-1 0'], 1)).heard, 'aabc');
  assert.equal((await sent(['link.reorder device-1 0'], 1)).heard, 'bca');
  const broken = await sent(['link.break device-1 0'], 1);
  assert.deepEqual([broken.heard, broken.fates], ['', ['bus-offline', 'bus-offline', 'bus-offline']]);
  assert.deepEqual(broken.one.states(), ['connected', 'disconnected', 'connected']);
  // At QoS 1 nobody knows whether it was taken.
  const endings = new Set<string>();
  for (let seed = 1; seed <= 12; seed += 1) {
    const { heard, fates } = await sent(['link.drop device-1 0'], 1, seed);
    assert.deepEqual(fates, ['bus-offline', 'bus-offline', 'bus-offline']);
    endings.add(heard);
  }
  assert.deepEqual([...endings].sort(), ['', 'a']);
  const slow = createScene({ faults: ['link.delay device-1 0'] });
  const north = await slow.registry(tls);
  const one = slow.device(device, pem);
  await slow.world.run(5_000);
  void one.bus.publish(topic('reported'), bytes('late'), acknowledged);
  await slow.world.run(5_400);
  assert.deepEqual(north.heard, []);
  await slow.world.run(30_000);
  assert.equal(north.heard.length, 1);
});

test('a short partition holds messages up, a long one ends the connection; both heal', async () => {
  const { world, network, registry, device: boot } = createScene();
  const north = await registry(tls);
  const one = boot(device, pem, { will: willOf() });
  const beside = boot(other, pem, { node: 'device-2' });
  await world.run(5_000);
  network.partition('device-1', 10_000);
  const report = fate(one.bus.publish(topic('reported'), bytes('held up'), acknowledged));
  await world.run(14_900);
  assert.deepEqual([report.is, north.heard.length], ['open', 0]);
  await world.run(17_000);
  assert.equal(report.is, 'done');
  assert.deepEqual(one.states(), ['connected']);

  const cutAtMs = world.nowMs();
  const partition = network.partition('device-1');
  const never = fate(one.bus.publish(topic('reported'), bytes('never'), acknowledged));
  await world.run(cutAtMs + 29_000);
  assert.deepEqual([never.is, north.presence.includes(`-${device.id}`)], ['open', false]);
  await world.run(cutAtMs + 46_000);
  assert.deepEqual([never.is, north.presence.includes(`-${device.id}`)], ['bus-offline', true]);
  assert.equal(north.heard.at(-1)?.text, 'lost');
  await world.run(cutAtMs + 10 * minuteMs);
  assert.equal(one.states().at(-1), 'broker-unreachable');
  assert.ok(!one.bus.connected());
  assert.deepEqual(beside.states(), ['connected']);
  partition.heal();
  await world.run(cutAtMs + 20 * minuteMs);
  assert.ok(one.bus.connected());
  assert.ok(!north.heard.some(({ text }) => text === 'never'));

  // One side may give up just before the path is free again: the other learns of it.
  for (let round = 0; round < 8; round += 1) {
    network.partition('device-1', 33_000 + round * 1_500);
    await world.run(world.nowMs() + 10 * minuteMs);
    assert.ok(one.bus.connected());
    assert.equal(network.connections().length, 2);
    const { length } = north.presence.filter((entry) => entry.endsWith(device.id));
    assert.equal(length % 2, 1, 'came once more than it went');
  }

  network.partition('*', 2 * minuteMs);
  await world.run(world.nowMs() + minuteMs);
  assert.deepEqual([one.bus.connected(), beside.bus.connected()], [false, false]);
  await world.run(world.nowMs() + 20 * minuteMs);
  assert.deepEqual([one.bus.connected(), beside.bus.connected()], [true, true]);
});

/** Three devices that report for half an hour through whatever the seed brings. */
const swarm = (seed: number) => guarded(() => runSwarm(seed));

async function runSwarm(seed: number) {
  const third = { ...device };
  const scene = createScene({
    seed,
    faults: 'swarm',
    cutAt: ({ kind, index }) => (kind === 'bus.receive' && index % 97 === seed % 97 ? 'after' : null),
  });
  const { world } = scene;
  const north = await scene.registry(tls);
  const fleet = [device, other, third].map((identity, index) => {
    const one = scene.device(identity, pem, { node: `device-${index + 1}`, will: willOfId(identity.id) });
    void one.bus.subscribe(tufTimestampTopic(region), () => undefined);
    return { one, identity };
  });
  for (let minute = 1; minute <= 30; minute += 1) {
    await world.run(minute * minuteMs);
    void north.broker.bus.publish(tufTimestampTopic(region), bytes(String(minute)), kept);
    for (const { one, identity } of fleet) {
      if (one.of.alive)
        fate(one.bus.publish(topic('reported', identity.id), bytes(String(minute)), acknowledged));
    }
  }
  await world.run(40 * minuteMs);
  return { hash: world.traceSha256(), heard: north.heard.length, violation: world.violation() };
}
const willOfId = (id: string) => ({ topic: topic('presence', id), payload: bytes('lost'), ...kept });

test('the same seed gives the same trace', async () => {
  const hashes = new Set<string>();
  for (let seed = 1; seed <= 8; seed += 1) {
    const first = await swarm(seed);
    assert.deepEqual(await swarm(seed), first);
    assert.equal(first.violation, null);
    assert.ok(first.heard > 0);
    hashes.add(first.hash);
  }
  assert.equal(hashes.size, 8);
});
