// Why: brings the files of a release onto the disk, each under the name of its SHA-256, by the smallest way that works,
// resuming after a power cut. Trusts: digests and sizes that were signed; nothing that the network says.
// Must never: give a file its final name before its digest was checked and its bytes were synced.

import { sha256Hex, sha256Stream } from '../../shared/crypto/digests.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Disk, Fetcher, Log, Rebuilder } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Way } from '../../shared/wire/ways.ts';
import { blobFolder, blobPath, encodedPath, ownerOf, rebuiltPath, unverifiedPath } from './blob-names.ts';
import { download, type RateLimits, rangesAtOnceMax } from './download.ts';
import { createPace } from './pace.ts';
import { openPartials, partBytesMax, type SyncLimits } from './partial.ts';
import { createRoom, type RoomTerms } from './room.ts';
import { createWays, type WayTerms } from './ways.ts';

export { blobPath } from './blob-names.ts';

export interface BlobRef {
  sha256: string;
  bytes: number;
}

export interface BlobLimits extends RateLimits, SyncLimits, RoomTerms, WayTerms {}

/** Digests of all that some model may still need; null where that cannot be told. `sparing`: without what only may be. */
export type KeepSet = (sparing: boolean) => Promise<ReadonlySet<string> | null>;

export interface EnsureOptions {
  /** False once nobody wants the file any more: the call then refuses with `update-superseded`. */
  wanted: () => boolean;
  /** Bytes of what is fetched for this file that are here, and all of them: fewer than the file's where a way is used. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** Files that are here and from which the registry may have encoded this one, the likeliest first. */
  bases?: readonly BlobRef[];
  /** What is not to be removed where space is short; absent: nothing is removed. */
  keep?: KeepSet;
}

/** Since this process began. */
export interface DeliveryCounters {
  /** Bytes of files that came over the network, with what came in vain. */
  arrivedBytes: number;
  /** Bytes of the files that were had by them. */
  fileBytes: number;
  /** Files that were made of smaller ones. */
  rebuiltFiles: number;
  failedWays: number;
}

export interface Blobs {
  /** Whether the file is here under its own name. Its bytes were checked when it got that name. */
  holds(ref: BlobRef): Promise<boolean>;
  /** Bytes of the file that are still to come, by the longest way; 0 where it is here. */
  lacking(ref: BlobRef): Promise<number>;
  /**
   * One try to have the file here; what was fetched before is used. One file at a time over the whole
   * device. Refusals: those of the Fetcher (call again to go on), `fetch-too-slow`, `blob-digest-mismatch`,
   * `blob-size-mismatch`, `update-superseded`, `disk-full`, `storage-quota`. Faults: `disk-full`, `disk-io`.
   */
  ensure(ref: BlobRef, options: EnsureOptions): Promise<Result<void>>;
  /** Makes room for so many bytes, of what nobody needs. Refusals: `disk-full`, `storage-quota`. */
  makeRoom(bytes: number, keep: KeepSet): Promise<Result<void>>;
  /**
   * Digests the file where this process has not yet; a rotten one is removed.
   * Refusals: `blob-digest-mismatch`, `blob-size-mismatch`; absent: `fetch-not-found`.
   */
  verify(ref: BlobRef): Promise<Result<void>>;
  /** Content of a small file, digested. Refusals as `verify`. */
  read(ref: BlobRef): Promise<Result<Uint8Array>>;
  /** Removes every file whose digest is not named; null from `keep`: nothing is removed, and false is returned. */
  collect(keep: () => Promise<ReadonlySet<string> | null>): Promise<boolean>;
  counters(): DeliveryCounters;
}

export interface BlobParts {
  disk: Disk;
  fetcher: Fetcher;
  clock: Clock;
  log: Log;
  /** Absent: files are fetched as they are. */
  rebuilder?: Rebuilder;
  limits?: BlobLimits;
}

/** A try that ended with one of these goes on later where it was; another way would not be had either. */
const laterAgain: ReadonlySet<string> = new Set([
  'bus-offline',
  'fetch-busy',
  'fetch-timeout',
  'fetch-too-slow',
  'update-superseded',
  'interrupted',
]);

