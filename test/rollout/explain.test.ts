// Why: an operator reads why a rollout stands still, thing by thing, and what would move it.
// Trusts: test/fleet/world.ts. Must never: accept a device that waits and does not say for what.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { rolloutFile } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

const spec = {
  waves: [{ count: 1, soak: '1h' }, { percent: 100 }],
  gates: { success: 1, errorRate: 0.01 },
  approvals: { required: 2, waves: [1] },
};

test('explain: each device and wave says why it is where it is and what it waits for', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, ...spec }));
  await world.settle();
  const canary = devices[(await all(devices, assigned)).indexOf(v2)];
  assert.ok(canary);
  const other = devices.find((device) => device !== canary);
  assert.ok(other);
  const said = async () => unwrap(await world.rollouts.explain(id, null));
  const of = async (deviceId: string) => unwrap(await world.rollouts.explain(id, deviceId)).devices[0];

  const first = await said();
  assert.deepEqual(
    first.waves.map(({ state, waitsFor }) => [state, waitsFor]),
    [
      ['running', ['1 device pending']],
      ['pending', ['wave 0, which is running', '2 approvals']],
    ],
  );
  assert.equal(first.devices.length, 3);
  for (const device of first.devices) assert.ok(device.waitsFor !== null, device.id);
  assert.equal((await of(canary.id))?.waitsFor, 'its report about the assignment');
  assert.equal((await of(other.id))?.waitsFor, 'wave 0, which is running');
  assert.equal((await of(other.id))?.runs, v1);

  await canary.obey('soaking');
  await world.settle();
  assert.equal((await of(canary.id))?.waitsFor, 'its soaking to end');
  await canary.obey();
  await world.settle();
  const waits = await said();
  // All is done there, and nothing was measured yet.
  assert.deepEqual(waits.waves[0]?.waitsFor, ['gate errorRate']);
  assert.match(waits.waves[0]?.because ?? '', /^gate errorRate of wave 0: 0 of 1 devices/);
  assert.deepEqual([(await of(canary.id))?.state, (await of(canary.id))?.waitsFor], ['committed', null]);

  unwrap(await world.rollouts.pause(id, 'olga', 'lunch'));
  assert.equal((await of(other.id))?.waitsFor, 'lepton rollout resume');
  const unknown = await world.rollouts.explain(id, 'f'.repeat(32));
  assert.equal(unknown.ok ? 'ok' : unknown.refusal.code, 'device-unknown');
  const none = await world.rollouts.explain('rnone', null);
  assert.equal(none.ok ? 'ok' : none.refusal.code, 'rollout-unknown');
});

test('explain: what failed says why, and the others wait for nothing any more', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, waves: spec.waves }));
  const canary = devices[(await all(devices, assigned)).indexOf(v2)];
  await canary?.obey(golden);
  await world.settle();
  const back = unwrap(await world.rollouts.explain(id, canary?.id ?? null));
  assert.deepEqual(
    [back.state, back.devices[0]?.waitsFor],
    ['rolling-back', 'it to run again what it ran before'],
  );
  await canary?.obey();
  await world.settle();
  const { state, because, devices: told } = unwrap(await world.rollouts.explain(id, null));
  assert.equal(state, 'failed');
  assert.match(because ?? '', /^gate probe of wave 0/);
  assert.equal(told.find((one) => one.id === canary?.id)?.because, 'probe-golden-failed: case 0');
  const other = told.find((one) => one.id !== canary?.id);
  assert.deepEqual([other?.because, other?.waitsFor], ['the rollout is failed', null]);
});
