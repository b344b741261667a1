// Why: the whole agent (real bus, real inference child, real files) against a registry that can also lie.
// Trusts: the stand-in's broker and trust chain, which are the real ones. Must never: wait without a limit.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { type StandIn, strangerSigner } from './registry-stand-in.ts';
import { answerTo, deploy, scene, statusOf, until } from './scene.ts';
import { tinyRelease } from './tiny-model.ts';

test('a claim makes a device; an assigned release is verified, probed, served and reported', async (t) => {
  const { registry, folder, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  assert.match(agent.deviceId, /^[0-9a-f]{32}$/);
  assert.equal(statSync(join(folder, 'state')).mode & 0o777, 0o700);
  assert.equal(statSync(join(folder, 'state', 'state.sqlite')).mode & 0o077, 0);
  await until('it says online', () => registry.presence.includes(true));
  assert.equal((await answerTo(agent)).status, 404);

  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  assert.deepEqual(await answerTo(agent), { status: 200, data: [6, 8], version: '1.0.0' });
  const status = await statusOf(agent);
  assert.equal(status.connected, true);
  assert.equal(status.epoch, 1);
  assert.deepEqual(status.refusals, []);
  const counters = registry.reports.map((report) => report.counter);
  assert.deepEqual(
    counters,
    [...new Set(counters)].sort((a, b) => a - b),
  );
  assert.equal(registry.reports.at(-1)?.epoch, 1);

  await agent.stop();
  await until('it says goodbye', () => registry.presence.at(-1) === false);
});

test('an enrolled device starts without a network, serves, and comes back by itself', async (t) => {
  const { registry, start } = await scene(t);
  const first = await start({ claim: await registry.claim() });
  await deploy(registry, first, 'acme/tiny@1.0.0', 2);
  await first.stop();
  await registry.stop();

  // The claim is long gone; nothing listens on the broker's port.
  const second = await start();
  assert.equal(second.deviceId, first.deviceId);
  assert.deepEqual(await answerTo(second), { status: 200, data: [6, 8], version: '1.0.0' });
  assert.equal((await statusOf(second)).connected, false);

  await registry.start();
  await until('it is back', async () => (await statusOf(second)).connected);
  await deploy(registry, second, 'acme/tiny@1.1.0', 3);
  assert.deepEqual(await answerTo(second), { status: 200, data: [9, 12], version: '1.1.0' });

  // The line breaks under it; it goes on serving and reconnects on the same port.
  await registry.stop();
  await until('it noticed', async () => !(await statusOf(second)).connected);
  assert.equal((await answerTo(second)).status, 200);
  await registry.start();
  await until('it is back again', async () => (await statusOf(second)).connected);
});

test('what both authorities do not agree on is refused before a byte of it is fetched, and reported', async (t) => {
  const { registry, lines, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  const device = agent.deviceId;
  const held = await statusOf(agent);

  const good = registry.release('acme/tiny@1.1.0', tinyRelease(3));
  const other = 'f'.repeat(32);
  const assign = registry.assign;
  const cases: [string, () => Parameters<StandIn['publishDesired']>[1]][] = [
    ['assignment-signature-invalid', () => registry.sign(assign(device, [good]), strangerSigner())],
    ['assignment-other-device', () => registry.sign(assign(other, [good], { epoch: 900 }))],
    ['assignment-other-region', () => registry.sign(assign(device, [good], { region: 'elsewhere' }))],
    ['assignment-epoch-reused', () => registry.sign(assign(device, [good], { epoch: 1 }))],
    [
      'assignment-expired',
      // Long enough ago: the device takes the region's time, which is some milliseconds behind.
      () => registry.sign(assign(device, [good], { epoch: 50, expiresAtMs: Date.now() - 60_000 })),
    ],
    [
      'target-unknown',
      () => registry.sign(assign(device, [{ ...good, releaseId: 'acme/tiny@7.0.0' }], { epoch: 51 })),
    ],
    [
      'target-digest-mismatch',
      () => registry.sign(assign(device, [{ ...good, manifestSha256: 'a'.repeat(64) }], { epoch: 52 })),
    ],
  ];
  const blobsBefore = registry.fetches.filter((fetched) => fetched.startsWith('blob')).length;
  for (const [code, envelope] of cases) {
    await registry.publishDesired(device, envelope());
    await until(`${code} is reported`, () =>
      registry.reports.some((report) => report.refusals.some((refusal) => refusal.code === code)),
    );
    assert.ok(lines.some((line) => line.event === 'assignment.refused' && line.fields['code'] === code));
  }
  // Replayed: an older epoch of this very device, once a newer one is in force.
  await registry.publishDesired(device, registry.sign(assign(device, [], { epoch: 60 })));
  await until('the removal is in force', async () => (await statusOf(agent)).epoch === 60);
  await registry.publishDesired(device, registry.sign(assign(device, [good], { epoch: 2 })));
  const replayed = () =>
    registry.reports.at(-1)?.refusals.some((refusal) => refusal.code === 'assignment-replayed');
  await until('the replay is reported', () => replayed() === true);

  // Below the floor: the publisher withdrew what the director names.
  registry.raiseFloor('tiny', good.counter + 1);
  await registry.publishDesired(device, registry.sign(assign(device, [good], { epoch: 61 })));
  const belowFloor = () =>
    registry.reports.at(-1)?.refusals.some((refusal) => refusal.code === 'release-below-floor');
  await until('the floor holds', () => belowFloor() === true);

  assert.equal(held.epoch, 1);
  assert.equal((await statusOf(agent)).epoch, 60);
  const ids = registry.reports.at(-1)?.refusals.map((refusal) => refusal.id) ?? [];
  assert.deepEqual(
    ids,
    ids.map((_, index) => index + 1),
    'each is stored once',
  );
  assert.equal(registry.fetches.filter((fetched) => fetched.startsWith('blob')).length, blobsBefore);

  // The same bad message again, as a retained one comes at each reconnect: no second record.
  registry.disconnect(device);
  await until('it is back', () => registry.connected().includes(device));
  await registry.publishDesired(device, registry.sign(assign(device, [], { epoch: 62 })));
  await until('it follows on', async () => (await statusOf(agent)).epoch === 62);
  assert.equal((await statusOf(agent)).refusals.length, ids.length);
});

test('a flipped bit in a blob is refused; the old release goes on serving', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  const next = registry.release('acme/tiny@1.1.0', tinyRelease(3));
  registry.tamper.frame = (name, frame) => {
    if (name.length !== 64 || name === next.manifestSha256) return frame;
    const flipped = Uint8Array.from(frame);
    flipped[30] = (flipped[30] ?? 0) ^ 1;
    return flipped;
  };
  await registry.publishDesired(agent.deviceId, registry.sign(registry.assign(agent.deviceId, [next])));
  await until('it is reported', () =>
    registry.reports.some((report) => report.models[0]?.reason?.code === 'blob-digest-mismatch'),
  );
  assert.deepEqual(await answerTo(agent), { status: 200, data: [6, 8], version: '1.0.0' });
});

test('a release that misses its own golden answers is rolled back', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  const wrong = registry.release('acme/tiny@1.1.0', tinyRelease(3, 5));
  await registry.publishDesired(agent.deviceId, registry.sign(registry.assign(agent.deviceId, [wrong])));
  await until('it is reported', () =>
    registry.reports.some((report) => report.models[0]?.reason?.code === 'probe-golden-failed'),
  );
  await until('it rests', async () => (await statusOf(agent)).models[0]?.state === 'idle');
  assert.deepEqual(await answerTo(agent), { status: 200, data: [6, 8], version: '1.0.0' });
});

