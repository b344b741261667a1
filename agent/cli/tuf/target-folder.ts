// Why: verified target files in a folder, one flat name each, replaced whole.
// Trusts: the listing, which the caller verified; never the bytes that arrive. Must never: leave anything of a
// download that failed, nor touch the file of the one before.

import { sha256Stream } from '../../../shared/crypto/digests.ts';
import { sha512Stream } from '../../../shared/crypto/foreign.ts';
import { openDisk } from '../../../shared/host/disk.ts';
import { limits } from '../../../shared/kernel/limits.ts';
import { ok, type Result, refuse } from '../../../shared/kernel/result.ts';
import { type ListedTarget, listedDigest } from '../../../shared/trust/tuf/format.ts';
import { download } from './http.ts';
import { targetFileName } from './names.ts';

const chunkBytes = 1024 * 1024;

export interface TargetFolder {
  /** Whether the file of this path is there with the bytes that are listed. */
  holds(path: string, listed: ListedTarget): Promise<boolean>;
  /**
   * Fetches it, checking while it streams. Refusals: `target-unknown` (not served), `blob-size-mismatch`,
   * `blob-digest-mismatch`, `fetch-timeout`, `repository-unreachable`.
   */
  fetch(path: string, listed: ListedTarget, url: URL): Promise<Result<void>>;
}

interface Digesting {
  update(bytes: Uint8Array): void;
  matches(): boolean;
}

function digesting(listed: ListedTarget): Digesting {
  const streams = [
    { stream: sha256Stream(), expected: listedDigest(listed, 'sha256') },
    { stream: sha512Stream(), expected: listedDigest(listed, 'sha512') },
  ].filter((one) => one.expected !== null);
  return {
    update: (bytes) => {
      for (const { stream } of streams) stream.update(bytes);
    },
    // A listing has one digest at least (format.ts); none would prove nothing.
    matches: () => streams.length > 0 && streams.every(({ stream, expected }) => stream.hex() === expected),
  };
}

/** Faults: `disk-full`, `disk-io`. */
export function openTargetFolder(path: string): TargetFolder {
  const disk = openDisk(path);
  return {
    async holds(target, listed) {
      const name = targetFileName(target);
      if ((await disk.size(name)) !== listed.bytes) return false;
      const digests = digesting(listed);
      for (let offset = 0; offset < listed.bytes; offset += chunkBytes) {
        const chunk = await disk.readRange(name, offset, chunkBytes);
        if (chunk === null) return false;
        digests.update(chunk);
      }
      return digests.matches();
    },

    async fetch(target, listed, url) {
      const name = targetFileName(target);
      // `%.` stands in no quoted name, so that this is no other target's file.
      const partial = `${name}%.partial`;
      if (listed.bytes > limits.blobBytesMax)
        return refuse('blob-size-mismatch', `${target}: ${listed.bytes} bytes are listed`);
      const digests = digesting(listed);
      let bytes = 0;
      let waiting: Uint8Array[] = [];
      let waitingBytes = 0;
      const flush = async (): Promise<void> => {
        if (waitingBytes > 0) await disk.append(partial, Buffer.concat(waiting));
        waiting = [];
        waitingBytes = 0;
      };
      await disk.create(partial);
      let stored = false;
      try {
        const seconds = Math.ceil(listed.bytes / limits.tufTargetBytesPerSecondMin);
        const timeoutMs = limits.tufTargetTimeoutMs + seconds * 1_000;
        const done = await download(
          url,
          { bytesMax: listed.bytes, timeoutMs },
          { missing: 'target-unknown', tooLarge: 'blob-size-mismatch' },
          async (chunk) => {
            digests.update(chunk);
            bytes += chunk.length;
            waiting.push(chunk);
            waitingBytes += chunk.length;
            if (waitingBytes >= chunkBytes) await flush();
          },
        );
        if (!done.ok) return done;
        if (bytes !== listed.bytes)
          return refuse('blob-size-mismatch', `${target}: ${bytes} bytes where ${listed.bytes} are listed`);
        if (!digests.matches())
          return refuse('blob-digest-mismatch', `${target}: other bytes than those listed`);
        await flush();
        await disk.fsync(partial);
        await disk.rename(partial, name);
        await disk.fsyncDir('.');
        stored = true;
        return ok();
      } finally {
        if (!stored) await disk.unlink(partial);
      }
    },
  };
}
