// Why: parts of blobs as they are served: a fleet that updates reads the same file at about the same time, so what was
// read for one device serves the others, and memory is bounded by what is kept and not by how many they are.
// Trusts: blobs, whose content never changes. Must never: keep more than its bound beside what is being sent.

import type { Blobs } from '../catalog/blobs.ts';

export interface Reader {
  /** Bytes from `offset` to the end of its aligned part; null where the blob is gone. A view: not to be changed. */
  read(blobs: Pick<Blobs, 'readRange'>, sha256: string, offset: number): Promise<Uint8Array | null>;
}

export function createReader(bounds: { partBytes: number; cacheBytesMax: number }): Reader {
  const { partBytes, cacheBytesMax } = bounds;
  const partsMax = Math.max(1, Math.floor(cacheBytesMax / partBytes));
  /** The longest unused first. */
  const parts = new Map<string, Promise<Uint8Array | null>>();

  function partOf(
    blobs: Pick<Blobs, 'readRange'>,
    sha256: string,
    index: number,
  ): Promise<Uint8Array | null> {
    const key = `${sha256} ${index}`;
    const known = parts.get(key);
    const part = known ?? blobs.readRange(sha256, index * partBytes, partBytes);
    parts.delete(key);
    parts.set(key, part);
    if (known === undefined) {
      // Neither a failure nor a file that is not there yet is kept.
      const forget = (): void => {
        if (parts.get(key) === part) parts.delete(key);
      };
      part.then((bytes) => {
        if (bytes === null) forget();
      }, forget);
      for (const oldest of parts.keys()) {
        if (parts.size <= partsMax) break;
        parts.delete(oldest);
      }
    }
    return part;
  }

  return {
    async read(blobs, sha256, offset) {
      const index = Math.floor(offset / partBytes);
      const part = await partOf(blobs, sha256, index);
      return part === null ? null : part.subarray(offset - index * partBytes);
    },
  };
}
