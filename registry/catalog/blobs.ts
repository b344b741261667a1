// Why: content-addressed files of releases: a name is the SHA-256 of the bytes, so nothing is ever replaced.
// Trusts: the disk port. Must never: show a file under its name before its digest was checked and it is durable.

import { sha256Stream } from '../../shared/crypto/digests.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Disk, Entropy } from '../../shared/kernel/ports.ts';
import { sha256Pattern } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

export interface Blobs {
  /**
   * Takes the bytes of one file; resolves when they are durable under their digest. Idempotent.
   * Refusals: `blob-digest-mismatch`, `body-too-large`, `input-invalid` (no digest).
   * A fault of the source (a client that hung up) rejects and leaves nothing behind.
   */
  put(
    sha256: string,
    source: AsyncIterable<Uint8Array>,
  ): Promise<Result<{ bytes: number; existed: boolean }>>;
  has(sha256: string): Promise<boolean>;
  /** Bytes, or null where there is no such blob. */
  size(sha256: string): Promise<number | null>;
  /** Bytes `[offset, offset + length)`, shorter at the end; null where there is no such blob. */
  readRange(sha256: string, offset: number, length: number): Promise<Uint8Array | null>;
  /** The whole file; for models and manifests that are checked as a whole. */
  read(sha256: string): Promise<Uint8Array | null>;
}

/** Files that can be made again, and therefore removed. */
export interface Removable extends Blobs {
  list(): Promise<string[]>;
  /** Idempotent. */
  remove(sha256: string): Promise<void>;
}

const unverified = '.unverified';
/** Network chunks are gathered up to this before they are written. */
const writeBytes = 1024 * 1024;

/** Writes the source under `path`; the digest of what was written. Stops at the size limit. */
async function receive(disk: Disk, path: string, source: AsyncIterable<Uint8Array>, bytesMax: number) {
  const digest = sha256Stream();
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  let bytes = 0;
  const flush = async (): Promise<void> => {
    if (waitingBytes === 0) return;
    await disk.append(path, Buffer.concat(waiting));
    waiting = [];
    waitingBytes = 0;
  };
  await disk.create(path);
  for await (const chunk of source) {
    bytes += chunk.length;
    if (bytes > bytesMax) return { tooLarge: true as const };
    digest.update(chunk);
    waiting.push(chunk);
    waitingBytes += chunk.length;
    if (waitingBytes >= writeBytes) await flush();
  }
  await flush();
  await disk.fsync(path);
  return { tooLarge: false as const, sha256: digest.hex(), bytes };
}

/** `disk` is rooted at the blobs' folder. Those of releases are used as `Blobs`: nobody may remove them. Half-received files of an earlier process are removed. */
export async function openBlobs(parts: {
  disk: Disk;
  entropy: Entropy;
  bytesMax?: number;
}): Promise<Removable> {
  const { disk, entropy } = parts;
  const bytesMax = parts.bytesMax ?? limits.blobBytesMax;
  for (const name of await disk.list('.')) if (name.endsWith(unverified)) await disk.unlink(name);

  const size = async (sha256: string): Promise<number | null> =>
    sha256Pattern.test(sha256) ? disk.size(sha256) : null;

  return {
    async put(sha256, source) {
      if (!sha256Pattern.test(sha256))
        return refuse('input-invalid', `no SHA-256 in hex: ${sha256.slice(0, 80)}`);
      // A name of its own for each upload: two of the same file at once do not mix.
      const path = `${sha256}.${Buffer.from(entropy.bytes(8)).toString('hex')}${unverified}`;
      try {
        const received = await receive(disk, path, source, bytesMax);
        if (received.tooLarge)
          return refuse('body-too-large', `a file of a release may have ${bytesMax} bytes`);
        if (received.sha256 !== sha256) {
          return refuse(
            'blob-digest-mismatch',
            `${received.bytes} bytes came, their SHA-256 is ${received.sha256}`,
          );
        }
        const existed = (await disk.size(sha256)) !== null;
        if (!existed) await disk.rename(path, sha256);
        await disk.fsyncDir('.');
        return ok({ bytes: received.bytes, existed });
      } finally {
        await disk.unlink(path);
      }
    },
    has: async (sha256) => (await size(sha256)) !== null,
    size,
    readRange: async (sha256, offset, length) =>
      sha256Pattern.test(sha256) ? disk.readRange(sha256, offset, length) : null,
    read: async (sha256) => (sha256Pattern.test(sha256) ? disk.read(sha256) : null),
    list: async () => (await disk.list('.')).filter((name) => sha256Pattern.test(name)),
    remove: async (sha256) => {
      if (sha256Pattern.test(sha256)) await disk.unlink(sha256);
    },
  };
}
