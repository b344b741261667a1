// Why: one question brings exactly the metadata that a device lacks, in one answer that stays the same over its
// ranges. Trusts: world.ts; shared/trust for whether a device can use it. Must never: check prose.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseFiles } from '../../registry/fleet/parcels.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { refreshCatalogue } from '../../shared/trust/tuf/client.ts';
import type { BulkFrame } from '../../shared/wire/frames.ts';
import type { HeldVersions, RefreshTarget } from '../../shared/wire/messages.ts';
import {
  type Parcel,
  parcelPlainBytesMax,
  readParcelHeader,
  unpackParcel,
} from '../../shared/wire/refresh.ts';
import { countedEntropy } from '../registry-core/support.ts';
import { type Device, head, openWorld, type World } from './world.ts';

const nothing: HeldVersions = { root: 0, regionRoot: 0, timestamp: 0, snapshot: 0, targets: 0 };

async function ask(
  world: World,
  device: Device,
  target: RefreshTarget,
  offset = 0,
  length = 1_000_000,
): Promise<BulkFrame[]> {
  world.bus.frames.delete(device.id);
  device.say('fetch', { ...head(world), requestId: 9, target, offset, length });
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    const frames = world.bus.frames.get(device.id) ?? [];
    const [first] = frames;
    const bytes = frames.reduce((sum, frame) => sum + frame.payload.length, 0);
    const whole = first !== undefined && bytes >= Math.min(length, first.totalBytes - offset);
    if (first !== undefined && (first.status !== 'data' || whole)) return frames;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('no answer');
}

const joined = (frames: BulkFrame[]): Uint8Array =>
  new Uint8Array(Buffer.concat(frames.map((frame) => frame.payload)));

async function opened(bytes: Uint8Array): Promise<Parcel> {
  const { deflated, plainBytes, body } = unwrap(readParcelHeader(bytes));
  const plain = deflated ? unwrap(await systemDeflate.inflate(body, parcelPlainBytesMax)) : body;
  assert.equal(plain.length, plainBytes);
  return unwrap(unpackParcel(plain));
}

const refresh = (held: HeldVersions, namespaces: Record<string, number>): RefreshTarget => ({
  kind: 'refresh',
  held,
  namespaces,
});

async function heldNow(world: World): Promise<HeldVersions> {
  const rows = await world.store.tx((db) => db.all(world.store.qb.selectFrom('metadata_roles').selectAll()));
  const of = (role: string) => rows.find((row) => row.role === role)?.version ?? 0;
  return {
    root: of('root'),
    regionRoot: of('region/root'),
    timestamp: of('timestamp'),
    snapshot: of('snapshot'),
    targets: of('targets'),
  };
}

test('a first refresh is one parcel, with which a device refreshes without asking for more', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  const parcel = await opened(
    joined(await ask(world, device, refresh({ ...nothing, root: 1, regionRoot: 1 }, { acme: 0 }))),
  );
  const version = (await heldNow(world)).snapshot;
  assert.deepEqual(
    [...parcel.files.keys()],
    ['timestamp.json', `${version}.snapshot.json`, '2.targets.json', '1.acme.json'],
  );
  const state = unwrap(
    await refreshCatalogue({
      state: {
        root: await world.repository.catalogueRoot(),
        timestamp: null,
        snapshot: null,
        targets: null,
        delegated: {},
      },
      fetcher: {
        fetch: async (name) => {
          const bytes = parcel.files.get(name);
          return bytes === undefined ? refuse('metadata-missing', name) : ok(bytes);
        },
      },
      nowMs: world.clock.wall(),
      namespaces: ['acme'],
      saveRoot: async () => undefined,
    }),
  );
  assert.ok(state.delegated['acme']);
});

test('nothing new is at most 150 bytes; one new release brings what changed and nothing else', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  const held = await heldNow(world);
  const same = joined(await ask(world, device, refresh(held, { acme: 1 })));
  assert.ok(same.length <= 150, String(same.length));
  assert.deepEqual(await opened(same), { files: new Map(), behind: [], behindNamespaces: [] });
  await world.push('acme/digits@2.0.0', 2);
  const parcel = await opened(joined(await ask(world, device, refresh(held, { acme: 1 }))));
  assert.deepEqual(
    [...parcel.files.keys()].map((name) => name.replace(/^\d+\./, '')),
    ['timestamp.json', 'snapshot.json', 'acme.json'],
  );
  // A namespace that nobody has, and one that was not asked for.
  const other = await opened(joined(await ask(world, device, refresh(await heldNow(world), { nobody: 0 }))));
  assert.equal(other.files.size, 0);
});

