// Why: several releases go out as one: each device gets all of them or goes back to all that it had, and counts as done
// when all are. Trusts: test/fleet/world.ts. Must never: look at the first release alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRights } from '../../registry/delivery/rights.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Reason, ReportedModel } from '../../shared/wire/messages.ts';
import { type Device, openWorld, rolloutFile, type World } from '../fleet/world.ts';
import { all, golden, say } from './ground.ts';

const digits = (version: number): string => `acme/digits@${version}.0.0`;
const eyes = (version: number): string => `acme/eyes@${version}.0.0`;
const both = { releases: [digits(2), eyes(2)] };
const waves = [{ count: 1 }, { percent: 100 }];

async function assigned(device: Device): Promise<string[]> {
  const releases = (await device.assignment())?.releases ?? [];
  return releases.map(({ releaseId }) => releaseId).sort();
}

/** Devices that run release 1 of both, each by a rollout of its own. */
async function ground(
  t: Parameters<typeof openWorld>[0],
  count = 3,
): Promise<{ world: World; devices: Device[] }> {
  const world = await openWorld(t);
  for (const version of [1, 2, 3])
    for (const [at, name] of [digits(version), eyes(version)].entries())
      await world.push(name, 2 * version + at);
  const devices = await world.devices(count);
  for (const name of ['digits', 'eyes']) {
    await world.start(rolloutFile(`${name}-1`, { release: `acme/${name}@1.0.0` }));
    await all(devices, (device) => device.obey());
    await world.settle();
  }
  return { world, devices };
}

async function canaryOf(devices: Device[]): Promise<Device> {
  const found = await all(devices, assigned);
  const at = found.findIndex((releases) => releases.includes(eyes(2)));
  return devices[at] ?? assert.fail('nobody got it');
}

/** Reports one model otherwise than the device's `obey` left it. */
async function report(
  world: World,
  device: Device,
  name: string,
  change: Partial<ReportedModel>,
): Promise<void> {
  const model = device.models.get(name);
  assert.ok(model);
  device.models.set(name, { ...model, ...change });
  device.report();
  await world.settle();
}

const parted: Reason = { code: 'update-parted', detail: `eyes ${eyes(2)}: probe-golden-failed: case 0` };

test('each device gets all of them, told of each other, and the next wave begins when all are done', async (t) => {
  const { world, devices } = await ground(t);
  const id = await world.start(rolloutFile('both', { ...both, waves }));
  const canary = await canaryOf(devices);
  const releases = (await canary.assignment())?.releases ?? [];
  assert.deepEqual(
    releases.map(({ as, releaseId, rolloutId, policy }) => [as, releaseId, rolloutId, policy.together]),
    [
      ['digits', digits(2), id, ['eyes']],
      ['eyes', eyes(2), id, ['digits']],
    ],
  );
  const rights = createRights(world.core);
  assert.deepEqual((await rights.releasesOf(canary.id)).sort(), [digits(1), digits(2), eyes(1), eyes(2)]);
  await canary.obey();
  await report(world, canary, 'eyes', { state: 'soaking', lastGood: eyes(1) });
  const soaking = await world.status(id);
  assert.deepEqual([soaking.releases, soaking.waves[0]?.state], [both.releases, 'soaking']);
  await report(world, canary, 'eyes', { state: 'committed', lastGood: eyes(2) });
  assert.equal((await world.status(id)).waves[0]?.state, 'passed');
  await world.restart();
  await all(devices, (device) => device.obey());
  await world.settle();
  assert.equal((await world.status(id)).state, 'succeeded');
  for (const device of devices) assert.deepEqual(await assigned(device), [digits(2), eyes(2)]);
  // One that comes later gets both as well, and what it runs may be fetched again.
  const [late] = await world.devices(1);
  assert.ok(late);
  assert.deepEqual(await assigned(late), [digits(2), eyes(2)]);
  // What it still runs may have to be mended, whatever it is to run next.
  await world.start(rolloutFile('eyes-3', { release: eyes(3) }));
  assert.deepEqual((await rights.releasesOf(canary.id)).sort(), [digits(2), eyes(2), eyes(3)]);
});

