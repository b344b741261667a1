// Why: of several rollouts that want one device, which has it and which waits: by priority, then in line or the latest.
// Trusts: test/fleet/world.ts. Must never: check prose; states and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type Device, rolloutFile, type World } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

const stateOf = async (world: World, id: string): Promise<string> => (await world.status(id)).state;

async function obeyed(world: World, devices: Device[]): Promise<void> {
  await all(devices, (device) => device.obey());
  await world.settle();
}

test('one that queues waits until those before it have ended, and says for whom; then it goes by itself', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const first = await world.start(rolloutFile('first', { release: v1 }));
  const second = await world.start(rolloutFile('second', { release: v2, whenBusy: 'queue' }));
  const third = await world.start(rolloutFile('third', { release: v1, whenBusy: 'queue' }));
  assert.deepEqual(await all(devices, assigned), [v1, v1]);
  assert.match((await world.status(second)).waves[0]?.reason ?? '', new RegExp(`2 devices .*${first}`));
  const said = unwrap(await world.rollouts.explain(third, null));
  assert.match(said.devices[0]?.waitsFor ?? '', new RegExp(first));
  await obeyed(world, devices);
  assert.equal(await stateOf(world, first), 'succeeded');
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
  assert.equal(await stateOf(world, third), 'running');
  await obeyed(world, devices);
  assert.deepEqual(await all(devices, assigned), [v1, v1]);
  await obeyed(world, devices);
  for (const id of [second, third]) assert.equal(await stateOf(world, id), 'succeeded');
});

test('one in line goes on where the one before it failed', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(1);
  await onRelease1(world, devices);
  await world.start(rolloutFile('bad', { release: v2 }));
  const next = await world.start(rolloutFile('next', { release: v1, whenBusy: 'queue' }));
  await devices[0]?.obey(golden);
  await world.settle();
  await obeyed(world, devices);
  await obeyed(world, devices);
  assert.equal(await stateOf(world, next), 'succeeded');
});

test('the higher priority goes first, whoever came first; the later one of the same takes over', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const urgent = await world.start(rolloutFile('urgent', { release: v2, priority: 5 }));
  const later = await world.start(rolloutFile('later', { release: v1 }));
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
  // Also one that would queue does not wait for what matters less.
  const most = await world.start(rolloutFile('most', { release: v1, priority: 9, whenBusy: 'queue' }));
  assert.deepEqual(await all(devices, assigned), [v1, v1]);
  assert.equal(await stateOf(world, urgent), 'aborted');
  // The one that waited is the older one: it has lost them as if it had had them.
  assert.equal(await stateOf(world, later), 'aborted');
  await obeyed(world, devices);
  assert.equal(await stateOf(world, most), 'succeeded');
  const lesser = await world.start(rolloutFile('lesser', { release: v2, priority: -1 }));
  assert.deepEqual(await all(devices, assigned), [v2, v2], 'one that has ended holds nobody up');
  await obeyed(world, devices);
  assert.equal(await stateOf(world, lesser), 'succeeded');
});

test('a rollout of another name waits for nobody', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(1);
  await world.start(rolloutFile('first', { release: v1, priority: 5 }));
  await world.start(rolloutFile('beside', { release: v2, as: 'other', whenBusy: 'queue' }));
  const { releases } = (await devices[0]?.assignment()) ?? { releases: [] };
  assert.deepEqual(releases.map(({ as }) => as).sort(), ['digits', 'other']);
});
