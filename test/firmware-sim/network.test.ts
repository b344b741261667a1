// Why: the simulated network and broker behave as the real ones do where agent and registry can see it, fail only
// as they are told to, and do the same again from the same seed.
// Trusts: the agent's real connection logic on top of it. Must never: let real time in.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { openLine } from '../../agent/bus/line.ts';
import { guarded } from '../../firmware-sim/guard.ts';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import type { CertificateAuthority } from '../../shared/host/certificates.ts';
import { deviceTopic, tufTimestampTopic } from '../../shared/wire/topics.ts';
import { isFleetError } from '../broker/fault.ts';
import {
  brokerTls,
  bytes,
  createScene,
  dayMs,
  newAuthority,
  newDevice,
  region,
  type SceneDevice,
  startMs,
  type TestDevice,
  textOf,
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
const once = { qos: 0, retain: false } as const;
const acknowledged = { qos: 1, retain: false } as const;
const kept = { qos: 1, retain: true } as const;
const minuteMs = 60_000;
const willOf = () => ({ topic: topic('presence'), payload: bytes('lost'), ...kept });
/** What became of a promise, without waiting for it. */
function fate(work: Promise<unknown>): { is: string } {
  const told = { is: 'open' };
  work.then(
    () => {
      told.is = 'done';
    },
    (error: unknown) => {
      told.is = error instanceof Error && 'code' in error ? String(error.code) : 'failed';
    },
  );
  return told;
}
const connectedAt = (one: SceneDevice) => one.status.find(({ status }) => status === 'connected')?.atMs;

test('publishes with acknowledgement, hears what is retained, stops hearing, and leaves without a last will', async () => {
  const { world, registry, device: boot } = createScene();
  const north = await registry(tls);
  void north.broker.bus.publish(topic('desired'), bytes('kept'), kept);
  const one = boot(device, pem, { will: willOf() });
  const heard: string[] = [];
  const subscription = one.bus.subscribe(topic('desired'), ({ payload, retained }) =>
    heard.push(`${textOf(payload)} ${retained}`),
  );
  await assert.rejects(
    one.bus.publish(topic('reported'), bytes('early'), acknowledged),
    isFleetError('bus-offline'),
  );
  await world.run(5_000);
  assert.deepEqual(one.states(), ['connected']);
  assert.deepEqual(north.broker.connectedDevices(), [device.id]);
  assert.deepEqual(heard, ['kept true']);
  const report = fate(one.bus.publish(topic('reported'), bytes('report'), acknowledged));
  const asked = fate(one.bus.publish(topic('fetch'), bytes('ask'), once));
  void north.broker.bus.publish(topic('desired'), bytes('next'), kept);
  assert.equal(report.is, 'open');
  await world.run(10_000);
  assert.deepEqual([report.is, asked.is], ['done', 'done']);
  assert.deepEqual(
    north.heard.map(({ text }) => text),
    ['report', 'ask'],
  );
  assert.deepEqual(heard, ['kept true', 'next false']);
  void (await subscription).cancel();
  await world.run(11_000);
  void north.broker.bus.publish(topic('desired'), bytes('unheard'), kept);
  await world.run(12_000);
  assert.equal(heard.length, 2);
  const closed = fate(one.bus.close());
  await world.run(3 * minuteMs);
  assert.equal(closed.is, 'done');
  assert.deepEqual(north.presence, [`+${device.id}`, `-${device.id}`]);
  assert.ok(!north.heard.some(({ text }) => text === 'lost'));
  assert.equal(world.violation(), null);
});

test('whoever may not come is told why as the real broker tells it, and goes on trying', async () => {
  const { world, registry, device: boot, barred } = createScene();
  const north = await registry(tls);
  const foreign = await newAuthority(2);
  const wrongCa = boot(device, foreign.certificatePem, { node: 'wrong-ca' });
  const wrongHost = boot(device, pem, { node: 'wrong-host', url: 'mqtts://elsewhere.example:8883' });
  const stranger = boot(await newDevice(foreign, 12), pem, { node: 'stranger' });
  const borrower = boot(other, pem, { node: 'borrower', clientId: device.id });
  const wrongKey = boot({ ...other, key: device.key }, pem, { node: 'wrong-key' });
  const trespasser = boot(other, pem, { node: 'trespasser', will: willOf() });
  barred.add(device.id);
  const revoked = boot(device, pem);
  await world.run(minuteMs);
  const codesOf = (one: SceneDevice) => [...new Set(one.states())];
  assert.deepEqual(codesOf(wrongCa), ['broker-server-untrusted']);
  assert.deepEqual(codesOf(wrongHost), ['broker-server-untrusted']);
  // TLS 1.3: the client is done before the server has judged it, and is hung up on.
  assert.deepEqual(codesOf(stranger), ['broker-unreachable']);
  assert.ok(north.refused.includes('broker-certificate-untrusted'));
  assert.deepEqual(codesOf(borrower), ['broker-client-id-borrowed']);
  assert.deepEqual(codesOf(wrongKey), ['broker-unreachable']);
  assert.deepEqual(codesOf(trespasser), ['broker-not-authorized']);
  assert.deepEqual(codesOf(revoked), ['broker-not-authorized']);
  barred.delete(device.id);
  await world.run(3 * minuteMs);
  assert.ok(revoked.bus.connected());
});

test('what a device may not do: a foreign topic ends its connection, a denied subscription only itself', async () => {
  const { world, registry, device: boot } = createScene();
  const north = await registry(tls);
  const one = boot(device, pem);
  await world.run(5_000);
  const denied = fate(one.bus.subscribe(topic('desired', other.id), () => undefined));
  await world.run(6_000);
  assert.equal(denied.is, 'broker-subscribe-denied');
  assert.ok(one.bus.connected());
  const trespass = fate(one.bus.publish(topic('desired'), bytes('mine'), kept));
  await world.run(7_000);
  assert.equal(trespass.is, 'bus-offline');
  assert.deepEqual(north.refused, ['broker-subscribe-denied', 'broker-publish-denied']);
  await world.run(minuteMs);
  assert.deepEqual(one.states(), ['connected', 'disconnected', 'connected']);
});

test('a device whose certificate has expired gets a session to renew it, and counts as absent', async () => {
  const { world, network, registry, log, barred } = createScene();
  const north = await registry(tls);
  const late = await newDevice(ca, 13, startMs - dayMs);
  const of = world.boot('device-1');
  const clock = world.clock(of);
  const limited: string[] = [];
  const nobody = (): never => assert.fail('not asked for');
  const line = await openLine({
    identity: () => ({
      seed: late.seed,
      deviceId: late.id,
      certificate: late.cert,
      region,
      brokerUrl: 'mqtts://broker.example:8883',
      fleetCa: pem,
      labels: {},
      telemetryEpoch: 1,
      claimId: 'c',
      settled: true,
      authoritiesIssuedAtMs: 0,
      proven: null,
    }),
    time: {
      nowMs: nobody,
      floorMs: nobody,
      source: nobody,
      answered: nobody,
      proven: nobody,
      follow: nobody,
      signed: () => ({ nowMs: startMs, ageMs: 1 }),
    },
    connect: network.connect(of),
    onBytes: nobody,
    onDesired: nobody,
    onTimestamp: nobody,
    onTelemetryAnswer: nobody,
    onTimeAnswer: nobody,
    onRenewal: nobody,
    onUp: nobody,
    onDown: () => undefined,
    onLimited: async (session) => {
      limited.push(session);
      await line.bus.publish(topic('renew', late.id), bytes('renew me'), acknowledged);
      await assert.rejects(
        line.bus.publish(topic('reported', late.id), bytes('no'), acknowledged),
        isFleetError('bus-offline'),
      );
      return { next: { afterMs: 5 * minuteMs }, renewed: false };
    },
    onProven: nobody,
    onRefused: nobody,
    clock,
    entropy: world.entropy(of),
    log: log(of),
  });
  await world.run(minuteMs);
  assert.deepEqual(limited, ['renewal']);
  assert.deepEqual(
    north.heard.map(({ text }) => text),
    ['renew me'],
  );
  assert.deepEqual(north.broker.connectedDevices(), []);
  assert.deepEqual(north.refused, ['certificate-expired']);
  assert.equal(barred.size, 0);
});

test('a second holder of the key takes the connection over, and the last will of the first is heard', async () => {
  const { world, network, registry, device: boot } = createScene();
  const north = await registry(tls);
  const one = boot(device, pem, { will: willOf() });
  await world.run(5_000);
  const thief = boot(device, pem, { node: 'device-1-stolen' });
  await world.run(6_500);
  const takenAtMs = connectedAt(thief) ?? assert.fail('not connected');
  assert.equal(one.states()[1], 'disconnected');
  const will = north.heard[0];
  assert.ok(will?.text === 'lost' && will.atMs <= takenAtMs);
  assert.equal(network.connections().length, 1);
  await world.run(5 * minuteMs);
  // Each takes it from the other.
  assert.ok(one.states().filter((state) => state === 'connected').length > 1);
  assert.equal(north.broker.connectedDevices().length, 1);
});

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

  network.partition('*', 2 * minuteMs);
  await world.run(world.nowMs() + minuteMs);
  assert.deepEqual([one.bus.connected(), beside.bus.connected()], [false, false]);
  await world.run(world.nowMs() + 20 * minuteMs);
  assert.deepEqual([one.bus.connected(), beside.bus.connected()], [true, true]);
});

