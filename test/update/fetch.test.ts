// Why: bytes on a real disk: resumed, refused, restarted, never under their name before they were checked.
// Trusts: the real Disk of shared/host. Must never: leave its folder behind.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { rangesAtOnceMax } from '../../agent/update/download.ts';
import { type Blobs, openBlobs } from '../../agent/update/fetch.ts';
import { drawBytes } from '../../firmware-sim/chance.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk } from '../../shared/host/disk.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Disk } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

const wanted = { wanted: () => true };
const content = drawBytes(2_300_000, 1, 'blob');
const ref = { sha256: sha256Hex(content), bytes: content.length };
const partial = `blobs/${ref.sha256}.unverified`;

function code(result: Result<unknown>): string {
  return result.ok ? 'ok' : result.refusal.code;
}

interface Line {
  readonly blobs: Blobs;
  disk: Disk;
  folder: string;
  sentBytes: number;
  events: LogEvent[];
  /** Changes what is sent; a throw is a crash in the middle. */
  tamper: (bytes: Uint8Array, offset: number) => Uint8Array;
  total: number;
  /** The process starts again on the same disk. */
  restart(): void;
}

function line(context: TestContext, wrap: (disk: Disk) => Disk = (disk) => disk): Line {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-fetch-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const disk = wrap(openDisk(folder));
  const open = () =>
    openBlobs({
      disk,
      clock: systemClock,
      log: { emit: (_level, event) => made.events.push(event) },
      fetcher: {
        range: async (_target, offset, length) => {
          const bytes = made.tamper(content.slice(offset, offset + length), offset);
          made.sentBytes += bytes.length;
          return ok({ bytes, totalBytes: made.total });
        },
      },
    });
  const made: Line = {
    get blobs() {
      return blobs;
    },
    disk,
    folder,
    sentBytes: 0,
    events: [],
    tamper: (bytes) => bytes,
    total: content.length,
    restart: () => {
      blobs = open();
    },
  };
  let blobs = open();
  return made;
}

test('fetched once, under its own name, and not again', async (context) => {
  const to = line(context);
  const progress: number[] = [];
  const options = { ...wanted, onProgress: (done: number) => progress.push(done) };
  assert.equal(code(await to.blobs.ensure(ref, options)), 'ok');
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'ok');
  assert.equal(to.sentBytes, content.length);
  assert.deepEqual(readdirSync(join(to.folder, 'blobs')), [ref.sha256]);
  assert.deepEqual(await to.disk.read(`blobs/${ref.sha256}`), content);
  assert.equal(progress.at(-1), content.length);
  assert.deepEqual(
    progress,
    [...progress].sort((a, b) => a - b),
  );
});

test('killed in the middle it resumes: under 10 % of the bytes are asked twice', async (context) => {
  const to = line(context);
  to.tamper = (bytes, offset) => {
    if (offset > content.length / 2) throw new Error('killed');
    return bytes;
  };
  await assert.rejects(to.blobs.ensure(ref, wanted), /killed/);
  assert.equal(await to.blobs.holds(ref), false);
  to.tamper = (bytes) => bytes;
  to.restart();
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'ok');
  assert.ok(to.events.includes('fetch.resumed'));
  const twice = to.sentBytes - content.length;
  assert.ok(twice < content.length * 0.1, `${twice} bytes twice`);
});

test('offline in the middle, in the same process: nothing is asked twice', async (context) => {
  const to = line(context);
  let answers = 0;
  const flaky = openBlobs({
    disk: to.disk,
    clock: systemClock,
    log: { emit: () => undefined },
    fetcher: {
      range: async (_target, offset, length) => {
        answers += 1;
        if (answers % 3 === 0) return refuse('bus-offline', 'no line');
        to.sentBytes += Math.min(length, content.length - offset);
        return ok({ bytes: content.slice(offset, offset + length), totalBytes: content.length });
      },
    },
  });
  let result = await flaky.ensure(ref, wanted);
  for (; !result.ok; result = await flaky.ensure(ref, wanted)) assert.equal(code(result), 'bus-offline');
  assert.equal(to.sentBytes, content.length);
});

test('a flipped bit: blob-digest-mismatch, and nothing is left', async (context) => {
  const to = line(context);
  to.tamper = (bytes, offset) => {
    if (offset === 0) bytes[17] = (bytes[17] ?? 0) ^ 4;
    return bytes;
  };
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'blob-digest-mismatch');
  assert.deepEqual(readdirSync(join(to.folder, 'blobs')), []);
  assert.equal(to.sentBytes, content.length, 'a fresh download that is wrong is not repeated');
});

/** Half of the file is here, and the process is a new one. */
async function halfHere(to: Line): Promise<void> {
  to.tamper = (bytes, offset) => {
    if (offset > content.length / 2) throw new Error('killed');
    return bytes;
  };
  await assert.rejects(to.blobs.ensure(ref, wanted), /killed/);
  to.tamper = (bytes) => bytes;
  to.sentBytes = 0;
  to.restart();
}

test('bytes that nothing proves are not kept', async (context) => {
  const to = line(context);
  await to.disk.create(partial);
  writeFileSync(join(to.folder, partial), new Uint8Array(1_000_000));
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'ok');
  assert.equal(to.sentBytes, content.length);
  assert.deepEqual(to.events, ['fetch.finished']);
});

