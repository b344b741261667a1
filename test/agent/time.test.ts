// Why: a device whose clock is decades off still connects, learns the time from its region and installs; one that
// is lied to about the time does not. Trusts: the stand-in's broker, TLS and signatures, which are the real ones.
// Must never: wait without a limit.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { signTime } from '../../shared/trust/time.ts';
import { wallAt } from './hand-clock.ts';
import { strangerSigner } from './registry-stand-in.ts';
import { answerTo, deploy, scene, statusOf, until } from './scene.ts';
import { tinyRelease } from './tiny-model.ts';

const dayMs = 86_400_000;
const years = [
  ['a device that believes it is long before', Date.UTC(2050, 5, 1)],
  ['a device that believes it is long after', Date.UTC(2000, 5, 1)],
] as const;

for (const [name, registryMs] of years) {
  test(`${name}: it asks for the time alone, then connects and installs`, async (t) => {
    const { registry, lines, start } = await scene(t, { clock: wallAt(systemClock, registryMs) });
    const agent = await start({ claim: await registry.claim() });
    await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
    assert.equal((await answerTo(agent)).status, 200);
    const status = await statusOf(agent);
    assert.equal(status.clock.source, 'signed');
    assert.ok(Math.abs((status.clock.nowMs ?? 0) - registryMs) < dayMs);
    assert.ok(Math.abs(status.clock.floorMs - registryMs) < dayMs);
    assert.deepEqual(status.refusals, [], 'its own clock was wrong, nobody attacked');
    const sessions = lines
      .filter((line) => line.event === 'bus.connected')
      .map((line) => line.fields['limited']);
    assert.ok(sessions.includes(true), 'the first session was for the time alone');
    assert.equal(registry.reports.at(-1)?.clock?.source, 'signed');
  });

  test(`${name}, and is lied to: nothing but the time is ever asked, nothing is installed`, async (t) => {
    const { registry, start } = await scene(t, { clock: wallAt(systemClock, registryMs) });
    registry.tamper.time = (_honest, statement) => [signTime(statement, strangerSigner())];
    const agent = await start({ claim: await registry.claim(), timeAnswerMs: 300 });
    const assigned = registry.release('acme/tiny@1.0.0', tinyRelease(2));
    await registry.publishDesired(agent.deviceId, registry.sign(registry.assign(agent.deviceId, [assigned])));
    await until('it asked several times', () => registry.asked.time >= 3);
    const status = await statusOf(agent);
    assert.equal(status.connected, false);
    assert.equal(status.clock.source, 'wall');
    assert.equal(status.epoch, 0);
    assert.deepEqual(registry.fetches, []);
    assert.deepEqual(registry.reports, []);
    assert.deepEqual(registry.presence, [], 'not even its presence');
    assert.equal(status.attacks.last?.code, 'time-signature-invalid');
    // The lie ends: it needs nobody's help to go on.
    delete registry.tamper.time;
    await until('it is connected', async () => (await statusOf(agent)).connected);
    await until('it took the assignment', async () => (await statusOf(agent)).epoch === 1);
  });
}

test('forged answers move nothing, and the genuine one is still taken', async (t) => {
  const { registry, lines, start } = await scene(t);
  const in2099 = Date.UTC(2099, 0, 1);
  registry.tamper.time = (honest, statement) => {
    const signer = strangerSigner();
    return [
      signTime({ ...statement, timeMs: in2099 }, signer),
      registrySigned({ ...statement, timeMs: in2099, nonce: 'f'.repeat(32) }),
      registrySigned({ ...statement, timeMs: in2099, deviceId: 'f'.repeat(32) }),
      honest,
    ];
  };
  const registrySigned = (statement: Parameters<typeof signTime>[0]) =>
    signTime(statement, registry.timeSigner());
  const agent = await start({ claim: await registry.claim() });
  const verified = () => lines.filter((line) => line.event === 'clock.verified').length;
  await until('it knows the time', () => verified() > 0);
  const status = await statusOf(agent);
  assert.ok(Math.abs(status.clock.floorMs - Date.now()) < dayMs);
  const codes = status.refusals.map(({ code }) => code);
  assert.deepEqual([...new Set(codes)].sort(), ['time-replayed', 'time-signature-invalid']);
  assert.ok(status.refusals.every(({ attack }) => attack));
  assert.equal(verified(), 1);
  await until('it is reported', () =>
    registry.reports.some((report) => report.refusals.some(({ attack }) => attack)),
  );
});

