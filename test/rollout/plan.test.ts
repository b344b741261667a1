// Why: a plan names who gets a release, who cannot, who is away, who has it and who is another's, and then that happens.
// Trusts: test/fleet/world.ts. Must never: check prose beyond what it names.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planText } from '../../registry/cli/rollout-plan.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { rolloutFile, type World } from '../fleet/world.ts';
import { all, onRelease1, v1, v2, world2 } from './ground.ts';

const planOf = async (world: World, spec: Record<string, unknown>, rate: number | null = null) =>
  unwrap(await world.rollouts.plan(unwrap(parseRolloutFile(rolloutFile('planned', spec))), 'tester', rate));
const waves = [{ count: 1, soak: '10m' }, { percent: 100 }];

test('each device is named once with its wave, what it fetches, and what stands in its way', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(5);
  await onRelease1(world, devices);
  const [done, away, taken] = devices;
  assert.ok(done && away && taken);
  const first = { release: v2, selector: { devices: [done.id] } };
  await world.start(rolloutFile('done', first));
  await done.obey();
  away.offline();
  await world.settle();
  const other = await world.start(rolloutFile('other', { release: v2, selector: { devices: [taken.id] } }));
  const [weak] = await world.devices(1);
  assert.ok(weak);
  weak.says = { agent: { version: '0.0.1', runtime: '1.30.0', arch: 'arm64' } };
  weak.report();
  await world.settle();
  const needing = 'acme/digits@3.0.0';
  await world.push(needing, 3, { arch: ['x64'] });

  const plan = await planOf(world, { release: v2, waves, approvals: { required: 2, waves: [1] } });
  assert.deepEqual(
    plan.waves.map((one) => [one.devices, one.approvals]),
    [
      [1, 0],
      [5, 2],
    ],
  );
  const byId = new Map(plan.devices.map((one) => [one.id, one]));
  assert.equal(byId.size, 6);
  assert.deepEqual([byId.get(done.id)?.done, byId.get(done.id)?.bytes], [true, 0]);
  assert.notEqual(byId.get(away.id)?.offlineSinceMs, null);
  assert.deepEqual(byId.get(taken.id)?.conflict, { rollout: other, state: 'running', outcome: 'takes-over' });
  assert.deepEqual([byId.get(weak.id)?.runs, byId.get(weak.id)?.way], [null, 'whole']);
  const queued = await planOf(world, { release: v2, waves, whenBusy: 'queue' });
  assert.equal(queued.devices.find(({ id }) => id === taken.id)?.conflict?.outcome, 'waits');

  const strict = await planOf(world, { release: needing, waves });
  assert.deepEqual(strict.incompatible, [{ id: weak.id, reason: 'needs x64, this is arm64' }]);
  assert.equal(strict.minMs, null, 'no rate was given');
  const text = planText(strict);
  for (const words of [weak.id, 'incompatible: 1', 'offline: 1', 'in another rollout: 1', '--rate'])
    assert.ok(text.includes(words), words);

  // Nothing was done, and what happens is what was told.
  assert.equal((await world.rollouts.list()).length, 3);
  const id = await world.start(rolloutFile('planned', { release: needing, waves }));
  const { devices: members } = await world.status(id);
  assert.deepEqual(
    members
      .filter(({ state }) => state !== 'incompatible')
      .map(({ id: device, wave }) => [device, wave])
      .sort(),
    strict.devices.map(({ id: device, wave }) => [device, wave]).sort(),
  );
});

test('bytes and time: of each wave and in all, by the smallest way and the rate that was given', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const model = unwrap(await world.releases.show('acme/digits'));
  const bytes = model.versions.find(({ version }) => version === '2.0.0')?.bytes ?? 0;
  assert.ok(bytes > 0);
  const plan = await planOf(world, { release: v2, waves }, bytes);
  assert.deepEqual(
    plan.waves.map((one) => [one.bytes, one.minMs]),
    [
      [bytes, 601_000],
      [2 * bytes, 1_000],
    ],
  );
  assert.deepEqual([plan.bytes, plan.minMs], [3 * bytes, 602_000]);
  const same = await planOf(world, { release: v1, waves });
  assert.deepEqual([same.bytes, same.minMs], [0, 0]);
  const gone = await planOf(world, { remove: 'acme/digits', waves });
  assert.deepEqual(
    [gone.bytes, gone.minMs, gone.devices.map(({ done }) => done)],
    [0, 600_000, [false, false, false]],
  );
});

test('what could not be started cannot be planned', async (t) => {
  const world = await world2(t);
  const codeOf = async (spec: Record<string, unknown>): Promise<string> => {
    const plan = await world.rollouts.plan(unwrap(parseRolloutFile(rolloutFile('p', spec))), 'tester', null);
    return plan.ok ? 'ok' : plan.refusal.code;
  };
  assert.deepEqual(
    await all(
      [{ release: 'acme/digits@9.0.0' }, { release: v1, selector: { groups: ['gone'] } }, { release: v1 }],
      codeOf,
    ),
    ['release-unknown', 'group-unknown', 'ok'],
  );
});
