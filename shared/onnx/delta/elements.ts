// Why: how numbers of each type are seen as integers whose order is the numbers' order, so that near numbers have
// small differences. Trusts: nothing. Must never: change a bit of a number on its way there and back; −0 and
// every NaN are integers of their own.

/** What the codec tells apart. `bytes` are taken as they are: 64-bit numbers, packed varints, what is unknown. */
export const elementKinds = ['bytes', 'float32', 'float16', 'bfloat16', 'int8', 'int16', 'int32'] as const;
export type ElementKind = (typeof elementKinds)[number];

const widths: Record<ElementKind, 1 | 2 | 4> = {
  bytes: 1,
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int8: 1,
  int16: 2,
  int32: 4,
};

export function elementBytes(kind: ElementKind): 1 | 2 | 4 {
  return widths[kind];
}

export function isFloat(kind: ElementKind): boolean {
  return kind === 'float32' || kind === 'float16' || kind === 'bfloat16';
}

/** By TensorProto.DataType. Types below a byte, and floats of eight bits, are taken as bytes with near values. */
export function kindOf(dataType: number): { kind: ElementKind; signed: boolean } {
  const kind = byType[dataType] ?? 'bytes';
  return { kind, signed: signedTypes.includes(dataType) };
}

const byType: Record<number, ElementKind> = {
  1: 'float32',
  2: 'int8',
  3: 'int8',
  4: 'int16',
  5: 'int16',
  6: 'int32',
  9: 'int8',
  10: 'float16',
  12: 'int32',
  14: 'float32',
  16: 'bfloat16',
  17: 'int8',
  18: 'int8',
  19: 'int8',
  20: 'int8',
  21: 'int8',
  22: 'int8',
};
const signedTypes = [3, 5, 6, 7];

/** TypedArrays have the machine's byte order; files have the little-endian one. */
const swaps = new Uint8Array(Uint16Array.of(1).buffer)[0] === 0;

/** Reads elements from bytes at any alignment: unsigned, as they stand there. */
export function loadElements(bytes: Uint8Array, width: 1 | 2 | 4, into: Uint32Array): void {
  const count = bytes.length / width;
  if (width === 1) {
    for (let at = 0; at < count; at++) into[at] = bytes[at] as number;
    return;
  }
  if (bytes.byteOffset % width === 0 && !swaps) {
    const aligned =
      width === 2
        ? new Uint16Array(bytes.buffer, bytes.byteOffset, count)
        : new Uint32Array(bytes.buffer, bytes.byteOffset, count);
    into.set(aligned);
    return;
  }
  if (width === 4 && !swaps) {
    new Uint8Array(into.buffer, into.byteOffset, bytes.length).set(bytes);
    return;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < count; at++)
    into[at] = width === 2 ? view.getUint16(at * 2, true) : view.getUint32(at * 4, true);
}

/** One element, as it stands there. */
export function elementAt(bytes: Uint8Array, width: 1 | 2 | 4, index: number): number {
  const at = index * width;
  if (width === 1) return bytes[at] as number;
  const low = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
  if (width === 2) return low;
  return (low | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24)) >>> 0;
}

/** The way back: the low bits of each. */
export function storeElements(from: Uint32Array, width: 1 | 2 | 4, into: Uint8Array): void {
  const count = into.length / width;
  if (width === 4 && !swaps) {
    into.set(new Uint8Array(from.buffer, from.byteOffset, into.length));
    return;
  }
  for (let at = 0, to = 0; at < count; at++) {
    const value = from[at] as number;
    into[to++] = value;
    if (width === 1) continue;
    into[to++] = value >>> 8;
    if (width === 2) continue;
    into[to++] = value >>> 16;
    into[to++] = value >>> 24;
  }
}

/** What the symbols of a number are routed by: the exponent of a float, the high bits of an integer. */
export function contextShift(kind: ElementKind): { shift: number; mask: number } {
  if (kind === 'float32') return { shift: 23, mask: 0xff };
  if (kind === 'bfloat16') return { shift: 7, mask: 0xff };
  if (kind === 'float16') return { shift: 10, mask: 0x1f };
  if (kind === 'int16') return { shift: 8, mask: 0xff };
  if (kind === 'int32') return { shift: 24, mask: 0xff };
  return { shift: 0, mask: 0xff };
}
