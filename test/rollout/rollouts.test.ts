// Why: rollouts end as their devices' own reports say: succeeded, failed and taken back, paused, aborted.
// Trusts: test/fleet/world.ts. Must never: check prose; states, verdicts and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { rolloutStatusSchema } from '../../shared/wire/rollouts.ts';
import { refusalOf, rolloutFile } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

test('a rollout succeeds when every device has committed', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  const id = await world.start(rolloutFile('digits', { release: v1, gates: { success: 1 } }));
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);
  let status = await world.status(id);
  assert.deepEqual(rolloutStatusSchema.parse(status), status);
  assert.equal(status.state, 'running');
  assert.deepEqual(status.waves[0]?.devices, { total: 3, pending: 3 });
  assert.deepEqual(
    status.gates.map((gate) => [gate.gate, gate.verdict]),
    [
      ['probe', 'waiting'],
      ['success', 'waiting'],
    ],
  );

  await devices[0]?.obey('fetching');
  await devices[1]?.obey();
  await world.settle();
  status = await world.status(id);
  assert.deepEqual(status.waves[0]?.devices, { total: 3, pending: 1, fetching: 1, committed: 1 });
  await all(devices, (device) => device.obey());
  await world.settle();
  status = await world.status(id);
  assert.equal(status.state, 'succeeded');
  assert.equal(status.waves[0]?.state, 'passed');
  assert.deepEqual(
    status.gates.map((gate) => [gate.gate, gate.value, gate.devices, gate.verdict]),
    [
      ['probe', 1, 3, 'pass'],
      ['success', 1, 3, 'pass'],
    ],
  );
  assert.deepEqual(
    status.devices.map((device) => [device.state, device.release]),
    Array(3).fill(['committed', v1]),
  );
  assert.equal((await world.events('rollout-succeeded')).length, 1);
  const [summary] = await world.rollouts.list();
  assert.deepEqual(
    [summary?.id, summary?.state, summary?.as, summary?.release],
    [id, 'succeeded', 'digits', v1],
  );
});

test('a store that fails while due rollouts are looked up ends nothing: the rollout goes on', async (t) => {
  const world = await world2(t);
  const [device] = await world.devices(1);
  const id = await world.start(rolloutFile('digits', { release: v1 }));
  const { store } = world.core;
  const { tx } = store;
  let failures = 0;
  // Whatever is asked for now: the report itself is lost too, and comes again.
  store.tx = async () => {
    failures += 1;
    throw new FleetError('disk-full', 'no space');
  };
  await world.pass(10_000);
  store.tx = tx;
  assert.ok(failures > 0, 'the store was asked while it failed');
  assert.equal(world.log.events.filter(({ event }) => event === 'rollout.step.failed').length, failures);
  await device?.obey();
  await world.pass(10_000);
  assert.equal((await world.status(id)).state, 'succeeded');
});

test('whichever read or write of the first look fails, devices that were there before are assigned', async (t) => {
  for (let failing = 1; failing <= 6; failing += 1) {
    const world = await world2(t);
    const [device] = await world.devices(1);
    await world.pass(10_000);
    const { store } = world.core;
    const { tx } = store;
    let since = 0;
    store.tx = async (work) => {
      if (world.log.events.some(({ event }) => event === 'rollout.transition')) since += 1;
      if (since === failing) throw new FleetError('disk-io', 'simulated');
      return tx(work);
    };
    await world.start(rolloutFile('digits', { release: v1 }));
    await world.pass(60_000);
    store.tx = tx;
    assert.ok(since >= failing, `${failing} of ${since}`);
    assert.equal((await device?.assignment())?.releases[0]?.releaseId, v1, `the ${failing}. failed`);
    await world.close();
  }
});

test('a rollout that asks for agreement is assigned, with its fraction', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(1);
  await onRelease1(world, devices);
  const shadow = { requests: 30, timeout: '5m' };
  await world.start(rolloutFile('digits-2', { release: v2, shadow, gates: { agreement: 0.95 } }));
  const assignment = await devices[0]?.assignment();
  assert.equal(assignment?.releases[0]?.releaseId, v2);
  assert.equal(assignment?.releases[0]?.policy.shadow?.agreementMin, 0.95);
});

test('the wave soaks on the device before it passes', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const id = await world.start(
    rolloutFile('digits', { release: v1, waves: [{ percent: 100, soak: '10m' }] }),
  );
  const policy = (await devices[0]?.assignment())?.releases[0]?.policy;
  assert.equal(policy?.soakMs, 600_000);
  await all(devices, (device) => device.obey('soaking'));
  await world.settle();
  assert.equal((await world.status(id)).waves[0]?.state, 'soaking');
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(id)).state, 'succeeded');
});