export function openBlobs(parts: BlobParts): Blobs {
  const { disk, fetcher, clock, log, rebuilder } = parts;
  const of = parts.limits ?? limits;
  /** Digests checked by this process. */
  const verified = new Set<string>();
  const partials = openPartials(disk, log, of);
  const pace = createPace({ fetchRangeBytesMax: of.fetchRangeBytesMax, atOnceMax: rangesAtOnceMax });
  const room = createRoom(disk, of);
  const ways = createWays({ fetcher, clock, terms: of });
  const counters: DeliveryCounters = { arrivedBytes: 0, fileBytes: 0, rebuiltFiles: 0, failedWays: 0 };
  /** Bases of the way that is being gone. */
  let inUse: readonly string[] = [];
  let slot: Promise<unknown> = Promise.resolve();

  /** A device asks for one file after the other, and nothing is collected meanwhile. */
  function inSlot<T>(work: () => Promise<T>): Promise<T> {
    const turn = slot.then(work);
    slot = turn.then(
      () => undefined,
      () => undefined,
    );
    return turn;
  }

  async function digestOf(path: string, bytes: number): Promise<string | null> {
    const digest = sha256Stream();
    for (let offset = 0; offset < bytes; ) {
      const piece = await disk.readRange(path, offset, Math.min(partBytesMax, bytes - offset));
      if (piece === null || piece.length === 0) return null;
      digest.update(piece);
      offset += piece.length;
    }
    return digest.hex();
  }

  /** Gives a file its final name, where it is what it should be. */
  async function named(from: string, path: string, ref: BlobRef): Promise<boolean> {
    if ((await digestOf(from, ref.bytes)) === ref.sha256 && (await disk.size(from)) === ref.bytes) {
      await disk.fsync(from);
      await disk.rename(from, path);
      await partials.discard(path);
      await disk.fsyncDir(blobFolder);
      return true;
    }
    return false;
  }

  /** One round of fetching: `again` where bytes of an earlier life may be to blame for a wrong digest. */
  async function round(
    ref: BlobRef,
    path: string,
    options: EnsureOptions,
  ): Promise<Result<'done' | 'again'>> {
    const file = await partials.open(path, ref.bytes);
    const { resumed } = file;
    const fetched = await download(
      { fetcher, clock, pace, partials, limits: of },
      { kind: 'blob', sha256: ref.sha256 },
      file,
      {
        wanted: options.wanted,
        onProgress: (doneBytes) => options.onProgress?.(doneBytes, ref.bytes),
        onArrived: (bytes) => {
          counters.arrivedBytes += bytes;
        },
      },
    );
    if (!fetched.ok) {
      if (fetched.refusal.code === 'blob-size-mismatch') await partials.discard(path);
      return fetched;
    }
    if (await named(unverifiedPath(path), path, ref)) {
      log.emit('info', 'fetch.finished', { sha256: ref.sha256, bytes: ref.bytes });
      return ok('done');
    }
    await partials.discard(path);
    return resumed ? ok('again') : refuse('blob-digest-mismatch', `blob ${ref.sha256.slice(0, 12)}`);
  }

  /** The file at that path, whole and digested. */
  async function fetchTo(ref: BlobRef, path: string, options: EnsureOptions): Promise<Result<void>> {
    for (let rounds = 1; ; rounds += 1) {
      if (!options.wanted()) return refuse('update-superseded', 'another assignment came');
      if ((await disk.size(path)) === ref.bytes) return ok();
      const fetched = await round(ref, path, options);
      if (!fetched.ok) return fetched;
      if (fetched.value === 'done') return ok();
      if (rounds > 1) return refuse('blob-digest-mismatch', `blob ${ref.sha256.slice(0, 12)}, twice`);
      log.emit('warn', 'fetch.restarted', { sha256: ref.sha256, totalBytes: ref.bytes });
    }
  }

  /** Bytes that are still to come of a file at that path. */
  async function lackingAt(path: string, bytes: number): Promise<number> {
    if ((await disk.size(path)) === bytes) return 0;
    return Math.max(0, bytes - (await partials.bytesOf(path)));
  }

  async function makeRoom(bytes: number, keep: KeepSet | undefined): Promise<Result<void>> {
    let fits = await room.has(bytes);
    for (const sparing of [false, true]) {
      if (fits.ok || keep === undefined) return fits;
      await collectNow(() => keep(sparing), 'space');
      fits = await room.has(bytes);
    }
    return fits;
  }

  async function rebuild(ref: BlobRef, way: Way): Promise<Result<void>> {
    if (rebuilder === undefined) return refuse('not-implemented', 'nothing here makes files of others');
    const targetPath = rebuiltPath(ref.sha256);
    const made = await rebuilder.rebuild({
      encodedPath: encodedPath(ref.sha256, way.sha256),
      basePaths: way.bases.map(blobPath),
      targetPath,
      targetSha256: ref.sha256,
      targetBytes: ref.bytes,
    });
    if (!made.ok) {
      await disk.unlink(targetPath);
      return made;
    }
    // Its name may not be there before its content: it is the same order as for what was fetched.
    if (!(await named(targetPath, blobPath(ref.sha256), ref))) {
      await disk.unlink(targetPath);
      return refuse('blob-digest-mismatch', `rebuilt ${ref.sha256.slice(0, 12)}`);
    }
    return ok();
  }

  /** What is of no more use, or is not tried again: plain bytes need its room. */
  async function abandon(path: string): Promise<void> {
    await partials.discard(path);
    await disk.unlink(path);
    await disk.fsyncDir(blobFolder);
  }

  async function goWay(ref: BlobRef, way: Way, options: EnsureOptions): Promise<Result<void>> {
    const encoded = encodedPath(ref.sha256, way.sha256);
    // While it is rebuilt both are there.
    const fits = await makeRoom((await lackingAt(encoded, way.bytes)) + ref.bytes, options.keep);
    if (!fits.ok) return fits;
    for (const sha256 of way.bases) {
      const base = options.bases?.find((one) => one.sha256 === sha256);
      const checked = base === undefined ? refuse('fetch-not-found', 'no such base') : await verify(base);
      if (!checked.ok) return checked;
    }
    const fetched = await fetchTo({ sha256: way.sha256, bytes: way.bytes }, encoded, options);
    if (!fetched.ok) return fetched;
    const rebuilt = await rebuild(ref, way);
    if (rebuilt.ok) await abandon(encoded);
    return rebuilt;
  }

  /** The smallest of what is still to come first: one that is half here may be better than a smaller one. */
  async function inOrder(ref: BlobRef, offered: readonly Way[], leftBytes: number): Promise<Way[]> {
    const lacking = await Promise.all(
      offered.map(async (way) => ({
        way,
        bytes: await lackingAt(encodedPath(ref.sha256, way.sha256), way.bytes),
      })),
    );
    return lacking
      .filter(({ bytes }) => bytes < leftBytes)
      .sort((a, b) => a.bytes - b.bytes)
      .map(({ way }) => way);
  }

  /** The file by one of the registry's ways; null: none works, and it is fetched as it is. */
  async function byWays(ref: BlobRef, options: EnsureOptions): Promise<Result<void> | null> {
    if (rebuilder === undefined || options.bases === undefined) return null;
    // A download that has begun is gone on with where less is left of it.
    const leftBytes = await lackingAt(blobPath(ref.sha256), ref.bytes);
    if (!ways.worth(leftBytes)) return null;
    const offered = await ways.offered(ref, leftBytes, options.bases, options.wanted);
    if (!offered.ok) return offered;
    for (const way of await inOrder(ref, offered.value, leftBytes)) {
      if (!options.wanted()) return refuse('update-superseded', 'another assignment came');
      const fields = {
        sha256: ref.sha256,
        bytes: ref.bytes,
        by: way.sha256,
        byBytes: way.bytes,
        bases: way.bases,
      };
      log.emit('info', 'fetch.way.chosen', fields);
      inUse = way.bases;
      const gone = await goWay(ref, way, options).finally(() => {
        inUse = [];
      });
      if (gone.ok) {
        counters.rebuiltFiles += 1;
        log.emit('info', 'fetch.rebuilt', fields);
        return gone;
      }
      if (laterAgain.has(gone.refusal.code)) return gone;
      await abandon(encodedPath(ref.sha256, way.sha256));
      counters.failedWays += 1;
      log.emit('warn', 'fetch.way.failed', { ...fields, ...gone.refusal });
      if (!isOfSpace(gone.refusal)) ways.failed(ref, way);
    }
    return null;
  }

  async function ensureNow(ref: BlobRef, options: EnsureOptions): Promise<Result<void>> {
    if (!options.wanted()) return refuse('update-superseded', 'another assignment came');
    if (await holds(ref)) return ok();
    let had = await byWays(ref, options);
    if (had === null) {
      const path = blobPath(ref.sha256);
      const fits = await makeRoom(await lackingAt(path, ref.bytes), options.keep);
      if (!fits.ok) return fits;
      had = await fetchTo(ref, path, options);
    }
    if (!had.ok) return had;
    verified.add(ref.sha256);
    counters.fileBytes += ref.bytes;
    return ok();
  }

  async function holds(ref: BlobRef): Promise<boolean> {
    return (await disk.size(blobPath(ref.sha256))) === ref.bytes;
  }

  async function discard(ref: BlobRef): Promise<void> {
    verified.delete(ref.sha256);
    await disk.unlink(blobPath(ref.sha256));
    await disk.fsyncDir(blobFolder);
  }

  async function verify(ref: BlobRef): Promise<Result<void>> {
    const path = blobPath(ref.sha256);
    const size = await disk.size(path);
    if (size === null) return refuse('fetch-not-found', `blob ${ref.sha256.slice(0, 12)} is not on the disk`);
    if (size !== ref.bytes) {
      await discard(ref);
      return refuse('blob-size-mismatch', `${size} bytes on the disk, ${ref.bytes} were signed`);
    }
    if (verified.has(ref.sha256)) return ok();
    if ((await digestOf(path, ref.bytes)) !== ref.sha256) {
      await discard(ref);
      return refuse('blob-digest-mismatch', `blob ${ref.sha256.slice(0, 12)} rotted on the disk`);
    }
    verified.add(ref.sha256);
    return ok();
  }

  async function collectNow(
    keep: () => Promise<ReadonlySet<string> | null>,
    why: 'unneeded' | 'space',
  ): Promise<boolean> {
    const names = await disk.list(blobFolder);
    const wanted = await keep();
    if (wanted === null) return false;
    const whole = new Set(names);
    let removed = 0;
    let bytes = 0;
    for (const name of names) {
      const owner = ownerOf(name);
      if (owner === null) continue;
      // What a cut left behind of a file that is here by now goes too.
      const isOver = owner.onTheWay && whole.has(owner.sha256);
      if (!isOver && (wanted.has(owner.sha256) || inUse.includes(owner.sha256))) continue;
      verified.delete(name);
      const path = `${blobFolder}/${name}`;
      partials.forget(blobPath(owner.sha256));
      bytes += (await disk.size(path)) ?? 0;
      await disk.unlink(path);
      removed += 1;
    }
    if (removed === 0) return true;
    await disk.fsyncDir(blobFolder);
    log.emit('info', 'blob.collected', { removed, bytes, why });
    return true;
  }

  return {
    holds,
    lacking: (ref) => lackingAt(blobPath(ref.sha256), ref.bytes),
    ensure: (ref, options) => inSlot(() => ensureNow(ref, options)),
    makeRoom: (bytes, keep) => inSlot(() => makeRoom(bytes, keep)),
    verify,
    read: async (ref) => {
      const checked = await verify(ref);
      if (!checked.ok) return checked;
      const bytes = await disk.read(blobPath(ref.sha256));
      if (bytes === null)
        return refuse('fetch-not-found', `blob ${ref.sha256.slice(0, 12)} is not on the disk`);
      // These very bytes, for they are used: the file may have rotted since it was verified.
      if (sha256Hex(bytes) !== ref.sha256) {
        await discard(ref);
        return refuse('blob-digest-mismatch', `blob ${ref.sha256.slice(0, 12)} rotted on the disk`);
      }
      return ok(bytes);
    },
    collect: (keep) => inSlot(() => collectNow(keep, 'unneeded')),
    counters: () => ({ ...counters }),
  };
}

const isOfSpace = ({ code }: Refusal): boolean => code === 'disk-full' || code === 'storage-quota';