test('a torn write: what stands before it is kept, it and what follows are fetched again', async (context) => {
  const to = line(context);
  await halfHere(to);
  const path = join(to.folder, partial);
  const torn = readFileSync(path);
  const at = Math.floor(torn.length * 0.7);
  torn[at] = (torn[at] ?? 0) ^ 1;
  writeFileSync(path, torn);
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'ok');
  assert.ok(to.events.includes('fetch.resumed'));
  assert.ok(!to.events.includes('fetch.restarted'));
  const kept = content.length - to.sentBytes;
  assert.ok(kept <= at && kept > at - 256 * 1024, `${kept} bytes were kept, the torn one is ${at}`);
});

test('wrong bytes after a resume: one fresh start, then blob-digest-mismatch', async (context) => {
  const to = line(context);
  await halfHere(to);
  to.tamper = (bytes) => bytes.map((byte) => byte ^ 1);
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'blob-digest-mismatch');
  assert.ok(to.events.includes('fetch.restarted'));
  assert.ok(to.sentBytes < 2 * content.length);
  assert.deepEqual(readdirSync(join(to.folder, 'blobs')), []);
});

test('another size than was signed: blob-size-mismatch', async (context) => {
  const to = line(context);
  to.total = content.length - 1;
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'blob-size-mismatch');
  assert.deepEqual(readdirSync(join(to.folder, 'blobs')), []);
});

test('an empty file is made without asking; empty answers are no progress', async (context) => {
  const to = line(context);
  const empty = { sha256: sha256Hex(new Uint8Array(0)), bytes: 0 };
  assert.equal(code(await to.blobs.ensure(empty, wanted)), 'ok');
  assert.equal(to.sentBytes, 0);
  to.tamper = () => new Uint8Array(0);
  assert.equal(code(await to.blobs.ensure(ref, wanted)), 'fetch-timeout');
});

test('unwanted in the middle: it stops, and the file is not named', async (context) => {
  const to = line(context);
  let asked = 0;
  const options = { wanted: () => asked < 3 };
  to.tamper = (bytes) => {
    asked += 1;
    return bytes;
  };
  assert.equal(code(await to.blobs.ensure(ref, options)), 'update-superseded');
  // Nothing is asked for after that; what was asked ahead may still be answered.
  assert.ok(asked <= 3 + rangesAtOnceMax, `${asked} ranges`);
  assert.equal(await to.blobs.holds(ref), false);
});

test('rot is found by verify, once a process, and the file is removed', async (context) => {
  const to = line(context);
  await to.blobs.ensure(ref, wanted);
  const rotten = content.slice();
  rotten[content.length - 1] = (rotten[content.length - 1] ?? 0) ^ 128;
  writeFileSync(join(to.folder, `blobs/${ref.sha256}`), rotten);
  to.restart();
  assert.equal(code(await to.blobs.verify(ref)), 'blob-digest-mismatch');
  assert.equal(code(await to.blobs.verify(ref)), 'fetch-not-found');
});

test('a file that rots after it was verified in this process is not given out', async (context) => {
  const to = line(context);
  await to.blobs.ensure(ref, wanted);
  assert.equal(code(await to.blobs.read(ref)), 'ok');
  const rotten = content.slice();
  rotten[0] = (rotten[0] ?? 0) ^ 1;
  writeFileSync(join(to.folder, `blobs/${ref.sha256}`), rotten);
  assert.equal(code(await to.blobs.read(ref)), 'blob-digest-mismatch');
  assert.equal(code(await to.blobs.read(ref)), 'fetch-not-found');
});

test('collect keeps what is named and what is none of ours', async (context) => {
  const to = line(context);
  await to.blobs.ensure(ref, wanted);
  const other = 'a'.repeat(64);
  await to.disk.create(`blobs/${other}`);
  for (const tail of ['.unverified', '.sums', '.rebuilt', `.${'c'.repeat(64)}.encoded`])
    await to.disk.create(`blobs/${'b'.repeat(64)}${tail}`);
  // Left behind by a cut, of a file that is here by now.
  await to.disk.create(`blobs/${ref.sha256}.sums`);
  await to.disk.create('blobs/README');
  await to.blobs.collect(async () => null);
  assert.equal((await to.disk.list('blobs')).length, 8);
  await to.blobs.collect(async () => new Set([ref.sha256]));
  assert.deepEqual(await to.disk.list('blobs'), ['README', ref.sha256].sort());
});

test('synced before named: the order of disk calls', async (context) => {
  const calls: string[] = [];
  const to = line(context, (disk) => ({
    ...disk,
    fsync: (path) => {
      calls.push('fsync');
      return disk.fsync(path);
    },
    rename: (from, target) => {
      calls.push('rename');
      return disk.rename(from, target);
    },
    fsyncDir: (path) => {
      calls.push('fsyncDir');
      return disk.fsyncDir(path);
    },
  }));
  await to.blobs.ensure(ref, wanted);
  // The name of the unfinished file too, or a cut loses all of it.
  assert.equal(calls[0], 'fsyncDir');
  assert.deepEqual(calls.slice(-3), ['fsync', 'rename', 'fsyncDir']);
  // The file and the digests of its parts, at most once a unit; the file once more at its end.
  const unitBytes = Math.max(limits.fetchSyncBytesMin, Math.floor(content.length / 64));
  const syncs = calls.filter((call) => call === 'fsync').length;
  const unitsMax = Math.floor(content.length / unitBytes);
  assert.ok(syncs > 2 && syncs <= 2 * unitsMax + 1, `${syncs} syncs, ${unitsMax} units`);
});
