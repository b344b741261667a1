// Why: a device whose disk or quota is full goes on with what it has, says so, and takes the update once there is room.
// Trusts: the real updater in the simulator's world. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Disk } from '../../shared/kernel/ports.ts';
import { contentOf, deliveryLine, encoded, refOf, twoVersions } from './delivery-line.ts';
import { createRig, type Rig } from './rig.ts';

const KiB = 1024;
const wanted = { wanted: () => true };

/** A disk whose write of that number finds no space, once it is armed, and none after it until `freed`. */
function fullAt(disk: Disk, on: { write: number | null; writes: number; free: number | null }): Disk {
  const writing = <T>(work: () => Promise<T>): Promise<T> => {
    on.writes += 1;
    if (on.write !== null && on.writes >= on.write)
      return Promise.reject(new FleetError('disk-full', 'as told'));
    return work();
  };
  return {
    ...disk,
    create: (path) => writing(() => disk.create(path)),
    append: (path, bytes) => writing(() => disk.append(path, bytes)),
    fsync: (path) => writing(() => disk.fsync(path)),
    rename: (from, to) => writing(() => disk.rename(from, to)),
    freeBytes: async () => on.free ?? disk.freeBytes(),
  };
}

/** The first release serves; the disk is as told from here on. */
async function served(on: Parameters<typeof fullAt>[1]): Promise<Rig> {
  const rig = await createRig({ disk: (disk) => fullAt(disk, on) });
  await rig.settle(rig.updater.assign(rig.assignment(1, { vision: 'vision/good/1' })));
  assert.equal(rig.updater.models()[0]?.state, 'committed');
  on.writes = 0;
  return rig;
}

test('disk full at every write: the old release serves, the code is reported, the next try succeeds', async () => {
  const calm = { write: null, writes: 0, free: null };
  const rig = await served(calm);
  await rig.settle(rig.updater.assign(rig.assignment(2, { vision: 'vision/good/2' })));
  const writes = calm.writes;
  assert.ok(writes > 12, `${writes} writes`);
  const { releaseId: oldId } = rig.catalogue.release('vision/good/1');
  const { releaseId: newId } = rig.catalogue.release('vision/good/2');
  for (let write = 1; write <= writes; write += 1) {
    const on: Parameters<typeof fullAt>[1] = { write: null, writes: 0, free: null };
    const one = await served(on);
    on.write = write;
    const reported = new Set<string>();
    // Freed once the registry has been told.
    one.onChange = (models) => {
      const [model] = models;
      if (model?.reason?.code !== 'disk-full') return;
      reported.add(`${model.active} ${model.state}`);
      on.write = null;
    };
    await one.settle(one.updater.assign(one.assignment(2, { vision: 'vision/good/2' })));
    assert.deepEqual([...reported], [`${oldId} fetching`], `write ${write}`);
    const [model] = one.updater.models();
    assert.deepEqual(
      [model?.active, model?.state, model?.reason],
      [newId, 'committed', null],
      `write ${write}`,
    );
  }
});

test('no room, seen before a byte is asked for: reported, and tried again when there is some', async () => {
  const on: Parameters<typeof fullAt>[1] = { write: null, writes: 0, free: null };
  const rig = await served(on);
  on.free = 10;
  let reports = 0;
  const askedBefore = [...rig.asked];
  const next = rig.catalogue.release('vision/good/2');
  rig.onChange = (models) => {
    if (models[0]?.reason?.code !== 'disk-full') return;
    reports += 1;
    assert.equal(models[0].active, rig.catalogue.release('vision/good/1').releaseId);
    if (reports === 1) assert.deepEqual([...rig.asked], askedBefore);
    if (reports === 3) on.free = null;
  };
  await rig.settle(rig.updater.assign(rig.assignment(2, { vision: 'vision/good/2' })));
  assert.equal(reports, 3);
  assert.equal(rig.updater.models()[0]?.active, next.releaseId);
});