test('one golden case that fails: gate probe, every device goes back to what it had', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2 }));
  const [canary, second, third] = devices;
  assert.ok(canary && second && third);
  await second.obey();
  await third.obey('fetching');
  await canary.obey(golden);
  await world.settle();
  let status = await world.status(id);
  assert.equal(status.state, 'rolling-back');
  assert.deepEqual(
    status.gates.map((gate) => [gate.gate, gate.verdict]),
    [['probe', 'fail']],
  );
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);
  await all(devices, (device) => device.obey());
  await world.settle();
  status = await world.status(id);
  assert.equal(status.state, 'failed');
  assert.match(status.reason ?? '', /^gate probe of wave 0: .*probe-golden-failed/);
  assert.equal(status.waves[0]?.state, 'failed');
  const failed = status.devices.find((device) => device.id === canary.id);
  assert.deepEqual(
    [failed?.state, failed?.reason, failed?.release],
    ['idle', 'probe-golden-failed: case 0', v1],
  );
  assert.ok(status.devices.every((device) => device.release === v1));
  // Every device holds a new epoch, none an old one.
  assert.ok(
    (await all(devices, async (device) => (await device.assignment())?.epoch)).every((epoch) => epoch === 4),
  );
});

test('a first release that fails is removed', async (t) => {
  const world = await world2(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const id = await world.start(rolloutFile('digits', { release: v1 }));
  await device.obey({ code: 'blob-digest-mismatch', detail: 'a bit' });
  await world.settle();
  assert.deepEqual((await device.assignment())?.releases, []);
  await device.obey();
  await world.settle();
  const status = await world.status(id);
  assert.equal(status.state, 'failed');
  // It never came as far as its probe: nobody has tried the release, so nobody else gets it.
  assert.deepEqual(
    status.gates.map((gate) => [gate.gate, gate.value, gate.verdict]),
    [['probe', null, 'fail']],
  );
});

test('the success gate bears what it says, for the probe too, and fails as soon as it cannot be met', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(4);
  const id = await world.start(rolloutFile('bears', { release: v1, gates: { success: 0.75 } }));
  await devices[0]?.obey(golden);
  await world.settle();
  assert.equal((await world.status(id)).state, 'running');
  await all(devices.slice(1), (device) => device.obey());
  await world.settle();
  let status = await world.status(id);
  assert.equal(status.state, 'succeeded');
  assert.deepEqual(
    status.gates.map((gate) => [gate.gate, gate.value, gate.verdict]),
    [
      ['probe', 0.75, 'pass'],
      ['success', 0.75, 'pass'],
    ],
  );
  const next = await world.start(rolloutFile('fails', { release: v2, gates: { success: 0.75 } }));
  const missed = { code: 'deadline-missed', detail: 'fetching' };
  await devices[0]?.obey(missed);
  await world.settle();
  assert.equal((await world.status(next)).state, 'running');
  await devices[1]?.obey(missed);
  await world.settle();
  status = await world.status(next);
  assert.equal(status.state, 'rolling-back');
  assert.deepEqual(
    status.gates.map((gate) => [gate.gate, gate.verdict]),
    [
      ['probe', 'waiting'],
      ['success', 'fail'],
    ],
  );
  // Device 0 had failed release 1 and never ran it: what it goes back to is nothing.
  assert.deepEqual(await all(devices, assigned), [null, v1, v1, v1]);
});

test('onGateFailure: pause leaves everything where it is', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, onGateFailure: 'pause' }));
  await devices[0]?.obey(golden);
  await devices[1]?.obey();
  await world.settle();
  const status = await world.status(id);
  assert.deepEqual([status.state, status.waves[0]?.state], ['paused', 'failed']);
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
  unwrap(await world.rollouts.abort(id, 'tester', true));
  await world.settle();
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(id)).state, 'aborted');
  assert.deepEqual(await all(devices, assigned), [v1, v1]);
  assert.equal(refusalOf(await world.rollouts.abort(id, 'tester', null)), 'rollout-state');
  assert.equal(refusalOf(await world.rollouts.abort('rnone', 'tester', null)), 'rollout-unknown');
});

