// Why: a release goes to devices that have what its publisher signed that it needs, and the others hold nobody up.
// Trusts: test/fleet/world.ts. Must never: check prose; states, codes and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lacking } from '../../shared/wire/requires.ts';
import { type Device, openWorld, rolloutFile } from '../fleet/world.ts';
import { all, assigned } from './ground.ts';

const release = 'acme/digits@1.0.0';
const arm = (device: Device): void =>
  device.report({ ...device.reportBody(), agent: { version: '0.1.0', runtime: '1', arch: 'arm64' } });

test('a device that lacks what is needed is incompatible and counted in no wave', async (t) => {
  const world = await openWorld(t);
  await world.push(release, 1, { arch: ['x64'], opset: 13 });
  const devices = await world.devices(4);
  const [first, ...others] = devices;
  assert.ok(first);
  arm(first);
  await world.settle();
  const id = await world.start(rolloutFile('digits', { release, gates: { success: 1 } }));
  assert.deepEqual(await all(devices, assigned), [null, release, release, release]);
  const desired = await world.store.tx((db) =>
    db.all(world.store.qb.selectFrom('desired').select('requires').distinct()),
  );
  assert.deepEqual(desired, [{ requires: '{"arch":["x64"],"opset":13}' }]);
  await all(others, (device) => device.obey());
  await world.settle();
  let status = await world.status(id);
  assert.equal(status.state, 'succeeded');
  assert.deepEqual(status.waves[0]?.devices, { total: 4, incompatible: 1, committed: 3 });
  const shown = status.devices.find((one) => one.id === first.id);
  assert.match(shown?.reason ?? '', /^release-incompatible: /);

  // It is what it is until it reports something else.
  first.report();
  await world.settle();
  status = await world.status(id);
  assert.equal(await assigned(first), release);
  assert.equal(status.devices.find((one) => one.id === first.id)?.state, 'pending');
});

test('where nobody can run it, the rollout fails instead of passing empty', async (t) => {
  const world = await openWorld(t);
  await world.push(release, 1, { agent: '9.0.0' });
  const devices = await world.devices(2);
  for (const waves of [[{ percent: 100 }], [{ count: 1 }, { percent: 100 }]]) {
    const id = await world.start(rolloutFile('digits', { release, waves }));
    const status = await world.status(id);
    assert.equal(status.state, 'failed');
    assert.match(status.reason ?? '', /^release-incompatible: /);
    assert.ok(status.devices.every((one) => one.state === 'incompatible'));
    assert.deepEqual(await all(devices, assigned), [null, null]);
  }
});

test('the canary is one that can run it', async (t) => {
  const world = await openWorld(t);
  await world.push(release, 1, { arch: ['arm64'] });
  const devices = await world.devices(6);
  const chosen = devices.at(-1);
  assert.ok(chosen);
  arm(chosen);
  await world.settle();
  const id = await world.start(rolloutFile('digits', { release, waves: [{ count: 1 }, { percent: 100 }] }));
  const status = await world.status(id);
  assert.deepEqual(
    status.waves.map((wave) => wave.devices),
    [
      { total: 1, pending: 1 },
      { total: 5, incompatible: 5 },
    ],
  );
  assert.equal(await assigned(chosen), release);
});

test('the verdict, written out', () => {
  const device = { arch: 'x64', agentVersion: '1.2.3', memoryMiB: 512 };
  const cases: [Parameters<typeof lacking>[0], boolean][] = [
    [{}, true],
    [{ arch: ['x64', 'arm64'] }, true],
    [{ arch: ['arm64'] }, false],
    [{ arch: [] }, false],
    [{ agent: '1.2.3' }, true],
    [{ agent: '>=1.2.3' }, true],
    [{ agent: '1.2.4' }, false],
    [{ agent: '1.10.0' }, false],
    [{ agent: '0.99.99' }, true],
    [{ agent: 'newest' }, false],
    [{ memoryMiB: 512 }, true],
    [{ memoryMiB: 513 }, false],
  ];
  for (const [requires, fits] of cases) {
    assert.equal(lacking(requires, device) === null, fits, JSON.stringify(requires));
  }
  // One that never told is asked by its own judgement, once it has the manifest.
  assert.equal(lacking({ memoryMiB: 513 }, { ...device, memoryMiB: undefined }), null);
  assert.notEqual(lacking({ agent: '0.1.0' }, { ...device, agentVersion: '' }), null);
});
