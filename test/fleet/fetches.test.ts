// Why: a device gets the bytes that are assigned to it, in frames, and nobody else's.
// Trusts: world.ts. Must never: check prose; frames and counters only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { FetchTarget } from '../../shared/kernel/ports.ts';
import type { BulkFrame } from '../../shared/wire/frames.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { once } from '../registry-core/support.ts';
import { type Device, head, openWorld, region, rolloutFile, type World } from './world.ts';

async function fetch(
  world: World,
  device: Device,
  target: FetchTarget,
  offset = 0,
  length = 1_000_000,
): Promise<BulkFrame[]> {
  world.bus.frames.delete(device.id);
  device.say('fetch', { ...head(world), requestId: 7, target, offset, length });
  const abandoned = world.fleet.counters().fetches.abandoned;
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    const frames = world.bus.frames.get(device.id) ?? [];
    if (isAnswered(frames, offset, length) || world.fleet.counters().fetches.abandoned > abandoned)
      return frames;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('no answer');
}

/** Ended by a status, or all bytes of the range are there. */
function isAnswered(frames: BulkFrame[], offset: number, length: number): boolean {
  const [first] = frames;
  if (first === undefined) return false;
  return first.status !== 'data' || joined(frames).length >= Math.min(length, first.totalBytes - offset);
}

const joined = (frames: BulkFrame[]): Buffer => Buffer.concat(frames.map((frame) => frame.payload));

test('serves metadata to every device and blobs to whom they are assigned', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  await world.push('acme/faces@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  const timestamp = await fetch(world, device, { kind: 'metadata', name: 'timestamp.json' });
  assert.deepEqual(joined(timestamp), Buffer.from((await world.repository.file('timestamp.json')) ?? []));
  const missing = await fetch(world, device, { kind: 'metadata', name: '2.root.json' });
  assert.deepEqual(
    missing.map((frame) => frame.status),
    ['not-found'],
  );
  // TUF asks for the next root until there is none: no event.
  assert.equal((await world.events('fetch-not-found')).length, 0);

  // What is known of another region's root, for a device that came from there.
  const bytes = new TextEncoder().encode('a root');
  await world.store.tx((db) =>
    db.run(world.store.qb.insertInto('region_roots').values({ region: 'us-east', version: 2, bytes })),
  );
  const peer = await fetch(world, device, { kind: 'metadata', name: 'regions/us-east/2.root.json' });
  assert.deepEqual(joined(peer), Buffer.from(bytes));
  for (const name of ['regions/us-east/3.root.json', 'regions/eu/2.root.json']) {
    const [frame] = await fetch(world, device, { kind: 'metadata', name });
    assert.equal(frame?.status, 'not-found', name);
  }

  const release = await world.releases.find('acme/digits@1.0.0');
  const other = await world.releases.find('acme/faces@1.0.0');
  assert.ok(release && other);
  const manifest: FetchTarget = { kind: 'blob', sha256: release.manifestSha256 };
  assert.deepEqual(
    (await fetch(world, device, manifest)).map((frame) => frame.status),
    ['denied'],
  );
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  const frames = await fetch(world, device, manifest);
  assert.equal(sha256Hex(joined(frames)), release.manifestSha256);
  assert.ok(frames.every((frame) => frame.requestId === 7 && frame.totalBytes === release.manifestBytes));
  const [model] = release.manifest.files;
  assert.ok(model);
  assert.equal(
    sha256Hex(joined(await fetch(world, device, { kind: 'blob', sha256: model.sha256 }))),
    model.sha256,
  );
  const denied = await fetch(world, device, { kind: 'blob', sha256: other.manifestSha256 });
  assert.deepEqual(
    denied.map((frame) => frame.status),
    ['denied'],
  );
  assert.equal((await world.events('fetch-denied')).length, 2);
  assert.equal(world.fleet.counters().fetches.denied, 2);
});