test('one that fails stops all at the canary, with its own reason, and all go back', async (t) => {
  const { world, devices } = await ground(t);
  const id = await world.start(rolloutFile('both', { ...both, waves }));
  const canary = await canaryOf(devices);
  await canary.obey(golden);
  await report(world, canary, 'digits', { reason: parted });
  await all(devices, (device) => device.obey());
  await world.settle();
  const failed = await world.status(id);
  assert.equal(failed.state, 'failed');
  assert.match(failed.reason ?? '', /^gate probe of wave 0: 1 of 1 devices failed .*probe-golden-failed/);
  for (const device of devices) assert.deepEqual(await assigned(device), [digits(1), eyes(1)]);
  const back = (await canary.assignment())?.releases ?? [];
  assert.ok(back.every(({ policy }) => policy.together === undefined));
});

test('a device that runs the first already is done when it runs the others', async (t) => {
  const { world, devices } = await ground(t, 1);
  const [device] = devices;
  assert.ok(device);
  await world.start(rolloutFile('digits-2', { release: digits(2) }));
  await device.obey();
  await world.settle();
  const id = await world.start(rolloutFile('both', { ...both, waves: [{ percent: 100 }] }));
  await device.obey('probing');
  await world.settle();
  assert.equal((await world.status(id)).devices[0]?.state, 'probing');
  await device.obey();
  await world.settle();
  assert.equal((await world.status(id)).state, 'succeeded');
});

test('what a later rollout took stays, and the rest goes back to what it was', async (t) => {
  const { world, devices } = await ground(t, 2);
  const id = await world.start(rolloutFile('both', { ...both, waves: [{ percent: 100 }] }));
  const [one, two] = devices;
  assert.ok(one && two);
  await one.obey('fetching');
  await world.start(rolloutFile('eyes-3', { release: eyes(3), selector: { devices: [one.id] } }));
  assert.deepEqual(await assigned(one), [digits(2), eyes(3)]);
  const status = await world.status(id);
  assert.match(status.devices.find((device) => device.id === one.id)?.reason ?? '', /^update-superseded/);
  unwrap(await world.rollouts.abort(id, 'tester', true));
  await world.settle();
  assert.deepEqual(await assigned(two), [digits(1), eyes(1)]);
  assert.ok((await assigned(one)).includes(eyes(3)));
});

test('a later rollout of one of them that is taken back leaves what was there before both', async (t) => {
  const { world, devices } = await ground(t, 1);
  const [device] = devices;
  assert.ok(device);
  await world.start(rolloutFile('both', { ...both, waves: [{ percent: 100 }] }));
  await device.obey('fetching');
  const id = await world.start(rolloutFile('eyes-3', { release: eyes(3) }));
  assert.ok((await assigned(device)).includes(eyes(3)));
  unwrap(await world.rollouts.abort(id, 'tester', true));
  await world.settle();
  const served = (await device.assignment())?.releases.find(({ as }) => as === 'eyes');
  assert.equal(served?.releaseId, eyes(1));
});

test('one that goes first takes a name back: the device is its, and this rollout leaves it alone', async (t) => {
  const { world, devices } = await ground(t, 1);
  const [device] = devices;
  assert.ok(device);
  const selector = { matchLabels: { line: 'fast' } };
  await world.start(rolloutFile('eyes-3', { release: eyes(3), priority: 5, selector }));
  const id = await world.start(rolloutFile('both', { ...both, waves: [{ percent: 100 }] }));
  await device.obey('fetching');
  await world.store.tx((db) => db.sql.run(`UPDATE devices SET labels = '{"line":"fast"}'`));
  await world.restart();
  assert.deepEqual(await assigned(device), [digits(2), eyes(3)]);
  const reason = (await world.status(id)).devices[0]?.reason ?? '';
  assert.match(reason, /^update-superseded/);
});

test('a first install that is taken back leaves none of them', async (t) => {
  const world = await openWorld(t);
  await world.push(digits(2), 2);
  await world.push(eyes(2), 3);
  const [device] = await world.devices(1);
  assert.ok(device);
  const id = await world.start(rolloutFile('both', both));
  assert.deepEqual(await assigned(device), [digits(2), eyes(2)]);
  await device.obey(golden);
  await world.settle();
  assert.deepEqual(await assigned(device), []);
  await device.obey();
  await world.settle();
  assert.equal((await world.status(id)).state, 'failed');
});

