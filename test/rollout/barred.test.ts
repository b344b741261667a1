// Why: what its publisher took back is installed nowhere any more and stops nowhere where it runs.
// Trusts: test/fleet/world.ts. Must never: check prose; states, codes and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type Device, refusalOf, rolloutFile, type World } from '../fleet/world.ts';
import { all, assigned, golden, onRelease1, say, v1, v2, world2 } from './ground.ts';

const epochOf = async (device: Device): Promise<number> => (await device.assignment())?.epoch ?? 0;
const codeOf = (reason: string | null | undefined): string => reason?.split(':')[0] ?? '';
const begin = async (world: World, release: string) =>
  world.rollouts.begin(unwrap(parseRolloutFile(rolloutFile('x', { release }))), 'tester');
/** Everything is signed again, as half-way through an assignment's life. */
async function renewAll(world: World): Promise<void> {
  world.clock.advance(16 * 86_400_000);
  await world.settle();
}

test('a rollout of a release that is withdrawn or below its floor does not start', async (t) => {
  const world = await world2(t);
  await say(world, { withdraw: ['digits', 2] });
  assert.equal(refusalOf(await begin(world, v2)), 'release-withdrawn');
  await world.push('acme/digits@3.0.0', 3);
  await say(world, { floor: ['digits', 3] });
  assert.equal(refusalOf(await begin(world, v1)), 'release-below-floor');
  assert.equal((await begin(world, 'acme/digits@3.0.0')).ok, true);
  assert.deepEqual(await world.events('rollout-failed'), []);
});

test('withdrawn under way: the rollout fails, who runs it keeps it, who does not yet goes back', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(4);
  const [runs, fetching, away, waits] = devices;
  assert.ok(runs && fetching && away && waits);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2 }));
  await runs.obey();
  await fetching.obey('fetching');
  away.offline();
  await world.settle();
  const before = await epochOf(runs);
  await say(world, { withdraw: ['digits', 2] });

  const status = await world.status(id);
  assert.deepEqual([status.state, codeOf(status.reason)], ['failed', 'release-withdrawn']);
  assert.equal(status.waves[0]?.state, 'failed');
  assert.deepEqual(await all(devices, assigned), [v2, v1, v1, v1]);
  assert.equal(await epochOf(runs), before);
  const shown = (device: Device) => status.devices.find((one) => one.id === device.id);
  assert.deepEqual([shown(runs)?.state, shown(runs)?.release], ['committed', v2]);
  assert.equal(codeOf(shown(fetching)?.reason), 'release-withdrawn');
  assert.equal((await world.events('release-withdrawn')).length, 1);
  assert.equal((await world.events('rollout-failed')).length, 1);

  // A renewal, a restart and a device that joins change nothing of that.
  await renewAll(world);
  await world.restart();
  assert.deepEqual(await all(devices, assigned), [v2, v1, v1, v1]);
  assert.ok((await epochOf(runs)) > before);
  const [joins] = await world.devices(1);
  assert.ok(joins);
  assert.equal(await assigned(joins), v1);
});

test('a succeeded rollout of what was withdrawn reaches nobody any more', async (t) => {
  const world = await world2(t);
  const [first] = await world.devices(1);
  assert.ok(first);
  const id = await world.start(rolloutFile('digits-2', { release: v2 }));
  await first.obey();
  await world.settle();
  await say(world, { floor: ['digits', 3] });
  const [late] = await world.devices(1);
  assert.ok(late);
  assert.deepEqual(await all([first, late], assigned), [v2, null]);
  const status = await world.status(id);
  assert.deepEqual([status.state, codeOf(status.reason)], ['succeeded', 'release-below-floor']);
  assert.equal((await world.events('release-below-floor')).length, 1);
});

