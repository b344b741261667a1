// Why: what stands in captured bytes however it is wrapped: as text, as base64 or hex in text, compressed, each inside another.
// Trusts: nothing. Must never: stop at the first layer.

import { inflateRawSync, inflateSync } from 'node:zlib';

const depthMax = 5;
const plainBytesMax = 64 * 1024 * 1024;
const runs = /[A-Za-z0-9+/_-]{16,}={0,2}/g;
const hexRun = /^(?:[0-9a-f]{2})+$/i;

/** No flag is set. */
const gzipHead = Buffer.from([0x1f, 0x8b, 0x08, 0x00]);
const gzipHeadBytes = 10;

/** Null where it was no such stream. */
function tried(inflate: () => Buffer): Buffer | null {
  try {
    return inflate();
  } catch {
    return null;
  }
}

/** Gzip wherever it begins, with whatever follows it; the other two where all of it is compressed. */
function* inflated(bytes: Buffer): Generator<Buffer> {
  const ways: (() => Buffer)[] = [
    () => inflateRawSync(bytes, { maxOutputLength: plainBytesMax }),
    () => inflateSync(bytes, { maxOutputLength: plainBytesMax }),
  ];
  for (let at = bytes.indexOf(gzipHead); at >= 0; at = bytes.indexOf(gzipHead, at + 1)) {
    // Behind a head without a name or a comment; gunzip itself minds what follows the stream.
    const from = at + gzipHeadBytes;
    ways.push(() => inflateRawSync(bytes.subarray(from), { maxOutputLength: plainBytesMax }));
  }
  for (const way of ways) {
    const plain = tried(way);
    if (plain !== null) yield plain;
  }
}

export interface Layers {
  /** The bytes themselves, and whatever can be read out of them; what was given before in the same words is not given again. */
  of(bytes: Buffer): Generator<Buffer>;
}

export function createLayers(): Layers {
  const seen = new Set<string>();

  function* layers(bytes: Buffer, depth: number): Generator<Buffer> {
    yield bytes;
    if (depth === depthMax) return;
    for (const inner of inflated(bytes)) yield* layers(inner, depth + 1);
    for (const [run] of bytes.toString('latin1').matchAll(runs)) {
      if (seen.has(run)) continue;
      seen.add(run);
      if (hexRun.test(run)) yield* layers(Buffer.from(run, 'hex'), depth + 1);
      yield* layers(Buffer.from(run, 'base64'), depth + 1);
    }
  }
  return { of: (bytes) => layers(bytes, 0) };
}
