// Why: zstd frames inside a patch: short ones without their magic number, and each checked before it is decoded,
// because a one-shot decoder allocates what the frame declares.
// Trusts: nothing in the frame. Must never: decode a frame that declares another size than the patch, or hand
// zstd a dictionary that it would take for a formatted one.

import type { Zstd, ZstdLevel } from '../../kernel/ports.ts';
import { DeltaFault } from './bytes.ts';

const magicBytes = 4;
/** zstd's dictionary magic (RFC 8878 §5), little-endian. */
const dictionaryMagic = [0x37, 0xa4, 0x30, 0xec];
const dictionaryBytesMin = 8;

/** Where a raw dictionary can start in these bytes; null where they are too short to be one. */
export function dictionaryStart(bytes: Uint8Array): number | null {
  if (bytes.length < dictionaryBytesMin + 1) return null;
  return dictionaryMagic.every((byte, at) => bytes[at] === byte) ? 1 : 0;
}

/** A frame without its magic. */
export function packFrame(
  zstd: Zstd,
  bytes: Uint8Array,
  level: ZstdLevel,
  dictionary?: Uint8Array,
): Uint8Array {
  return zstd.compress(bytes, level, dictionary).subarray(magicBytes);
}

/** Decodes a frame into memory of exactly its size. */
export function unpackFrame(zstd: Zstd, frame: Uint8Array, into: Uint8Array, dictionary?: Uint8Array): void {
  if (contentBytes(frame) !== into.length) throw new DeltaFault('a frame of another size than it says');
  if (dictionary !== undefined && dictionaryStart(dictionary) !== 0)
    throw new DeltaFault('a dictionary that is none');
  if (!zstd.decompress(frame, into, dictionary)) throw new DeltaFault('a frame that is damaged');
}

/** Frame_Content_Size of a frame header without its magic (RFC 8878 §3.1.1.1); null where it tells none. */
function contentBytes(frame: Uint8Array): number | null {
  const descriptor = frame[0];
  if (descriptor === undefined) return null;
  const single = (descriptor & 0x20) !== 0;
  const code = descriptor >>> 6;
  const bytes = code === 0 ? (single ? 1 : 0) : 1 << code;
  // Dictionary ids are never written: a dictionary is named by the patch.
  if (bytes === 0 || (descriptor & 3) !== 0) return null;
  const start = single ? 1 : 2;
  let value = bytes === 2 ? 256 : 0;
  for (let at = 0; at < bytes; at++) value += (frame[start + at] ?? 0) * 2 ** (8 * at);
  return value;
}
