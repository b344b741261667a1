// Why: holds the promise that a registry makes smaller files of new releases, offers each device those that it can use,
// and gives them to nobody else. Trusts: world.ts; an encoder that names what it was given.
// Must never: check prose, or wait for time to pass.

import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { createEncoding, type Encoding } from '../../registry/delivery/encoding.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { DeltaEncoder, FetchTarget } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { BulkFrame } from '../../shared/wire/frames.ts';
import { type Ways, waysSchema } from '../../shared/wire/ways.ts';
import { type Device, head, openWorld, rolloutFile, type World } from '../fleet/world.ts';
import { identityModel } from '../registry-core/support.ts';

type EncodeJob = Parameters<DeltaEncoder['encode']>[0];

/** Says what it was asked to encode, in few bytes; a delta is shorter than what stands alone. */
class NamingEncoder implements DeltaEncoder {
  readonly jobs: { target: string; base: string | null; bytesMax: number }[] = [];
  /** In the place of the next answers. */
  readonly next: Result<Uint8Array | null>[] = [];
  stopped = false;
  /** Held back until called. */
  gate: Promise<void> | null = null;

  async encode({ target, bases, bytesMax }: EncodeJob): Promise<Result<Uint8Array | null>> {
    const base = bases[0]?.sha256 ?? null;
    this.jobs.push({ target: target.sha256, base, bytesMax });
    await this.gate;
    if (this.stopped) return refuse('interrupted', 'stopped');
    const said = this.next.shift();
    if (said !== undefined) return said;
    const text =
      base === null ? `${target.sha256} alone ${'.'.repeat(2_000)}` : `${target.sha256} from ${base}`;
    return ok(new TextEncoder().encode(text));
  }
  stop(): void {
    this.stopped = true;
  }
}

const modelOf = (note: string): Uint8Array => identityModel(note.padEnd(10_000, '.'));

async function push(world: World, counter: number): Promise<{ model: Uint8Array; sha256: string }> {
  const model = modelOf(`release ${counter}`);
  await world.push(`acme/digits@${counter}.0.0`, counter, null, model);
  await world.settle();
  await world.core.encoding.idle();
  return { model, sha256: sha256Hex(model) };
}

async function fetch(world: World, device: Device, target: FetchTarget): Promise<BulkFrame[]> {
  world.bus.frames.delete(device.id);
  device.say('fetch', { ...head(world), requestId: 7, target, offset: 0, length: 1_000_000 });
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    const frames = world.bus.frames.get(device.id) ?? [];
    const [first] = frames;
    const bytes = frames.reduce((sum, frame) => sum + frame.payload.length, 0);
    if (first !== undefined && (first.status !== 'data' || bytes >= first.totalBytes)) return frames;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('no answer');
}

async function ways(world: World, device: Device, sha256: string, held: string[]): Promise<Ways> {
  const frames = await fetch(world, device, { kind: 'ways', sha256, held });
  assert.deepEqual(
    frames.map((frame) => frame.status),
    ['data'],
  );
  return waysSchema.parse(JSON.parse(Buffer.concat(frames.map((frame) => frame.payload)).toString()));
}

test('a new release is encoded by itself and from the three before it; devices are offered what they can use', async (t) => {
  const encoder = new NamingEncoder();
  const world = await openWorld(t, { encoder });
  const pushed: { model: Uint8Array; sha256: string }[] = [];
  for (const counter of [1, 2, 3, 4, 5]) pushed.push(await push(world, counter));
  const [first, second, , fourth, fifth] = pushed;
  assert.ok(first && second && fourth && fifth);
  const ofFifth = encoder.jobs.filter((job) => job.target === fifth.sha256);
  assert.deepEqual(
    ofFifth.map((job) => job.base),
    [null, ...[3, 2, 1].map((index) => pushed[index]?.sha256)],
  );
  // A delta must be smaller than what needs no base.
  assert.equal(ofFifth[0]?.bytesMax, fifth.model.length - 1);
  assert.ok((ofFifth[1]?.bytesMax ?? 0) < 2_200);

  const [device, stranger] = await world.devices(2);
  assert.ok(device && stranger);
  const denied = await fetch(world, device, { kind: 'ways', sha256: fifth.sha256, held: [] });
  assert.deepEqual(
    denied.map((frame) => frame.status),
    ['denied'],
    'not assigned',
  );
  await world.start(
    rolloutFile('five', {
      release: 'acme/digits@5.0.0',
      waves: [{ count: 1, soak: '1h' }, { percent: 100 }],
    }),
  );
  const assigned = (await device.assignment())?.releases.length === 1 ? device : stranger;
  const other = assigned === device ? stranger : device;
  const alone = await ways(world, assigned, fifth.sha256, []);
  assert.deepEqual([alone.bytes, alone.retryAfterMs], [fifth.model.length, null]);
  assert.deepEqual(
    alone.ways.map((way) => way.bases),
    [[]],
  );
  const both = await ways(world, assigned, fifth.sha256, [fourth.sha256, 'f'.repeat(64)]);
  assert.deepEqual(
    both.ways.map((way) => way.bases),
    [[fourth.sha256], []],
    'the smallest first',
  );
  const [way] = both.ways;
  assert.ok(way);
  const frames = await fetch(world, assigned, { kind: 'blob', sha256: way.sha256 });
  assert.equal(
    Buffer.concat(frames.map((frame) => frame.payload)).toString(),
    `${fifth.sha256} from ${fourth.sha256}`,
  );
  assert.equal(world.fleet.counters().downloads.savedBytes, fifth.model.length - way.bytes);
  const statusOf = async (who: Device, sha256: string) =>
    (await fetch(world, who, { kind: 'blob', sha256 }))[0]?.status;
  assert.equal(await statusOf(other, way.sha256), 'denied', 'it may not have the file itself');
  const ofFourth = (await world.core.encodings.ways(fourth.sha256, new Set())).ways[0];
  assert.ok(ofFourth);
  assert.equal(await statusOf(assigned, ofFourth.sha256), 'denied', 'made for another file');

  // Asked for from a base that was too old: made now, while the device is told to ask again.
  const asked = await ways(world, assigned, fifth.sha256, [first.sha256]);
  assert.equal(asked.retryAfterMs, 5_000);
  await world.core.encoding.idle();
  const answered = await ways(world, assigned, fifth.sha256, [first.sha256]);
  assert.deepEqual(answered.ways[0]?.bases, [first.sha256]);
  assert.equal(answered.retryAfterMs, null);

  const view = unwrap(await world.releases.show('acme/digits')).versions.find(
    (one) => one.version === '5.0.0',
  );
  assert.deepEqual(
    view?.deltas.map((delta) => delta.from),
    ['4.0.0', '3.0.0', '2.0.0', '1.0.0'],
  );
  assert.equal(view?.deltas[0]?.bytes, way.bytes);
  assert.equal(view?.compressedBytes, alone.ways[0]?.bytes);
});

