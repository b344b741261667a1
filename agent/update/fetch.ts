// Why: brings the files of a release onto the disk, each under the name of its SHA-256, resuming after
// a power cut. Trusts: digests and sizes that were signed; nothing that the network says.
// Must never: give a file its final name before its digest was checked and its bytes were synced.

import { sha256Hex, sha256Stream } from '../../shared/crypto/digests.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Disk, Fetcher, Log } from '../../shared/kernel/ports.ts';
import { sha256Pattern } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

/** Folder of all blobs, relative to the state disk. */
export const blobFolder = 'blobs';
const unverifiedSuffix = '.unverified';
/** Read and digested in one turn of the event loop: 3 ms on a slow core without SHA instructions. */
const digestPieceBytes = 256 * 1024;

/** Path of a blob on the state disk. */
export function blobPath(sha256: string): string {
  return `${blobFolder}/${sha256}`;
}

export interface BlobRef {
  sha256: string;
  bytes: number;
}

export interface BlobLimits {
  fetchRangeBytesMax: number;
  fetchSyncBytesMin: number;
  fetchSyncBytesMax: number;
}

export interface EnsureOptions {
  /** False once nobody wants the file any more: the call then refuses with `update-superseded`. */
  wanted: () => boolean;
  /** Bytes of this file that are here, after each piece. */
  onProgress?: (doneBytes: number) => void;
}

export interface Blobs {
  /** Whether the file is here under its own name. Its bytes were checked when it got that name. */
  holds(ref: BlobRef): Promise<boolean>;
  /**
   * One try to have the file here; what was fetched before is used. One file at a time over the whole
   * device. Refusals: those of the Fetcher (call again to go on), `blob-digest-mismatch`,
   * `blob-size-mismatch`, `update-superseded`. Faults: `disk-full`, `disk-io`.
   */
  ensure(ref: BlobRef, options: EnsureOptions): Promise<Result<void>>;
  /**
   * Digests the file where this process has not yet; a rotten one is removed.
   * Refusals: `blob-digest-mismatch`, `blob-size-mismatch`; absent: `fetch-not-found`.
   */
  verify(ref: BlobRef): Promise<Result<void>>;
  /** Content of a small file, digested. Refusals as `verify`. */
  read(ref: BlobRef): Promise<Result<Uint8Array>>;
  /** Removes every file whose digest is not named; null from `keep`: nothing is removed, and false is returned. */
  collect(keep: () => Promise<ReadonlySet<string> | null>): Promise<boolean>;
}

export interface BlobParts {
  disk: Disk;
  fetcher: Fetcher;
  log: Log;
  limits?: BlobLimits;
}

/** What this process knows of a file being fetched: so many bytes are there and in order. */
interface Partial {
  bytes: number;
  /** Bytes of an earlier incarnation are among them: a wrong digest may be its fault. */
  resumed: boolean;
}

/** Distance between two fsyncs. It bounds what is fetched twice after a cut: 1.6 % of a large file. */
function syncUnit(totalBytes: number, of: BlobLimits): number {
  return Math.max(of.fetchSyncBytesMin, Math.min(of.fetchSyncBytesMax, Math.floor(totalBytes / 64)));
}

/**
 * What may be kept of an unfinished file after a restart. Writes are unit by unit with an fsync after
 * each, so only the last unit, whole or in part, may hold bytes that never reached the disk.
 */
export function trustedBytes(size: number, unit: number): number {
  return Math.max(0, Math.ceil(size / unit) - 1) * unit;
}