test('a paused rollout and one that bears failures give up what is not installed', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const [good, bad] = devices;
  assert.ok(good && bad);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('half', { release: v2, gates: { success: 0.5 } }));
  await bad.obey(golden);
  await good.obey();
  await world.settle();
  assert.equal((await world.status(id)).state, 'succeeded');
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
  await say(world, { withdraw: ['digits', 2] });
  assert.deepEqual(await all(devices, assigned), [v2, v1]);
});

test('also a rollout that ended long ago gives up what never was installed', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const [good, bad] = devices;
  assert.ok(good && bad);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('kept', { release: v2, onGateFailure: 'pause' }));
  await bad.obey(golden);
  await good.obey();
  await world.settle();
  unwrap(await world.rollouts.abort(id, 'tester', false));
  await world.settle();
  await world.restart();
  assert.deepEqual(await all(devices, assigned), [v2, v2]);
  await say(world, { withdraw: ['digits', 2] });
  const desired = await world.store.tx((db) =>
    db.all(world.store.qb.selectFrom('desired').select(['device_id', 'release_id'])),
  );
  assert.equal(desired.find((row) => row.device_id === bad.id)?.release_id, v1);
  assert.equal(desired.find((row) => row.device_id === good.id)?.release_id, v2);
  assert.deepEqual(await all(devices, assigned), [v2, v1]);
  assert.equal((await world.status(id)).state, 'aborted');
});

test('nobody goes back to a release that was withdrawn; who never left it keeps it', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const [moved, stayed] = devices;
  assert.ok(moved && stayed);
  await onRelease1(world, devices);
  const id = await world.start(rolloutFile('digits-2', { release: v2 }));
  await moved.obey();
  await world.settle();
  await say(world, { withdraw: ['digits', 1] });
  assert.equal((await world.status(id)).state, 'running');
  unwrap(await world.rollouts.abort(id, 'tester', true));
  await world.settle();
  assert.deepEqual(await all(devices, assigned), [null, v1]);
  await all(devices, (device) => device.obey());
  await world.settle();
  const status = await world.status(id);
  assert.equal(status.state, 'aborted');
  const reasons = new Map(status.devices.map((one) => [one.id, codeOf(one.reason)]));
  assert.deepEqual([reasons.get(moved.id), reasons.get(stayed.id)], ['release-withdrawn', '']);
});

test('the director never signs it for a device that does not run it, whatever the rollouts say', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2);
  const [runs, waits] = devices;
  assert.ok(runs && waits);
  await onRelease1(world, devices);
  await world.start(rolloutFile('digits-2', { release: v2 }));
  await runs.obey();
  await world.settle();
  // The rollouts stand still: a crash between the publisher's step and theirs.
  await world.rollouts.stop();
  await say(world, { withdraw: ['digits', 2] });
  for (const device of devices) unwrap(await world.fleet.devices.label(device.id, { touched: 'yes' }));
  await world.settle();
  assert.deepEqual(await all(devices, assigned), [v2, v1]);
  assert.deepEqual(await all(devices, async (device) => (await device.assignment())?.labels['touched']), [
    'yes',
    'yes',
  ]);
});

test('what a lost home had named: a device that has it proven goes back to it, and nobody else gets it', async (t) => {
  const world = await world2(t);
  const [device, second] = await world.devices(2);
  assert.ok(device && second);
  await onRelease1(world, [device]);
  const id = await world.start(rolloutFile('digits-2', { release: v2 }));
  await device.obey('soaking');
  await world.settle();
  // As a mirror has it whose new home does not name what the lost one did.
  await world.store.tx((db) =>
    db.run(
      world.store.qb
        .updateTable('releases')
        .set({ admitted: 0, reason: 'the catalogue in force does not name it' })
        .where('release_id', '=', v1),
    ),
  );
  unwrap(await world.rollouts.abort(id, 'tester', true));
  await world.settle();
  assert.equal(await assigned(device), v1, 'while its successor soaks');
  assert.equal(await assigned(second), null);
  await device.obey();
  await world.settle();
  await renewAll(world);
  assert.equal(await assigned(device), v1, 'where it serves');
});