test('a broker whose certificate is over by verified time is refused, whatever the device’s clock says', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await until('it is connected', async () => (await statusOf(agent)).connected);
  await agent.stop();
  // Its own clock stands where the certificate was good; the region says that two months have gone by.
  registry.tamper.time = (_honest, statement) => [
    signTime({ ...statement, timeMs: Date.now() + 60 * dayMs }, registry.timeSigner()),
  ];
  const again = await start();
  await until('it left', async () => (await statusOf(again)).refusedBy === 'broker-server-untrusted');
  const status = await statusOf(again);
  assert.equal(status.connected, false);
  assert.equal(status.attacks.last?.code, 'broker-server-untrusted');
});

test('expiry at either end of the clock blocks what is new and never what runs', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  await agent.stop();
  await registry.stop();
  for (const wallMs of [0, Date.UTC(2099, 0, 1)]) {
    const off = await start({ clock: wallAt(systemClock, wallMs) });
    assert.deepEqual(await answerTo(off), { status: 200, data: [6, 8], version: '1.0.0' });
    const { clock } = await statusOf(off);
    assert.ok((clock.nowMs ?? 0) >= clock.floorMs, 'never before what was verified');
    await off.stop();
  }
});

test('a stolen time key that said 2099 is undone by the region’s next root', async (t) => {
  const { registry, start } = await scene(t);
  const in2099 = Date.UTC(2099, 0, 1);
  registry.tamper.time = (_honest, statement) => [
    signTime({ ...statement, timeMs: in2099 }, registry.timeSigner()),
  ];
  const agent = await start({ claim: await registry.claim(), pollMs: 400 });
  await until('it believes the thief', async () => (await statusOf(agent)).clock.floorMs === in2099);
  await agent.stop();

  // By its own clock the line holds; by the floor everything has expired.
  registry.tamper.time = () => [];
  const again = await start({ pollMs: 400 });
  const assigned = registry.release('acme/tiny@1.0.0', tinyRelease(2));
  await registry.publishDesired(agent.deviceId, registry.sign(registry.assign(agent.deviceId, [assigned])));
  await until('it refuses', async () =>
    (await statusOf(again)).refusals.some(({ code }) => code === 'assignment-expired'),
  );
  registry.rotate('time');
  delete registry.tamper.time;
  await until('the floor is gone', async () => (await statusOf(again)).clock.floorMs < in2099);
  await until('it installs', () =>
    registry.reports.some((report) => report.models[0]?.state === 'committed'),
  );
  assert.equal((await answerTo(again)).status, 200);
});

test('a director that was replaced no longer binds the device to its epochs', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  const device = agent.deviceId;
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  // The thief leaves an epoch that no honest director would ever reach.
  const far = registry.assign(device, registry.assigned(), { epoch: 1_000_000 });
  await registry.publishDesired(device, registry.sign(far));
  await until('the thief is obeyed', async () => (await statusOf(agent)).epoch === 1_000_000);
  registry.rotate('director');
  const next = registry.release('acme/tiny@1.1.0', tinyRelease(3));
  await registry.publishDesired(device, registry.sign(registry.assign(device, [next], { epoch: 7 })));
  await until('the new director is obeyed', async () => (await statusOf(agent)).epoch === 7);
  await until('it serves what was assigned', async () => (await answerTo(agent)).version === '1.1.0');
  await registry.publishDesired(device, registry.sign(registry.assign(device, [next], { epoch: 6 })));
  await until('epochs bind again', async () =>
    (await statusOf(agent)).refusals.some(({ code }) => code === 'assignment-replayed'),
  );
});
