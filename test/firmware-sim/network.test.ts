// Why: the simulated network and broker behave as the real ones do, where agent and registry can see it.
// Trusts: the agent's real connection logic on top of it. Must never: let real time in.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { openLine } from '../../agent/bus/line.ts';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import type { CertificateAuthority } from '../../shared/host/certificates.ts';
import {
  deviceTopic,
  enrolClientId,
  enrolReplyTopic,
  enrolRequestTopic,
  everyEnrolRequestFilter,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import { isFleetError } from '../broker/fault.ts';
import {
  acknowledged,
  brokerTls,
  bytes,
  createScene,
  dayMs,
  fate,
  kept,
  minuteMs,
  newAuthority,
  newClaim,
  newDevice,
  once,
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
const willOf = () => ({ topic: topic('presence'), payload: bytes('lost'), ...kept });
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

test('a claim reaches its own enrolment topics and nothing else', async () => {
  const { world, registry, device: boot } = createScene();
  const north = await registry(tls);
  const claim = await newClaim(ca, 14);
  const attempt = 'abcdef0123456789';
  const one = boot(claim, pem, { clientId: enrolClientId(claim.id, attempt), admit: () => 'full' });
  const requests: string[] = [];
  void north.broker.bus.subscribe(everyEnrolRequestFilter(region), ({ topic: asked, payload }) => {
    requests.push(textOf(payload));
    void north.broker.bus.publish(asked.replace(/request$/, 'reply'), bytes('welcome'), acknowledged);
  });
  const replies: string[] = [];
  const heard = fate(
    one.bus.subscribe(enrolReplyTopic(region, claim.id, attempt), ({ payload }) =>
      replies.push(textOf(payload)),
    ),
  );
  await world.run(5_000);
  const request = fate(
    one.bus.publish(enrolRequestTopic(region, claim.id, attempt), bytes('csr'), acknowledged),
  );
  const elsewhere = fate(one.bus.subscribe(topic('desired'), () => undefined));
  await world.run(10_000);
  assert.deepEqual([heard.is, request.is, elsewhere.is], ['done', 'done', 'broker-subscribe-denied']);
  assert.deepEqual([requests, replies], [['csr'], ['welcome']]);
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
