// Why: a canary wave first, the rest only when it passed; a bad release never leaves the canary.
// Trusts: test/fleet/world.ts. Must never: check prose; states, verdicts and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { wavesOf } from '../../registry/rollout/waves.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { rolloutFile } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

const canaryFirst = { waves: [{ count: 1, soak: '10s' }, { percent: 50 }, { percent: 100 }] };

test('each wave begins when the one before it passed', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(4);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, ...canaryFirst }));
  const onV2 = async (): Promise<number> =>
    (await all(devices, assigned)).filter((release) => release === v2).length;
  const waves = async (): Promise<string[]> => (await world.status(id)).waves.map((wave) => wave.state);

  assert.equal(await onV2(), 1);
  assert.deepEqual(await waves(), ['running', 'pending', 'pending']);
  // Devices of later waves do not move by being there.
  await all(devices, (device) => device.obey('soaking'));
  await world.settle();
  assert.equal(await onV2(), 1);
  assert.deepEqual(await waves(), ['soaking', 'pending', 'pending']);

  for (const [expected, states] of [
    [2, ['passed', 'running', 'pending']],
    [4, ['passed', 'passed', 'running']],
    [4, ['passed', 'passed', 'passed']],
  ] as const) {
    await all(devices, (device) => device.obey());
    await world.settle();
    assert.equal(await onV2(), expected);
    assert.deepEqual(await waves(), states);
  }
  assert.equal((await world.status(id)).state, 'succeeded');

  // Who comes after the end gets what the rollout brought.
  const [late] = await world.devices(1);
  assert.ok(late);
  await world.settle();
  assert.equal(await assigned(late), v2);
});

test('a release that fails on the canary reaches nobody else', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(4);
  await onRelease1(world, devices);
  const epochs = await all(devices, async (device) => (await device.assignment())?.epoch);
  const id = await world.start(rolloutFile('digits-2', { release: v2, ...canaryFirst }));
  const reached = await all(devices, assigned);
  const canary = devices[reached.indexOf(v2)];
  assert.ok(canary);
  await canary.obey(golden);
  await world.settle();
  await canary.obey();
  await world.settle();

  const status = await world.status(id);
  assert.equal(status.state, 'failed');
  assert.deepEqual(
    status.waves.map((wave) => wave.state),
    ['failed', 'pending', 'pending'],
  );
  assert.deepEqual(
    status.gates.filter((gate) => gate.wave === 0).map((gate) => [gate.gate, gate.verdict]),
    [['probe', 'fail']],
  );
  const after = await all(devices, async (device) => (await device.assignment())?.epoch);
  assert.deepEqual(
    after.map((epoch, index) => epoch === epochs[index]),
    devices.map((device) => device !== canary),
  );
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1, v1]);
});

test('a file without waves has the contract’s two', () => {
  const file = { apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: 'x' }, spec: { release: v1 } };
  assert.deepEqual(wavesOf(unwrap(parseRolloutFile(JSON.stringify(file))).spec), [
    { count: 1, soak: 600_000 },
    { percent: 100, soak: 0 },
  ]);
});
