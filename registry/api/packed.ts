// Why: metadata is JSON with digests in it and packs to a half; a thousand devices ask for the same file.
// Trusts: that a name with a version in it always has the same bytes. Must never: pack what the client cannot
// read, pack one file twice at once, or keep more than its bound.

import { gzipBytes } from '../../shared/host/gzip.ts';

/** Below this a header costs more than packing saves. */
export const packFromBytes = 1024;
/** Packed bytes that are kept: the present catalogue of a hundred publishers many times over. */
const keptBytesMax = 16 * 1024 * 1024;

export interface PackedFiles {
  /** The file's bytes packed. `key`: a name that never stands for other bytes. */
  get(key: string, bytes: Uint8Array): Promise<Uint8Array>;
}

export function createPackedFiles(
  pack: (bytes: Uint8Array) => Promise<Uint8Array> = gzipBytes,
  bytesMax: number = keptBytesMax,
): PackedFiles {
  /** In the order of use; the first is the one to forget. */
  const kept = new Map<string, { packed: Promise<Uint8Array>; bytes: number }>();
  let keptBytes = 0;

  function forget(key: string): void {
    keptBytes -= kept.get(key)?.bytes ?? 0;
    kept.delete(key);
  }

  return {
    async get(key, bytes) {
      const known = kept.get(key);
      if (known !== undefined) {
        kept.delete(key);
        kept.set(key, known);
        return known.packed;
      }
      const entry = { packed: pack(bytes), bytes: 0 };
      kept.set(key, entry);
      try {
        const packed = await entry.packed;
        // Forgotten while it was being packed: then it is nobody's memory but the caller's.
        if (kept.get(key) !== entry) return packed;
        entry.bytes = packed.length;
        keptBytes += packed.length;
        for (const oldest of kept.keys()) {
          if (keptBytes <= bytesMax) break;
          forget(oldest);
        }
        return packed;
      } catch (error) {
        forget(key);
        throw error;
      }
    },
  };
}

/** Whether an Accept-Encoding header (RFC 9110 §12.5.3) takes gzip; one that is not there takes nothing packed. */
export function acceptsGzip(header: string | undefined): boolean {
  let star = false;
  for (const part of (header ?? '').toLowerCase().split(',')) {
    const [coding = '', ...parameters] = part.split(';').map((text) => text.trim());
    const weight = parameters.find((text) => text.startsWith('q='));
    const wanted = weight === undefined || Number(weight.slice(2)) > 0;
    if (coding === 'gzip' || coding === 'x-gzip') return wanted;
    if (coding === '*') star = wanted;
  }
  return star;
}