test('what fails is tried again after a while, what is no smaller is not, and a crash costs the registry nothing', async (t) => {
  const encoder = new NamingEncoder();
  const world = await openWorld(t, { encoder });
  encoder.next.push(refuse('delta-encode-failed', 'its process ended'), ok(null));
  const one = await push(world, 1);
  assert.equal(encoder.jobs.length, 1);
  const key = { target: one.sha256, bases: [] };
  assert.equal((await world.core.encodings.find(key))?.outcome, 'failed');
  assert.equal(world.core.encoding.counters().failed, 1);
  world.clock.advance(3_600_001);
  await world.settle();
  await world.core.encoding.idle();
  assert.equal((await world.core.encodings.find(key))?.outcome, 'no-smaller');
  world.clock.advance(48 * 3_600_000);
  await world.settle();
  await world.core.encoding.idle();
  assert.equal(encoder.jobs.length, 2);
});

test('after a restart what is missing is found again; what was taken back gets nothing; space is bounded', async (t) => {
  const encoder = new NamingEncoder();
  const limits = { encodingsBytesMax: 2_300 };
  const world = await openWorld(t, { encoder, limits });
  const encodingWith = (by: DeltaEncoder): Encoding => {
    const { core, folder } = world;
    const made = createEncoding({ ...core, encoder: by, pathOf: (sha256) => `${folder}/blobs/${sha256}` });
    t.after(() => made.stop());
    return made;
  };
  let open: () => void = () => undefined;
  encoder.gate = new Promise((resolve) => {
    open = resolve;
  });
  await world.push('acme/digits@1.0.0', 1, null, modelOf('release 1'));
  await world.push('acme/digits@2.0.0', 2, null, modelOf('release 2'));
  await world.settle();
  const stopping = world.core.encoding.stop();
  open();
  await stopping;
  assert.equal((await world.core.encodings.kept()).files, 0);

  const again = new NamingEncoder();
  const second = encodingWith(again);
  second.start();
  await second.idle();
  // The newest release alone is looked up: by itself and from the one before it.
  const two = sha256Hex(modelOf('release 2'));
  assert.deepEqual(
    again.jobs.map(({ target, base }) => [target, base]),
    [
      [two, null],
      [two, sha256Hex(modelOf('release 1'))],
    ],
  );
  assert.equal((await world.core.encodings.kept()).files, 2);
  await second.stop();

  // A third release needs the room: what was not asked for longest goes, and is not made again by itself.
  world.clock.advance(120_000);
  const third = encodingWith(new NamingEncoder());
  await world.push('acme/digits@3.0.0', 3, null, modelOf('release 3'));
  await world.settle();
  await third.idle();
  assert.equal((await world.core.encodings.find({ target: two, bases: [] }))?.outcome, 'dropped');
  const { bytes } = await world.core.encodings.kept();
  assert.ok(bytes <= limits.encodingsBytesMax, `${bytes}`);
  const here = readdirSync(`${world.folder}/encodings`);
  assert.equal(here.length, (await world.core.encodings.kept()).files);
  await third.stop();

  // Lost files and rows without a file are put right at the start.
  await world.store.tx((db) => db.run(world.store.qb.updateTable('releases').set({ withdrawn: 1 })));
  rmSync(`${world.folder}/encodings/${here[0]}`);
  await world.core.encodings.open();
  assert.equal((await world.core.encodings.kept()).files, here.length - 1);
  const late = new NamingEncoder();
  const fourth = encodingWith(late);
  fourth.start();
  await fourth.idle();
  assert.deepEqual(late.jobs, []);
});
