// Why: a model is taken from devices as a release is brought to them: in waves, for late ones too, and back again.
// Trusts: test/fleet/world.ts. Must never: check prose; states and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { rolloutFile } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

const remove = { remove: 'acme/digits', waves: [{ count: 1 }, { percent: 100 }] };

test('taken away in waves; who comes later does not get it from an earlier rollout; a later one brings it again', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('away', remove));
  const left = async () => (await all(devices, assigned)).filter((release) => release === v1).length;
  assert.equal(await left(), 2);
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal(await left(), 0);
  await all(devices, (device) => device.obey());
  await world.settle();
  const ended = await world.status(id);
  assert.deepEqual([ended.state, ended.release], ['succeeded', 'acme/digits']);
  assert.deepEqual(
    ended.devices.map(({ state, release }) => [state, release]),
    [
      ['committed', null],
      ['committed', null],
      ['committed', null],
    ],
  );
  const late = await world.devices(1);
  await world.settle();
  assert.deepEqual(await all(late, assigned), [null]);
  const again = await world.start(rolloutFile('again', { release: v2 }));
  assert.deepEqual(await all([...devices, ...late], assigned), [v2, v2, v2, v2]);
  await devices[0]?.obey(golden);
  await world.settle();
  await all([...devices, ...late], (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(again)).state, 'failed');
  assert.deepEqual(await all([...devices, ...late], assigned), [null, null, null, null]);
});

test('aborted with revert, the devices that lost it get it back', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('away', remove));
  unwrap(await world.rollouts.abort(id, 'tester', true));
  await world.settle();
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(id)).state, 'aborted');
});

test('what cannot be: a model that nobody knows, gates on what nothing does', async (t) => {
  const world = await world2(t);
  const unknown = unwrap(parseRolloutFile(rolloutFile('away', { remove: 'acme/other' })));
  const begun = await world.rollouts.begin(unknown, 'tester');
  assert.equal(begun.ok ? 'ok' : begun.refusal.code, 'release-unknown');
  for (const wrong of [{ gates: { errorRate: 0.1 } }, { shadow: { requests: 3 } }]) {
    const parsed = parseRolloutFile(rolloutFile('away', { ...remove, ...wrong }));
    assert.equal(parsed.ok ? 'ok' : parsed.refusal.code, 'rollout-file-invalid');
  }
});
