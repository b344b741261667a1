// Why: a wave that people must allow begins when enough of them did, and an operator can stop and go on.
// Trusts: test/fleet/world.ts. Must never: let one person count twice, or the one who started it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { rolloutFile, type World } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

const waves = [{ count: 1 }, { percent: 100 }];
const codeOf = (result: Result<unknown>): string => (result.ok ? 'ok' : result.refusal.code);
const statesOf = async (world: World, id: string) => {
  const { state, waves: shown } = await world.status(id);
  return [state, ...shown.map((wave) => wave.state)];
};
const yes = { wave: null, comment: 'looks good' };

test('nothing begins before two people said so; one person twice is refused, and the one who started it', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, waves, approvals: { required: 2 } }));
  assert.deepEqual(await statesOf(world, id), ['awaiting-approval', 'pending', 'pending']);
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);
  assert.match((await world.status(id)).reason ?? '', /wave 0 waits for 2 more approvals/);

  assert.equal(codeOf(await world.rollouts.approve(id, 'tester', yes)), 'approval-own');
  assert.equal(codeOf(await world.rollouts.approve(id, 'alice', yes)), 'ok');
  assert.equal(codeOf(await world.rollouts.approve(id, 'alice', yes)), 'approval-repeated');
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['awaiting-approval', 'pending', 'pending']);
  assert.match((await world.status(id)).reason ?? '', /1 more approval$/);
  assert.equal(
    codeOf(await world.rollouts.approve(id, 'bob', { wave: 1, comment: null })),
    'approval-not-needed',
  );
  assert.equal(
    codeOf(await world.rollouts.approve(id, 'bob', { wave: 9, comment: null })),
    'approval-not-needed',
  );
  assert.equal(codeOf(await world.rollouts.approve(id, 'bob', { wave: 0, comment: null })), 'ok');
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['running', 'running', 'pending']);
  assert.equal(codeOf(await world.rollouts.approve(id, 'carol', yes)), 'approval-not-needed');
  for (let wave = 0; wave < 2; wave += 1) {
    await all(devices, (device) => device.obey());
    await world.settle();
  }
  assert.deepEqual(await statesOf(world, id), ['succeeded', 'passed', 'passed']);
  const history = unwrap(await world.rollouts.history(id));
  assert.deepEqual(
    history.map(({ wave, what, by }) => [wave, what, by]),
    [
      [null, 'running', 'tester'],
      [null, 'awaiting-approval', null],
      [0, 'approved', 'alice'],
      [0, 'approved', 'bob'],
      [0, 'running', null],
      [null, 'running', null],
      [0, 'passed', null],
      [1, 'running', null],
      [1, 'passed', null],
      [null, 'succeeded', null],
    ],
  );
  assert.deepEqual(
    (await world.status(id)).approvals.map(({ wave, by, comment }) => [wave, by, comment]),
    [
      [0, 'alice', 'looks good'],
      [0, 'bob', null],
    ],
  );
  assert.equal(codeOf(await world.rollouts.approve(id, 'carol', yes)), 'rollout-state');
});

test('an approval that expired does not count; the same person may renew it', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  await onRelease1(world, devices);
  const approvals = { required: 1, waves: [1], expires: '1h' };
  const id = await world.start(rolloutFile('digits-2', { release: v2, waves, approvals }));
  // Given ahead of time, and too early.
  assert.equal(codeOf(await world.rollouts.approve(id, 'alice', yes)), 'ok');
  assert.deepEqual(await statesOf(world, id), ['running', 'running', 'pending']);
  await world.pass(2 * 3_600_000);
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['awaiting-approval', 'passed', 'pending']);
  assert.equal((await all(devices, assigned)).filter((release) => release === v2).length, 1);
  assert.equal(codeOf(await world.rollouts.approve(id, 'alice', yes)), 'ok');
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['running', 'passed', 'running']);
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
});

test('paused, nothing more is assigned; resumed, it goes on; aborted while it waits, it ends', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, waves }));
  assert.equal(codeOf(await world.rollouts.resume(id, 'olga', null)), 'rollout-state');
  unwrap(await world.rollouts.pause(id, 'olga', 'night shift'));
  assert.equal(codeOf(await world.rollouts.pause(id, 'olga', null)), 'rollout-state');
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['paused', 'running', 'pending']);
  assert.equal((await world.status(id)).reason, 'paused by olga: night shift');
  assert.equal((await all(devices, assigned)).filter((release) => release === v2).length, 1);
  unwrap(await world.rollouts.resume(id, 'olga', null));
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['running', 'passed', 'running']);
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['succeeded', 'passed', 'passed']);
  assert.equal(codeOf(await world.rollouts.pause(id, 'olga', null)), 'rollout-state');
  assert.equal(codeOf(await world.rollouts.pause('rnone', 'olga', null)), 'rollout-unknown');
  assert.equal(codeOf(await world.rollouts.history('rnone')), 'rollout-unknown');

  const waits = await world.start(rolloutFile('again', { release: v1, approvals: { required: 1 } }));
  unwrap(await world.rollouts.abort(waits, 'olga', true));
  await world.settle();
  assert.deepEqual(await statesOf(world, waits), ['aborted', 'pending']);
  assert.deepEqual(await all(devices, assigned), [v2, v2, v2]);
});

test('a rollout that a gate has paused cannot be resumed', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2, onGateFailure: 'pause' }));
  await all(devices, (device) => device.obey(golden));
  await world.settle();
  assert.deepEqual(await statesOf(world, id), ['paused', 'failed']);
  assert.equal(codeOf(await world.rollouts.resume(id, 'olga', null)), 'rollout-state');
});

test('approval of a wave that the file does not have is a mistake with its place', () => {
  const file = (approvals: object): string =>
    JSON.stringify({
      ...{ apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: 'r' } },
      spec: { release: v2, waves, approvals },
    });
  assert.equal(codeOf(parseRolloutFile(file({ required: 1, waves: [1] }))), 'ok');
  const wrong = parseRolloutFile(file({ required: 1, waves: [1, 2] }));
  assert.match(
    wrong.ok ? '' : wrong.refusal.detail,
    /line 1, column \d+: spec\.approvals\.waves: there is no wave 2/,
  );
});
