// Why: what a number would be in another type, computed alike on every machine.
// Trusts: IEEE 754 + − × ÷ and Math.fround, which JavaScript fixes to the bit. Must never: let a NaN's bits come
// from the machine, or use a function whose last digit an engine may choose.

import { type ElementKind, elementBytes } from './elements.ts';

const floats = new Float32Array(1);
const words = new Uint32Array(floats.buffer);
const nan = { float32: 0x7fc00000, float16: 0x7e00, bfloat16: 0x7fc0 } as const;
/** 1.5 × 2^52: adding and subtracting it rounds to the nearest integer, ties to even. */
const rounding = 6755399441055744;
/** 2^51, up to which that works. */
const roundedMax = 2251799813685248;

/** Nearest integer, ties to even. */
export function rint(value: number): number {
  return value > -roundedMax && value < roundedMax ? value + rounding - rounding : value;
}

/** Values of elements, as they stand in the file. */
export function toNumbers(
  kind: ElementKind,
  signed: boolean,
  elements: Uint32Array,
  count: number,
  into: Float64Array,
): void {
  if (kind === 'float32') {
    const values = new Float32Array(elements.buffer, elements.byteOffset, count);
    into.set(values);
    return;
  }
  const unused = 32 - elementBytes(kind) * 8;
  for (let at = 0; at < count; at++) {
    const bits = elements[at] as number;
    if (kind === 'float16') into[at] = halfToNumber(bits);
    else if (kind === 'bfloat16') into[at] = floatOf((bits << 16) >>> 0);
    else into[at] = signed ? (bits << unused) >> unused : bits;
  }
}

/** Nearest element of a type; out of its range the nearest end, NaN among integers 0. */
export function toElement(kind: ElementKind, signed: boolean, value: number): number {
  if (kind === 'float32') return Number.isNaN(value) ? nan.float32 : wordOf(value);
  if (kind === 'float16') return Number.isNaN(value) ? nan.float16 : halfOf(value);
  if (kind === 'bfloat16') {
    if (Number.isNaN(value)) return nan.bfloat16;
    const word = wordOf(value);
    return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return toInteger(rangeOf(kind, signed), value);
}

export interface IntegerRange {
  low: number;
  high: number;
  mask: number;
}

const unsignedRanges = {
  1: { low: 0, high: 0xff, mask: 0xff },
  2: { low: 0, high: 0xffff, mask: 0xffff },
  4: { low: 0, high: 0xffffffff, mask: 0xffffffff },
};
const signedRanges = {
  1: { low: -0x80, high: 0x7f, mask: 0xff },
  2: { low: -0x8000, high: 0x7fff, mask: 0xffff },
  4: { low: -0x80000000, high: 0x7fffffff, mask: 0xffffffff },
};

export function rangeOf(kind: ElementKind, signed: boolean): IntegerRange {
  return (signed ? signedRanges : unsignedRanges)[elementBytes(kind)];
}

/** Nearest whole number of a range as the bits of its element; NaN becomes 0. */
export function toInteger({ low, high, mask }: IntegerRange, value: number): number {
  // Beyond 2^51 the sum is not exact, and far out of every range.
  const whole = value + rounding - rounding;
  if (whole >= high) return (high & mask) >>> 0;
  if (whole <= low) return (low & mask) >>> 0;
  return (whole & mask) >>> 0;
}

function floatOf(word: number): number {
  words[0] = word;
  return floats[0] as number;
}

function wordOf(value: number): number {
  floats[0] = value;
  return words[0] as number;
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  // Powers of two are exact.
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (fraction + 1024) * 2 ** (exponent - 25);
}

function halfOf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const amount = Math.abs(Math.fround(value));
  if (amount >= 65520) return sign | 0x7c00;
  // Below 2^-14 steps are 2^-24; above, a step is 2^-10 of the power of two below.
  if (amount < 2 ** -14) return sign | rint(amount * 2 ** 24);
  const exponent = (wordOf(amount) >>> 23) - 127;
  const fraction = rint(amount * 2 ** (10 - exponent));
  return sign | (((exponent + 15) << 10) + fraction - 1024);
}