test('without its registry a device is refused; the next life of the registry retains nothing', async () => {
  const { world, registry, device: boot } = createScene();
  const first = await registry(tls);
  const one = boot(device, pem);
  const heard: string[] = [];
  void one.bus.subscribe(tufTimestampTopic(region), ({ payload }) => heard.push(textOf(payload)));
  void first.broker.bus.publish(tufTimestampTopic(region), bytes('1'), kept);
  await world.run(5_000);
  assert.deepEqual(heard, ['1']);
  world.kill(first.of);
  await world.run(4 * minuteMs);
  assert.deepEqual([...new Set(one.states())], ['connected', 'disconnected', 'broker-unreachable']);
  // Dead is dead: nobody was told anything.
  assert.deepEqual(first.presence, [`+${device.id}`]);
  const second = await registry(tls);
  await world.run(14 * minuteMs);
  assert.ok(one.bus.connected());
  assert.deepEqual(heard, ['1']);
  assert.deepEqual(second.presence, [`+${device.id}`]);
  const before = one.states().length;
  await second.broker.close();
  await world.run(14 * minuteMs + 1_000);
  assert.equal(one.states()[before], 'disconnected');
  assert.deepEqual(second.presence, [`+${device.id}`]);
});

test('the same registry running twice: a device is where its address leads', async () => {
  const { world, network, registry, device: boot } = createScene();
  const north = await registry(tls);
  const twin = await registry(tls, 'registry-b');
  const one = boot(device, pem);
  await world.run(5_000);
  network.route('device-1', 'registry-b');
  assert.deepEqual(network.connections(), [{ device: 'device-1', registry: 'registry' }]);
  void north.broker.bus.disconnect(device.id);
  await world.run(minuteMs);
  assert.ok(one.bus.connected());
  assert.deepEqual(network.connections(), [{ device: 'device-1', registry: 'registry-b' }]);
  assert.deepEqual([north.broker.connectedDevices(), twin.broker.connectedDevices()], [[], [device.id]]);
});

