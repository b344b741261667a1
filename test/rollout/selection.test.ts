// Why: devices chosen by id, by group and by what they can do; waves that grow; another try where a release failed.
// Trusts: test/fleet/world.ts. Must never: check prose; states and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { grown } from '../../registry/rollout/waves.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { region, rolloutFile } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, v1, v2, world2 } from './ground.ts';

const codeOf = (result: Result<unknown>): string => (result.ok ? 'ok' : result.refusal.code);
const everything = { matchLabels: {}, matchExpressions: [] };

test('by id, by what the agent reports, and by a group that changes under way', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2, { site: 'a' });
  const [other] = await world.devices(1, { site: 'b' });
  const [one, two] = devices;
  assert.ok(one && two && other);
  await world.start(rolloutFile('by-id', { release: v1, as: 'by-id', selector: { devices: [one.id] } }));
  // As an agent says it.
  const runtime = 'onnxruntime 1.30.0, node 20.20.2';
  const providers = ['cpu', 'cuda'];
  one.says = { agent: { version: '0.1.0', runtime, arch: 'x64', memoryMiB: 1_024, providers } };
  two.says = { agent: { version: '0.1.0', runtime, arch: 'x64', memoryMiB: 512, providers: ['cpu'] } };
  other.says = { agent: { version: '0.1.0', runtime: 'node 20.20.2', arch: 'x64' } };
  for (const device of [...devices, other]) device.report();
  await world.settle();
  const agent = (capabilities: object) => ({ selector: { capabilities } });
  for (const [as, spec] of [
    ['new-agent', agent({ agent: '0.1.0', runtime: '1.30.0', arch: ['x64', 'arm64'] })],
    ['newer-agent', agent({ agent: '0.2.0' })],
    ['newer-runtime', agent({ runtime: '1.31.0' })],
    ['other-arch', agent({ arch: ['arm64'] })],
    ['large', agent({ memoryMiB: 900 })],
    ['own-region', { selector: { regions: ['us', region], capabilities: { memoryMiB: 1 } } }],
    ['accelerated', agent({ providers: ['tensorrt', 'cuda'] })],
    ['other-accelerator', agent({ providers: ['webgpu'] })],
    ['surveyed', agent({ providers: ['cpu'] })],
    ['other-region', { selector: { regions: ['us'] } }],
  ] as const)
    await world.start(rolloutFile(as, { release: v1, as, ...spec }));
  const names = async () =>
    all([one, two, other], async (device) =>
      (await device.assignment())?.releases.map(({ as }) => as).sort(),
    );
  assert.deepEqual(await names(), [
    ['accelerated', 'by-id', 'large', 'new-agent', 'own-region', 'surveyed'],
    ['new-agent', 'own-region', 'surveyed'],
    [],
  ]);

  const byGroup = { release: v1, as: 'grouped', selector: { groups: ['canaries'] } };
  const file = unwrap(parseRolloutFile(rolloutFile('grouped', byGroup)));
  assert.equal(codeOf(await world.rollouts.begin(file, 'tester')), 'group-unknown');
  const { groups } = world.rollouts;
  const circle = { ...everything, groups: ['canaries'] };
  assert.equal(codeOf(await groups.put('circle', circle, 'tester')), 'input-invalid');
  unwrap(await groups.put('canaries', { ...everything, matchLabels: { site: 'b' } }, 'tester'));
  const id = await world.start(rolloutFile('grouped', byGroup));
  await other.obey();
  await world.settle();
  assert.deepEqual(
    (await world.status(id)).devices.map((device) => device.id),
    [other.id],
  );
  unwrap(await groups.put('canaries', { ...everything, devices: [one.id] }, 'tester'));
  await world.settle();
  assert.deepEqual(
    (await world.status(id)).devices.map((device) => device.id).sort(),
    [one.id, other.id].sort(),
  );
  unwrap(await groups.remove('canaries'));
  assert.deepEqual([(await groups.list()).length, codeOf(await groups.remove('canaries'))], [0, 'not-found']);
});

test('waves that grow: each as many times the one before as the file says, seen in the status', async (t) => {
  const sizes = (devices: number, factor: number) =>
    grown({ start: 1, factor, soak: 0 }, devices).map(({ count }) => count ?? null);
  assert.deepEqual(sizes(10, 2), [1, 2, 4, 8, null]);
  assert.deepEqual(sizes(8, 2), [1, 2, 4, null]);
  assert.deepEqual(sizes(5, 1.1), [1, 2, 3, 4, null]);
  assert.deepEqual(
    [sizes(0, 2), sizes(1, 2)],
    [
      [1, null],
      [1, null],
    ],
  );
  assert.equal(sizes(1_000_000, 2).length, 21);

  const world = await world2(t);
  const devices = await world.devices(5);
  const file = rolloutFile('grows', { release: v1, waves: undefined, growth: { start: 1, factor: 2 } });
  const id = await world.start(file);
  const reached: number[] = [];
  for (let round = 0; round < 4; round += 1) {
    reached.push((await all(devices, assigned)).filter((release) => release !== null).length);
    await all(devices, (device) => device.obey());
    await world.settle();
  }
  assert.deepEqual(reached, [1, 2, 4, 5]);
  assert.equal((await world.status(id)).state, 'succeeded');
  const both = rolloutFile('both', { release: v1, growth: {} });
  assert.equal(codeOf(parseRolloutFile(both)), 'rollout-file-invalid');
});

test('another try: a rollout of its own for those that failed, once the first has ended', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  const [bad, ...good] = devices;
  assert.ok(bad);
  const first = await world.start(rolloutFile('first', { release: v2, gates: { success: 0.5 } }));
  assert.equal(codeOf(await world.rollouts.retry(first, 'tester', null)), 'rollout-state');
  await bad.obey(golden);
  await all(good, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(first)).state, 'succeeded');
  const wrong = await world.rollouts.retry(first, 'tester', [good[0]?.id ?? '']);
  assert.equal(codeOf(wrong), 'nothing-to-retry');
  const { id } = unwrap(await world.rollouts.retry(first, 'tester', null));
  await world.settle();
  // Under an id of its own: a device does not try the same bytes for the same rollout twice.
  assert.equal((await bad.assignment())?.releases[0]?.rolloutId, id);
  await bad.obey();
  await world.settle();
  const again = await world.status(id);
  assert.deepEqual([again.state, again.devices.map((device) => device.id)], ['succeeded', [bad.id]]);
  assert.equal(codeOf(await world.rollouts.retry(id, 'tester', null)), 'nothing-to-retry');
  assert.equal(codeOf(await world.rollouts.retry('r0', 'tester', null)), 'rollout-unknown');
});
