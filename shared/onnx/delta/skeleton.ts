// Why: all of a file that is not tensor data, coded piece by piece against the same of the base.
// Trusts: nothing in the section. Must never: take a dictionary or make a piece beyond its bound, because both are
// memory of the native coder.

import type { Zstd, ZstdLevel } from '../../kernel/ports.ts';
import { ByteReader, ByteWriter, DeltaFault, joined } from './bytes.ts';
import { dictionaryStart, packFrame, unpackFrame } from './frames.ts';
import { dictionaryBytesMax, pieceBytesMax } from './operations.ts';

export interface FileRange {
  file: number;
  offset: number;
  length: number;
}

/** What lies outside of the ranges, which are in order and do not overlap. */
export function skeletonOf(files: readonly Uint8Array[], ranges: readonly FileRange[]): Uint8Array {
  const [first] = files;
  if (ranges.length === 0 && files.length === 1 && first !== undefined) return first;
  const parts: Uint8Array[] = [];
  let next = 0;
  for (const [file, bytes] of files.entries()) {
    let end = 0;
    for (let range = ranges[next]; range !== undefined && range.file === file; range = ranges[++next]) {
      parts.push(bytes.subarray(end, range.offset));
      end = range.offset + range.length;
    }
    parts.push(bytes.subarray(end));
  }
  return joined(parts);
}

/** Shorter files are packed as well as can be. */
export const smallBytesMax = 64 * 1024;
export const strongest = 19;

/** Strong where the bytes are few, quick where they are many. */
export function levelFor(bytes: number): number {
  if (bytes <= 256 * 1024) return strongest;
  return bytes <= 1024 * 1024 ? 12 : 9;
}

/** Of the bytes of both files: up to here the strongest level is a small part of the whole work. */
const strongShare = 0.08;
const middleShare = 0.2;

/**
 * For the skeletons of two files and what else is short: what is strong takes the longer the more it looks at, and
 * where skeletons are most of both files, something quicker does.
 */
export function strengthFor(skeletonBytes: number, bytesOfBoth: number): ZstdLevel {
  if (skeletonBytes <= bytesOfBoth * strongShare) return strongest;
  return skeletonBytes <= bytesOfBoth * middleShare ? 16 : 'text';
}

/** `strength`: the level of pieces that are not too long for it. */
export function writeSkeleton(
  zstd: Zstd,
  base: Uint8Array,
  target: Uint8Array,
  strength: ZstdLevel,
): Uint8Array {
  const out = new ByteWriter();
  for (let from = 0; from < target.length; from += pieceBytesMax) {
    const piece = target.subarray(from, from + pieceBytesMax);
    const room = dictionaryBytesMax - 1;
    // Around the same share of the base, where it is too long to be taken whole.
    const middle = ((from + piece.length / 2) / target.length) * base.length;
    const low = Math.floor(Math.max(0, Math.min(middle - room / 2, base.length - room)));
    const dictionary = base.subarray(low, low + room);
    const start = dictionaryStart(dictionary);
    const used = start === null ? undefined : dictionary.subarray(start);
    const longest = levelFor(piece.length);
    const level = longest === strongest ? strength : longest;
    const packed = packFrame(zstd, piece, level, used);
    out
      .varint(piece.length)
      .varint(low + (start ?? 0))
      .varint(used?.length ?? 0);
    const packs = packed.length < piece.length;
    out.varint(packs ? packed.length : 0).bytes(packs ? packed : piece);
  }
  return out.view();
}

/** The skeleton, of exactly `length` bytes. Faults with DeltaFault. */
export function readSkeleton(zstd: Zstd, section: Uint8Array, base: Uint8Array, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  const reader = new ByteReader(section);
  for (let at = 0; at < length; ) {
    const piece = reader.varint();
    const from = reader.varint();
    const used = reader.varint();
    if (piece < 1 || piece > length - at || piece > pieceBytesMax)
      throw new DeltaFault('a piece that is too long');
    if (used > dictionaryBytesMax || from + used > base.length)
      throw new DeltaFault('a dictionary that is none');
    const stored = reader.varint();
    const into = whole.subarray(at, at + piece);
    if (stored === 0) into.set(reader.bytes(piece));
    else
      unpackFrame(
        zstd,
        reader.bytes(stored),
        into,
        used === 0 ? undefined : base.subarray(from, from + used),
      );
    at += piece;
  }
  reader.end();
  return whole;
}