test('over its quota a device says so and serves on; what only a crash loop would need makes room', async () => {
  const rig = await createRig();
  const bytesOf = (key: string): number =>
    [...new Set(rig.catalogue.release(key).digests)].reduce(
      (sum, digest) => sum + (rig.catalogue.content(digest)?.length ?? 0),
      0,
    );
  const [one, two, three] = ['vision/good/1', 'vision/good/2', 'vision/good/3'];
  // Two releases and a half fit: the third needs the room of the first, which nobody but a crash loop needs.
  const storageQuotaBytes = bytesOf(two) + bytesOf(three) + Math.floor(bytesOf(one) / 2);
  await rig.reboot({ parts: { storageQuotaBytes } });
  for (const [at, key] of [one, two, three].entries())
    await rig.settle(rig.updater.assign(rig.assignment(at + 1, { vision: key })));
  assert.equal(rig.updater.models()[0]?.active, rig.catalogue.release(three).releaseId);
  const swept = rig.events.filter(
    ({ event, fields }) => event === 'blob.collected' && fields['why'] === 'space',
  );
  assert.ok(swept.length > 0);
  await rig.reboot({ parts: { storageQuotaBytes: bytesOf(three) + 1 } });
  const four = rig.assignment(4, { vision: 'vision/good/4' }, { fetchingMs: 600_000 });
  await rig.settle(rig.updater.assign(four));
  const [model] = rig.updater.models();
  assert.equal(model?.active, rig.catalogue.release(three).releaseId);
  assert.equal(model?.reason?.code, 'deadline-missed');
  assert.match(model?.reason?.detail ?? '', /storage-quota/);
});

test('what makes room is not there for a crash loop to go back to', async () => {
  const rig = await createRig();
  for (const [at, key] of ['vision/good/1', 'vision/good/2'].entries())
    await rig.settle(rig.updater.assign(rig.assignment(at + 1, { vision: key })));
  const [before, now] = ['vision/good/1', 'vision/good/2'].map((key) => rig.catalogue.release(key));
  assert.ok(before && now);
  const only = before.digests.find((digest) => !now.digests.includes(digest));
  await rig.reboot({
    disk: (disk) => ({ ...disk, size: async (path) => (path.endsWith(only ?? '') ? null : disk.size(path)) }),
  });
  rig.updater.troubled({
    as: 'vision',
    manifestSha256: now.manifestSha256,
    refusal: { code: 'model-crash-loop', detail: 'as told' },
  });
  await rig.settle();
  const loops = rig.events.filter(({ event }) => event === 'update.crash-loop');
  assert.deepEqual(
    loops.map(({ fields }) => [fields['fallback'], fields['barredBy']]),
    [[null, 'fetch-not-found']],
  );
  assert.equal(rig.updater.models()[0]?.active, now.releaseId);
});

test('a way that needs more room than there is gives way to the file itself', async (context) => {
  const [first, second] = twoVersions(300 * KiB, 5);
  const delta = encoded(second, first);
  const bytesMax = first.length + second.length + Math.floor(delta.bytes.length / 2);
  const line = deliveryLine(context, { limits: { storageQuotaBytes: bytesMax } });
  const base = line.put(first);
  assert.ok((await line.blobs.ensure(base, wanted)).ok);
  const ref = line.put(second);
  line.put(delta.bytes);
  line.offers.set(ref.sha256, [{ ways: [delta.way] }]);
  const keep = async () => new Set([base.sha256, ref.sha256]);
  assert.ok((await line.blobs.ensure(ref, { ...wanted, bases: [base], keep })).ok);
  assert.deepEqual(contentOf(line, ref), second);
  const failed = line.events.filter(({ event }) => event === 'fetch.way.failed');
  assert.deepEqual(
    failed.map(({ fields }) => fields['code']),
    ['storage-quota'],
  );
});

test('a base is not swept while a file is made of it', async (context) => {
  const [first, second] = twoVersions(60 * KiB, 5);
  const delta = encoded(second, first);
  const quota = first.length + second.length + delta.bytes.length + 10 * KiB;
  const line = deliveryLine(context, { limits: { storageQuotaBytes: quota } });
  const base = line.put(first);
  const litter = line.put(second.slice(0, 20 * KiB));
  for (const ref of [base, litter]) assert.ok((await line.blobs.ensure(ref, wanted)).ok);
  const ref = line.put(second);
  line.put(delta.bytes);
  line.offers.set(ref.sha256, [{ ways: [delta.way] }]);
  // Nobody names the base any more.
  const keep = async () => new Set([ref.sha256]);
  assert.ok((await line.blobs.ensure(ref, { ...wanted, bases: [base], keep })).ok);
  assert.deepEqual(contentOf(line, ref), second);
  assert.equal(line.blobs.counters().rebuiltFiles, 1);
  assert.deepEqual(line.names(), [refOf(first).sha256, ref.sha256].sort());
});