export function openBlobs(parts: BlobParts): Blobs {
  const { disk, fetcher, log } = parts;
  const of = parts.limits ?? limits;
  /** Digests checked by this process. */
  const verified = new Set<string>();
  const partials = new Map<string, Partial>();
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
      const piece = await disk.readRange(path, offset, Math.min(digestPieceBytes, bytes - offset));
      if (piece === null || piece.length === 0) return null;
      digest.update(piece);
      offset += piece.length;
    }
    return digest.hex();
  }

  /** Makes `path` hold what can be trusted of an earlier try, or nothing. */
  async function prepare(ref: BlobRef, path: string, unit: number): Promise<Partial> {
    const size = await disk.size(path);
    const known = partials.get(ref.sha256);
    if (known !== undefined && known.bytes === size) return known;
    partials.delete(ref.sha256);
    const keep = size === null ? 0 : Math.min(trustedBytes(size, unit), trustedBytes(ref.bytes, unit));
    if (size === null || keep === 0) {
      await disk.create(path);
      // Without its name in the folder, a file that was synced piece by piece is lost as a whole.
      await disk.fsyncDir(blobFolder);
      return { bytes: 0, resumed: false };
    }
    await disk.truncate(path, keep);
    // Else a second cut may bring the old length back, and with it a torn unit that looks synced.
    await disk.fsync(path);
    log.emit('info', 'fetch.resumed', { sha256: ref.sha256, atBytes: keep, totalBytes: ref.bytes });
    return { bytes: keep, resumed: true };
  }

  async function fetchOnce(ref: BlobRef, options: EnsureOptions): Promise<Result<{ resumed: boolean }>> {
    const path = blobPath(ref.sha256) + unverifiedSuffix;
    const unit = syncUnit(ref.bytes, of);
    let { bytes, resumed } = await prepare(ref, path, unit);
    partials.delete(ref.sha256);
    while (bytes < ref.bytes) {
      options.onProgress?.(bytes);
      // Whole units, so that at most the last one is ever unsynced.
      const length = Math.min(of.fetchRangeBytesMax, unit - (bytes % unit), ref.bytes - bytes);
      partials.set(ref.sha256, { bytes, resumed });
      const answer = await fetcher.range({ kind: 'blob', sha256: ref.sha256 }, bytes, length);
      if (!options.wanted()) return refuse('update-superseded', 'another assignment came');
      if (!answer.ok) return answer;
      if (answer.value.totalBytes !== ref.bytes) {
        partials.delete(ref.sha256);
        await disk.unlink(path);
        return refuse(
          'blob-size-mismatch',
          `${answer.value.totalBytes} bytes offered, ${ref.bytes} were signed`,
        );
      }
      const piece = answer.value.bytes.subarray(0, length);
      if (piece.length === 0) return refuse('fetch-timeout', 'an empty answer');
      // If this append fails half way, the size on disk is not known: the next try discards a unit.
      partials.delete(ref.sha256);
      await disk.append(path, piece);
      bytes += piece.length;
      if (bytes % unit === 0 || bytes === ref.bytes) await disk.fsync(path);
    }
    options.onProgress?.(bytes);
    if ((await digestOf(path, ref.bytes)) === ref.sha256 && (await disk.size(path)) === ref.bytes) {
      await disk.fsync(path);
      await disk.rename(path, blobPath(ref.sha256));
      await disk.fsyncDir(blobFolder);
      verified.add(ref.sha256);
      log.emit('info', 'fetch.finished', { sha256: ref.sha256, bytes: ref.bytes });
      return ok({ resumed });
    }
    await disk.unlink(path);
    return resumed ? ok({ resumed }) : refuse('blob-digest-mismatch', `blob ${ref.sha256.slice(0, 12)}`);
  }

  async function holds(ref: BlobRef): Promise<boolean> {
    return (await disk.size(blobPath(ref.sha256))) === ref.bytes;
  }

  async function ensureNow(ref: BlobRef, options: EnsureOptions): Promise<Result<void>> {
    // A second round only where bytes of an earlier incarnation may be to blame for the digest.
    for (let round = 1; ; round += 1) {
      if (!options.wanted()) return refuse('update-superseded', 'another assignment came');
      if (await holds(ref)) return ok();
      const fetched = await fetchOnce(ref, options);
      if (!fetched.ok) return fetched;
      if (verified.has(ref.sha256)) return ok();
      if (round > 1) return refuse('blob-digest-mismatch', `blob ${ref.sha256.slice(0, 12)}, twice`);
      log.emit('warn', 'fetch.restarted', { sha256: ref.sha256, totalBytes: ref.bytes });
    }
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

  async function collectNow(keep: () => Promise<ReadonlySet<string> | null>): Promise<boolean> {
    const names = await disk.list(blobFolder);
    const wanted = await keep();
    if (wanted === null) return false;
    let removed = 0;
    for (const name of names) {
      const sha256 = name.endsWith(unverifiedSuffix) ? name.slice(0, -unverifiedSuffix.length) : name;
      if (!sha256Pattern.test(sha256) || wanted.has(sha256)) continue;
      verified.delete(sha256);
      partials.delete(sha256);
      await disk.unlink(`${blobFolder}/${name}`);
      removed += 1;
    }
    if (removed === 0) return true;
    await disk.fsyncDir(blobFolder);
    log.emit('info', 'blob.collected', { removed });
    return true;
  }

  return {
    holds,
    ensure: (ref, options) => inSlot(() => ensureNow(ref, options)),
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
    collect: (keep) => inSlot(() => collectNow(keep)),
  };
}