test('abort keeps what is assigned unless the file or the operator says revert', async (t) => {
  const world = await world2(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await onRelease1(world, [device]);
  const kept = await world.start(rolloutFile('kept', { release: v2 }));
  unwrap(await world.rollouts.abort(kept, 'tester', null));
  await world.settle();
  assert.equal((await world.status(kept)).state, 'aborted');
  assert.equal(await assigned(device), v2);
  // What the device makes of it is still seen.
  await device.obey();
  await world.settle();
  assert.equal((await world.status(kept)).devices[0]?.state, 'committed');
  const reverted = await world.start(rolloutFile('reverted', { release: v1, onAbort: 'revert' }));
  unwrap(await world.rollouts.abort(reverted, 'tester', null));
  await world.settle();
  assert.equal((await world.status(reverted)).state, 'rolling-back');
  assert.equal(await assigned(device), v2);
  await device.obey();
  await world.settle();
  assert.equal((await world.status(reverted)).state, 'aborted');
});

test('unreachable: wait says what it waits for, ignore ends, fail counts', async (t) => {
  for (const [counts, state] of [
    ['wait', 'running'],
    ['ignore', 'succeeded'],
    ['fail', 'rolling-back'],
  ] as const) {
    const world = await world2(t);
    const devices = await world.devices(3);
    const [away] = devices;
    assert.ok(away);
    away.offline();
    const deadlines = { unreachable: { after: '30s', counts } };
    const id = await world.start(rolloutFile('digits', { release: v1, gates: { success: 1 }, deadlines }));
    await all(devices.slice(1), (device) => device.obey());
    await world.pass(20_000);
    assert.equal((await world.status(id)).state, 'running', counts);
    await world.pass(20_000);
    const status = await world.status(id);
    assert.equal(status.state, state, counts);
    if (counts === 'wait') assert.match(status.reason ?? '', /waiting for 1 unreachable device/);
    if (counts === 'fail') continue;
    assert.equal(status.waves[0]?.devices['unreachable'], 1);
    // When it comes back it takes its place.
    away.online();
    await away.obey();
    await world.settle();
    const after = await world.status(id);
    assert.equal(after.state, 'succeeded', counts);
    assert.deepEqual(after.waves[0]?.devices, { total: 3, committed: 3 });
  }
});

test('a device that is there and never answers ends after all its deadlines', async (t) => {
  const world = await world2(t);
  await world.devices(1);
  const deadlines = { fetching: '10s', probing: '10s', soaking: '10s' };
  const id = await world.start(rolloutFile('digits', { release: v1, gates: { success: 1 }, deadlines }));
  world.clock.advance(2_020_000);
  await world.settle();
  assert.equal((await world.status(id)).state, 'running');
  world.clock.advance(20_000);
  await world.settle();
  assert.notEqual((await world.status(id)).state, 'running');
  assert.match((await world.status(id)).reason ?? '', /deadline-missed/);
});

test('reports about an older assignment are no news', async (t) => {
  const world = await world2(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await onRelease1(world, [device]);
  await world.start(rolloutFile('second', { release: v2 }));
  // It has not heard of release 2 yet when release 1 is wanted again, which it still runs.
  const third = await world.start(rolloutFile('third', { release: v1 }));
  device.report();
  await world.settle();
  assert.equal((await world.status(third)).state, 'running');
  await device.obey();
  await world.settle();
  assert.equal((await world.status(third)).state, 'succeeded');
});

test('a revoked device is not waited for', async (t) => {
  const world = await world2(t);
  const [device, gone] = await world.devices(2);
  assert.ok(device && gone);
  const id = await world.start(rolloutFile('digits', { release: v1, gates: { success: 1 } }));
  await device.obey();
  unwrap(await world.fleet.devices.revoke(gone.id, 'tester'));
  await world.settle();
  assert.equal((await world.status(id)).state, 'succeeded');
});

test('an unknown release is refused; two names on one device do not touch each other', async (t) => {
  const world = await world2(t);
  await world.push('acme/faces@1.0.0', 1);
  const begin = async (spec: Record<string, unknown>) =>
    world.rollouts.begin(unwrap(parseRolloutFile(rolloutFile('x', spec))), 'tester');
  assert.equal(refusalOf(await begin({ release: 'acme/digits@9.0.0' })), 'release-unknown');
  const [device] = await world.devices(1);
  assert.ok(device);
  const digits = await world.start(rolloutFile('digits', { release: v1, as: 'left' }));
  const faces = await world.start(rolloutFile('faces', { release: 'acme/faces@1.0.0', as: 'right' }));
  assert.deepEqual(
    (await device.assignment())?.releases.map((release) => release.as),
    ['left', 'right'],
  );
  await device.obey();
  await world.settle();
  assert.equal((await world.status(digits)).state, 'succeeded');
  assert.equal((await world.status(faces)).state, 'succeeded');
});