test('what the device is ahead in is said and noted once an hour, and changes nothing', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  const held = await heldNow(world);
  const ahead = { ...held, timestamp: held.timestamp + 5, targets: held.targets + 1 };
  const parcel = await opened(joined(await ask(world, device, refresh(ahead, { acme: 9 }))));
  assert.deepEqual(parcel.behind, ['timestamp', 'targets']);
  assert.deepEqual(parcel.behindNamespaces, ['acme']);
  device.says = { held: ahead };
  device.report();
  await ask(world, device, refresh(ahead, { acme: 9 }));
  await world.settle();
  assert.equal((await world.events('restore-suspected')).length, 1);
  assert.deepEqual(await heldNow(world), held);
  world.clock.advance(3_600_000);
  await ask(world, device, refresh(ahead, { acme: 9 }));
  await world.settle();
  assert.equal((await world.events('restore-suspected')).length, 2);
});

test('a parcel in several ranges is one parcel, whatever is signed in between', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const [device, other] = await world.devices(2);
  assert.ok(device && other);
  // The registry's own list, made large enough to need more than one frame.
  const { qb } = world.store;
  const big = countedEntropy('noise').bytes(200_000);
  await world.store.tx((db) => {
    const file =
      db.first(qb.selectFrom('metadata_roles').select('file').where('role', '=', 'targets'))?.file ?? '';
    db.run(qb.updateTable('metadata_files').set({ bytes: big }).where('name', '=', file));
  });
  const target = refresh(nothing, {});
  const first = await ask(world, device, target, 0, 100_000);
  await world.push('acme/digits@2.0.0', 2);
  const total = first[0]?.totalBytes ?? 0;
  const rest = await ask(world, device, target, 100_000, 1_000_000);
  assert.equal(rest[0]?.totalBytes, total);
  const parcel = await opened(new Uint8Array(Buffer.concat([joined(first), joined(rest)])));
  assert.ok(parcel.files.has('timestamp.json'));
  // Who did not begin, asks another question, or takes too long begins again.
  assert.equal((await ask(world, other, target, 100_000, 1_000))[0]?.status, 'failed');
  assert.equal((await ask(world, device, refresh({ ...nothing, root: 1 }, {}), 5, 10))[0]?.status, 'failed');
  world.clock.advance(10 * 60_000);
  assert.equal((await ask(world, device, target, 100_000, 1_000))[0]?.status, 'failed');
});

test('a question with too many namespaces is no question', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const many = Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`n${index}`, 0]));
  assert.equal((await ask(world, device, refresh(nothing, many)))[0]?.status, 'invalid');
});

test('choosing: roots in order and bounded; with a new root lower numbers are sent and not called behind', () => {
  const roles = new Map(
    Object.entries({ root: 4, 'region/root': 3, timestamp: 5, snapshot: 5, targets: 2, 'ns/acme': 7 }).map(
      ([role, version]) => [
        role,
        {
          version,
          file: role === 'timestamp' ? 'timestamp.json' : `${version}.${role.replace('ns/', '')}.json`,
        },
      ],
    ),
  );
  const held = { root: 2, regionRoot: 1, timestamp: 90, snapshot: 80, targets: 2 };
  assert.deepEqual(chooseFiles(roles, { held, namespaces: { acme: 9 } }), {
    names: [
      '3.root.json',
      '4.root.json',
      'region/2.root.json',
      'region/3.root.json',
      'timestamp.json',
      '5.snapshot.json',
      '7.acme.json',
    ],
    behind: [],
    behindNamespaces: [],
  });
  assert.deepEqual(
    chooseFiles(roles, { held: { ...held, root: 4 }, namespaces: { acme: 9, none: 0, lost: 2 } }),
    {
      names: ['region/2.root.json', 'region/3.root.json'],
      // Who may sign for `lost` stands in targets that are not ours.
      behind: ['timestamp', 'snapshot', 'targets'],
      behindNamespaces: ['acme', 'lost'],
    },
  );
  assert.deepEqual(chooseFiles(roles, { held: { ...held, root: 5, regionRoot: 9 }, namespaces: {} }).behind, [
    'root',
    'regionRoot',
    'timestamp',
    'snapshot',
  ]);
  const long = new Map([['root', { version: 1_000, file: '1000.root.json' }]]);
  const names = chooseFiles(long, { held: { ...held, root: 1 }, namespaces: {} }).names;
  assert.deepEqual([names.length, names.at(-1)], [256, '257.root.json']);
});