test('what a device runs it may have again, where it was assigned it once; its word alone opens nothing', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  await world.push('acme/digits@2.0.0', 2);
  await world.push('acme/faces@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.start(rolloutFile('first', { release: 'acme/digits@1.0.0' }));
  await device.obey();
  await world.settle();
  await world.start(rolloutFile('second', { release: 'acme/digits@2.0.0' }));
  const statusOf = async (releaseId: string): Promise<string | undefined> => {
    const release = await world.releases.find(releaseId);
    const target = { kind: 'blob', sha256: release?.manifestSha256 ?? '' } as const;
    return (await fetch(world, device, target))[0]?.status;
  };
  assert.equal(await statusOf('acme/digits@1.0.0'), 'data', 'it runs it, and it was assigned');
  const model = device.models.get('digits');
  assert.ok(model);
  device.models.set('digits', { ...model, active: 'acme/faces@1.0.0', lastGood: 'acme/faces@1.0.0' });
  device.models.set('faces', {
    ...model,
    name: 'faces',
    active: 'acme/faces@1.0.0',
    lastGood: 'acme/faces@1.0.0',
  });
  device.report();
  await world.settle();
  assert.equal(await statusOf('acme/faces@1.0.0'), 'denied');
  assert.equal(await statusOf('acme/digits@1.0.0'), 'denied', 'neither assigned nor run any more');
});

test('ranges come in whole frames with growing offsets; beyond the end is invalid', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  // A larger file under an assigned digest: the model's own is too small to be cut.
  const big = Buffer.alloc(700_000, 'lepton');
  const sha256 = sha256Hex(big);
  await world.blobs.put(sha256, once(big));
  const find = world.releases.find;
  world.core.releases = {
    ...world.releases,
    find: async (id) => {
      const release = await find(id);
      const file = { path: 'big', role: 'card' as const, sha256, bytes: big.length };
      return release && { ...release, manifest: { ...release.manifest, files: [file] } };
    },
  };
  await world.restart();
  const target: FetchTarget = { kind: 'blob', sha256 };
  const frames = await fetch(world, device, target, 100, 650_000);
  assert.deepEqual(joined(frames), big.subarray(100, 650_100));
  assert.ok(frames.every((frame) => frame.payload.length <= limits.bulkFramePayloadBytes));
  let offset = 100;
  for (const frame of frames) {
    assert.equal(frame.offset, offset);
    offset += frame.payload.length;
  }
  const tail = await fetch(world, device, target, 699_990, 500);
  assert.deepEqual(joined(tail), big.subarray(699_990));
  const atEnd = await fetch(world, device, target, 700_000, 500);
  assert.deepEqual(
    atEnd.map((frame) => [frame.status, frame.payload.length]),
    [['data', 0]],
  );
  const beyond = await fetch(world, device, target, 700_001, 500);
  assert.deepEqual(
    beyond.map((frame) => frame.status),
    ['invalid'],
  );
});

test('a device that stops reading or asks too much at once is bounded', async (t) => {
  const world = await openWorld(t);
  const [device, reader] = await world.devices(2);
  assert.ok(device && reader);
  world.bus.stalled.add(device.id);
  assert.deepEqual(await fetch(world, device, { kind: 'metadata', name: 'timestamp.json' }), []);
  assert.equal(world.fleet.counters().fetches.abandoned, 1);
  for (let index = 0; index < 20; index += 1) {
    const target = { kind: 'metadata', name: 'timestamp.json' };
    reader.say('fetch', { ...head(world), requestId: index, target, offset: 0, length: 10 });
  }
  await world.settle();
  const statuses = (world.bus.frames.get(reader.id) ?? []).map((frame) => frame.status);
  assert.equal(statuses.filter((status) => status === 'data').length, limits.fetchesPerDeviceMax);
  assert.equal(statuses.filter((status) => status === 'busy').length, limits.fetchesPerDeviceMax);
  assert.equal(world.fleet.counters().fetches.busy, 16);
  world.bus.say(deviceTopic(region, reader.id, 'fetch'), Buffer.from('{}'));
  await world.settle();
  assert.equal((await world.events('fetch-invalid')).length, 1);
});