test('it waits in line for a rollout of any of its names, and others wait for it', async (t) => {
  const { world, devices } = await ground(t, 1);
  const [device] = devices;
  assert.ok(device);
  const first = await world.start(rolloutFile('eyes-3', { release: eyes(3) }));
  const id = await world.start(rolloutFile('both', { ...both, whenBusy: 'queue' }));
  assert.match((await world.status(id)).reason ?? '', new RegExp(`1 device waits for ${first}`));
  const behind = await world.start(rolloutFile('eyes-1', { release: eyes(1), whenBusy: 'queue' }));
  await device.obey();
  await world.settle();
  assert.deepEqual(await assigned(device), [digits(2), eyes(2)]);
  assert.match((await world.status(behind)).reason ?? '', new RegExp(`1 device waits for ${id}`));
});

test('one of them is withdrawn: nobody is given any, and who has not switched goes back', async (t) => {
  const { world, devices } = await ground(t, 2);
  const id = await world.start(rolloutFile('both', { ...both, waves }));
  const canary = await canaryOf(devices);
  await canary.obey('fetching');
  await say(world, { withdraw: ['eyes', 5] });
  assert.equal((await world.status(id)).state, 'failed');
  for (const device of devices) assert.deepEqual(await assigned(device), [digits(1), eyes(1)]);
});

test('the plan counts the bytes of all, and of what is there already none', async (t) => {
  const { world, devices } = await ground(t, 2);
  const [one] = devices;
  assert.ok(one);
  const alone = { selector: { devices: [one.id] } };
  const planned = async (spec: Record<string, unknown>) =>
    unwrap(await world.rollouts.plan(unwrap(parseRolloutFile(rolloutFile('p', spec))), 'tester', null));
  const [a, b] = [await planned({ release: digits(2) }), await planned({ release: eyes(2) })];
  const plan = await planned(both);
  assert.deepEqual([plan.bytes, plan.releases], [a.bytes + b.bytes, both.releases]);
  await world.start(rolloutFile('eyes-2', { release: eyes(2), ...alone }));
  await one.obey();
  await world.settle();
  assert.equal((await planned(both)).bytes, a.bytes + b.bytes / 2);
});

test('a gate on evidence counts every release, and the one that stands worst speaks', async (t) => {
  const { world, devices } = await ground(t, 1);
  const gates = { errorRate: 0.01, minRequests: 10 };
  const id = await world.start(rolloutFile('both', { ...both, gates }));
  const [device] = devices;
  assert.ok(device);
  await device.obey();
  await world.settle();
  const tell = async (release: string, failed: number): Promise<void> => {
    const requests = { kind: 'requests', model: release.slice(5, -6), windowMs: 60_000, requests: 100 };
    const data = JSON.stringify({ ...requests, errors: { 'infer-failed': failed }, latencySketch: null });
    const record = { timeMs: world.clock.wall(), release, data };
    await world.store.tx((db) => void world.fleet.evidence.rollups.addIn(db, device.id, [record]));
    await world.pass(30_000);
    await world.settle();
  };
  await tell(digits(2), 0);
  const waiting = await world.status(id);
  assert.match(waiting.reason ?? '', /^eyes: gate errorRate of wave 0: 0 of 1 devices/);
  await tell(eyes(2), 40);
  await device.obey();
  await world.settle();
  const stopped = await world.status(id);
  assert.equal(stopped.state, 'failed');
  assert.match(stopped.reason ?? '', /^eyes: gate errorRate of wave 0: 40 of 100 requests failed/);
});

test('a file of several releases says what is wrong with it', () => {
  const wrong = (spec: Record<string, unknown>): string => {
    const read = parseRolloutFile(rolloutFile('r', spec));
    return read.ok ? 'ok' : `${read.refusal.code} ${read.refusal.detail}`;
  };
  assert.equal(wrong(both), 'ok');
  assert.match(wrong({ releases: [digits(2), digits(3)] }), /^rollout-file-invalid .*digits is served once/);
  assert.match(wrong({ releases: [digits(2), 'acme/eyes'] }), /^rollout-file-invalid /);
  assert.match(wrong({ ...both, as: 'other' }), /^rollout-file-invalid .*their own names/);
  assert.match(wrong({ ...both, release: digits(2) }), /^rollout-file-invalid /);
});