test('a broker that forgets ends every connection and what it retained', async () => {
  const { world, registry, device: boot } = createScene({ faults: ['broker.forget registry 1'] });
  const north = await registry(tls);
  void north.broker.bus.publish(topic('desired'), bytes('kept'), kept);
  const one = boot(device, pem);
  const heard: string[] = [];
  void one.bus.subscribe(topic('desired'), ({ payload }) => heard.push(textOf(payload)));
  await world.run(5_000);
  void north.broker.bus.publish(topic('command'), bytes('ring'), acknowledged);
  await world.run(minuteMs);
  assert.deepEqual(one.states(), ['connected', 'disconnected', 'connected']);
  assert.deepEqual(heard, ['kept']);
});

test('bulk says whether it left, and waits for a device that does not read', async () => {
  const { world, network, registry, device: boot } = createScene();
  const north = await registry(tls);
  const { bus } = north.broker;
  const one = boot(device, pem);
  const frames: number[] = [];
  const away = fate(
    bus.sendBulk(device.id, topic('bytes'), bytes('x')).then((left) => assert.equal(left, false)),
  );
  await world.run(5_000);
  assert.equal(away.is, 'done');
  const unheard = fate(
    bus.sendBulk(device.id, topic('bytes'), bytes('x')).then((left) => assert.equal(left, false)),
  );
  void one.bus.subscribe(topic('bytes'), ({ payload }) => frames.push(payload.length));
  await world.run(6_000);
  assert.equal(unheard.is, 'done');
  const sent: boolean[] = [];
  const pour = async () => {
    for (let frame = 0; frame < 40; frame += 1)
      sent.push(await bus.sendBulk(device.id, topic('bytes'), new Uint8Array(250_000)));
  };
  void pour();
  await world.run(20_000);
  assert.deepEqual([sent.length, frames.length, new Set(sent).size], [40, 40, 1]);
  network.partition('device-1');
  void pour();
  await world.run(21_000);
  assert.ok(sent.length < 60, `${sent.length} frames left for nowhere`);
  assert.ok(north.broker.waitingBytes(device.id) > 0);
  await world.run(5 * minuteMs);
  assert.equal(sent.at(-1), false);
});

test('other certificates of the broker end the connections of authorities that are gone', async () => {
  const { world, registry, device: boot } = createScene();
  const north = await registry(tls);
  const one = boot(device, pem);
  await world.run(5_000);
  const fresh = await newAuthority(4);
  const freshTls = await brokerTls(fresh);
  north.broker.useTls(tls);
  await world.run(6_000);
  assert.deepEqual(one.states(), ['connected']);
  north.broker.useTls(freshTls);
  await world.run(minuteMs);
  assert.deepEqual([...new Set(one.states())], ['connected', 'disconnected', 'broker-server-untrusted']);
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
