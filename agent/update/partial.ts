// Why: a file that is still on its way, and what of it can be proven after a crash: beside it lie the digests of its
// parts. Writes may be torn, lost or reordered; what does not match its digest is fetched again, and nothing else is.
// Trusts: nothing that lies on the disk before it was digested. Must never: count a part that it cannot prove.

import { sha256Stream } from '../../shared/crypto/digests.ts';
import type { Disk, Log } from '../../shared/kernel/ports.ts';
import { blobFolder, sumsPath, unverifiedPath } from './blob-names.ts';

/** One part: u32 length, then so many bytes of its SHA-256. It finds accidents; the whole file's digest decides. */
const digestBytes = 12;
const entryBytes = 4 + digestBytes;
/** One part at most, written and digested in one turn of the event loop: 3 ms on a slow core without SHA instructions. */
export const partBytesMax = 256 * 1024;
const sumsReadBytes = entryBytes * 4_096;

export interface SyncLimits {
  fetchSyncBytesMin: number;
  fetchSyncBytesMax: number;
}

/** A file on its way, as this process knows it. */
export interface Partial {
  /** Its final path. */
  path: string;
  totalBytes: number;
  /** So many bytes are there and in order. */
  bytes: number;
  sumsBytes: number;
  syncedBytes: number;
  /** Bytes of an earlier incarnation are among them: a wrong digest may be its fault. */
  resumed: boolean;
  /** Arrived before what stands in front of it; by offset. Lost with the process. */
  early: Map<number, Uint8Array>;
}

export interface Partials {
  /** The file as it can be gone on with; made where nothing of it is there. */
  open(path: string, totalBytes: number): Promise<Partial>;
  /** Writes the next part, at most `partBytesMax`. After a fault the file is proven anew when it is opened. */
  append(file: Partial, part: Uint8Array): Promise<void>;
  /** Whether anything of it is here. */
  bytesOf(path: string): Promise<number>;
  discard(path: string): Promise<void>;
  /** Its file is gone. */
  forget(path: string): void;
}

/** Distance between two fsyncs. It bounds what a power cut costs: 1.6 % of a large file. */
function syncUnit(totalBytes: number, of: SyncLimits): number {
  return Math.max(of.fetchSyncBytesMin, Math.min(of.fetchSyncBytesMax, Math.floor(totalBytes / 64)));
}

function sumOf(part: Uint8Array): Uint8Array {
  const digest = sha256Stream();
  digest.update(part);
  const hex = digest.hex();
  const entry = new Uint8Array(entryBytes);
  new DataView(entry.buffer).setUint32(0, part.length);
  for (let at = 0; at < digestBytes; at += 1)
    entry[4 + at] = Number.parseInt(hex.slice(2 * at, 2 * at + 2), 16);
  return entry;
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, at) => byte === b[at]);

export function openPartials(disk: Disk, log: Log, of: SyncLimits): Partials {
  const known = new Map<string, Partial>();

  /** How much of the file its digests prove, and of them: parts from the start, up to the first that does not match. */
  async function proven(path: string): Promise<{ bytes: number; sumsBytes: number }> {
    let bytes = 0;
    let sumsBytes = 0;
    for (;;) {
      const sums = await disk.readRange(sumsPath(path), sumsBytes, sumsReadBytes);
      if (sums === null) return { bytes, sumsBytes };
      for (let at = 0; at + entryBytes <= sums.length; at += entryBytes) {
        const entry = sums.subarray(at, at + entryBytes);
        const length = new DataView(entry.buffer, entry.byteOffset).getUint32(0);
        if (length === 0 || length > partBytesMax) return { bytes, sumsBytes };
        const part = await disk.readRange(unverifiedPath(path), bytes, length);
        if (part === null || part.length < length) return { bytes, sumsBytes };
        if (!isSame(sumOf(part), entry)) return { bytes, sumsBytes };
        bytes += length;
        sumsBytes += entryBytes;
      }
      if (sums.length < sumsReadBytes) return { bytes, sumsBytes };
    }
  }

  const fresh = (path: string, totalBytes: number): Partial => ({
    path,
    totalBytes,
    bytes: 0,
    sumsBytes: 0,
    syncedBytes: 0,
    resumed: false,
    early: new Map(),
  });

  async function open(path: string, totalBytes: number): Promise<Partial> {
    const unverified = unverifiedPath(path);
    const size = await disk.size(unverified);
    const here = known.get(path);
    const isAsKnown =
      here?.bytes === size &&
      here.totalBytes === totalBytes &&
      here.sumsBytes === (await disk.size(sumsPath(path)));
    if (here !== undefined && isAsKnown) return here;
    known.delete(path);
    const kept = size === null ? { bytes: 0, sumsBytes: 0 } : await proven(path);
    if (kept.bytes === 0 || kept.bytes > totalBytes) {
      await disk.create(unverified);
      await disk.create(sumsPath(path));
      // Without their names in the folder, files that were synced part by part are lost as a whole.
      await disk.fsyncDir(blobFolder);
      return fresh(path, totalBytes);
    }
    // What follows must be at its place. That a power cut may bring the old lengths back does no harm: both files
    // are proven again.
    await disk.truncate(unverified, kept.bytes);
    await disk.truncate(sumsPath(path), kept.sumsBytes);
    log.emit('info', 'fetch.resumed', {
      file: path.slice(blobFolder.length + 1),
      atBytes: kept.bytes,
      totalBytes,
    });
    return { ...fresh(path, totalBytes), ...kept, resumed: true };
  }

  async function append(file: Partial, part: Uint8Array): Promise<void> {
    const unverified = unverifiedPath(file.path);
    // If one of these fails half way, the sizes on the disk are not known.
    known.delete(file.path);
    await disk.append(unverified, part);
    const sum = sumOf(part);
    await disk.append(sumsPath(file.path), sum);
    file.bytes += part.length;
    file.sumsBytes += sum.length;
    if (file.bytes - file.syncedBytes >= syncUnit(file.totalBytes, of) && file.bytes < file.totalBytes) {
      await disk.fsync(unverified);
      await disk.fsync(sumsPath(file.path));
      file.syncedBytes = file.bytes;
    }
    known.set(file.path, file);
  }

  return {
    open: async (path, totalBytes) => {
      const file = await open(path, totalBytes);
      known.set(path, file);
      return file;
    },
    append,
    bytesOf: async (path) => (await disk.size(unverifiedPath(path))) ?? 0,
    discard: async (path) => {
      known.delete(path);
      await disk.unlink(unverifiedPath(path));
      await disk.unlink(sumsPath(path));
    },
    forget: (path) => void known.delete(path),
  };
}