test('lost frames cost time, not correctness', async (t) => {
  const { registry, start } = await scene(t);
  const card = systemEntropy.bytes(300_000);
  let frames = 0;
  let lost = 0;
  registry.tamper.frame = (name, frame) => {
    if (name !== sha256Hex(card)) return frame;
    frames += 1;
    if (frames % 5 !== 3) return frame;
    lost += 1;
    return null;
  };
  const agent = await start({ claim: await registry.claim(), fetchTimeoutMs: 200 });
  const big = [...tinyRelease(2), { role: 'card', path: 'card.md', bytes: card }];
  const assigned = registry.release('acme/tiny@1.0.0', big);
  await registry.publishDesired(agent.deviceId, registry.sign(registry.assign(agent.deviceId, [assigned])));
  await until('it is committed', async () => (await statusOf(agent)).models[0]?.state === 'committed');
  assert.ok(lost > 3);
  assert.deepEqual(await answerTo(agent), { status: 200, data: [6, 8], version: '1.0.0' });
});

test('a revoked device knows it, goes on serving, and reports it when it is let in again', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  let revoked = true;
  registry.tamper.mayConnect = () => !revoked;
  await registry.disconnect(agent.deviceId);
  await until('it knows', async () => (await statusOf(agent)).refusedBy === 'broker-not-authorized');
  assert.equal((await answerTo(agent)).status, 200);
  revoked = false;
  await until('it reported', () =>
    registry.reports.some((report) =>
      report.refusals.some((refusal) => refusal.code === 'broker-not-authorized'),
    ),
  );
});

test('a rotated director is followed through the region’s own root; the old one is refused', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  const device = agent.deviceId;
  const assigned = registry.release('acme/tiny@1.0.0', tinyRelease(2));
  const byOld = registry.sign(registry.assign(device, [assigned]));
  registry.rotate('director');
  await registry.publishDesired(device, registry.sign(registry.assign(device, [assigned])));
  await until('the new director is obeyed', async () => (await statusOf(agent)).epoch === 2);
  await registry.publishDesired(device, byOld);
  await until('the old one is refused', async () =>
    (await statusOf(agent)).refusals.some((refusal) => refusal.code === 'assignment-signature-invalid'),
  );
});

test('the poll finds what no doorbell announced', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim(), pollMs: 300 });
  const device = agent.deviceId;
  await until('it is online', () => registry.connected().includes(device));
  // The director was faster than the catalogue; the catalogue's doorbell is lost.
  const id = 'acme/tiny@1.0.0';
  const planned = { ...registry.release(id, tinyRelease(2)), releaseId: 'acme/late@1.0.0', as: 'late' };
  await registry.publishDesired(device, registry.sign(registry.assign(device, [planned])));
  await until('it is refused', async () =>
    (await statusOf(agent)).refusals.some((refusal) => refusal.code === 'target-unknown'),
  );
  const late = registry.release('acme/late@1.0.0', tinyRelease(2));
  assert.notEqual(late.manifestSha256, planned.manifestSha256);
  const asked = registry.fetches.filter((fetched) => fetched === 'refresh').length;
  await until('it polled', () => registry.fetches.filter((one) => one === 'refresh').length > asked);
  await until('the newer catalogue is judged', async () =>
    (await statusOf(agent)).refusals.some((refusal) => refusal.code === 'target-digest-mismatch'),
  );
});
