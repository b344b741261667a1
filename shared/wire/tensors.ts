// Why: a tensor between HTTP, the golden cases and the inference child, in one shape.
// Trusts: nothing before `checkTensor`. Must never: hold a shape that its data does not fill.

import { ok, type Result, refuse } from '../kernel/result.ts';
// Types only: the inference child loads this file and must stay free of the schema library.
import type { Datatype } from './manifest.ts';

/** Numbers little-endian in C order. FP16 as raw 16-bit patterns. BYTES as strings (UTF-8 on the wire). */
export type TensorData =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | Float32Array
  | Float64Array
  | string[];

export interface Tensor {
  name: string;
  datatype: Datatype;
  shape: number[];
  data: TensorData;
}

/** More dimensions than any operator of ONNX needs; bounds what a hostile shape costs to check. */
export const rankMax = 16;

interface Storage {
  /** Bytes of one element on the wire; 0 where elements differ in length. */
  bytes: number;
  allocate(count: number): TensorData;
  holds(data: TensorData): boolean;
  view(buffer: ArrayBufferLike, byteOffset: number, count: number): TensorData;
}

interface TypedArrayOf<T> {
  new (count: number): T;
  new (buffer: ArrayBufferLike, byteOffset: number, count: number): T;
}

function numbers<T extends Exclude<TensorData, string[]>>(bytes: number, array: TypedArrayOf<T>): Storage {
  return {
    bytes,
    allocate: (count) => new array(count),
    // Buffer is a Uint8Array; `constructor` would refuse it.
    holds: (data) => data instanceof array,
    view: (buffer, byteOffset, count) => new array(buffer, byteOffset, count),
  };
}

const storages: Record<Datatype, Storage> = {
  BOOL: numbers(1, Uint8Array),
  INT8: numbers(1, Int8Array),
  INT16: numbers(2, Int16Array),
  INT32: numbers(4, Int32Array),
  INT64: numbers(8, BigInt64Array),
  UINT8: numbers(1, Uint8Array),
  UINT16: numbers(2, Uint16Array),
  UINT32: numbers(4, Uint32Array),
  UINT64: numbers(8, BigUint64Array),
  FP16: numbers(2, Uint16Array),
  FP32: numbers(4, Float32Array),
  FP64: numbers(8, Float64Array),
  BYTES: {
    bytes: 0,
    allocate: () => [],
    holds: (data) => Array.isArray(data),
    view: () => [],
  },
};

export function isDatatype(text: string): text is Datatype {
  return Object.hasOwn(storages, text);
}

/** Bytes of one element, 0 for BYTES. */
export function elementBytes(datatype: Datatype): number {
  return storages[datatype].bytes;
}

/** Zeroed storage for `count` elements; an empty list for BYTES. */
export function allocateData(datatype: Datatype, count: number): TensorData {
  return storages[datatype].allocate(count);
}

/** Below this Node takes memory from a pool, which spares a small tensor an allocation of its own. */
const pooledBytesMax = 4_000;

/** Storage that holds anything until each of its elements was written; an empty list for BYTES. */
export function unfilledData(datatype: Datatype, count: number): TensorData {
  const storage = storages[datatype];
  const bytes = count * storage.bytes;
  if (bytes === 0 || bytes > pooledBytesMax) return storage.allocate(count);
  const memory = Buffer.allocUnsafe(bytes);
  return storage.view(memory.buffer, memory.byteOffset, count);
}

/**
 * Number of elements of a shape; 1 for a scalar. Infinity where it is no shape (too many dimensions,
 * negative, fractional) or where its product passes 2^53, so that no data ever fills such a shape.
 */
export function elementCount(shape: readonly number[]): number {
  if (shape.length > rankMax) return Number.POSITIVE_INFINITY;
  let count = 1;
  let empty = false;
  // By index: this runs several times for each request, often before it is compiled.
  for (let axis = 0; axis < shape.length; axis++) {
    const size = shape[axis] ?? Number.NaN;
    if (!Number.isSafeInteger(size) || size < 0) return Number.POSITIVE_INFINITY;
    // Zero would hide an overflow of the others, which a runtime multiplies in another order.
    if (size === 0) empty = true;
    else count *= size;
    if (count > Number.MAX_SAFE_INTEGER) return Number.POSITIVE_INFINITY;
  }
  return empty ? 0 : count;
}

const surrogate = /\p{Surrogate}/u;

/** Why a string cannot be a BYTES element, or null. ONNX Runtime cuts strings at the first NUL. */
export function stringFault(text: string): string | null {
  if (text.includes('\0')) return 'a string with NUL, which the runtime would cut there';
  if (surrogate.test(text)) return 'a string that is not Unicode (half of a surrogate pair)';
  return null;
}

/**
 * Checks that name, datatype, shape and data fit each other. Returns the same tensor.
 * Refusal: `infer-invalid`.
 */
export function checkTensor(tensor: Tensor): Result<Tensor> {
  const { name, datatype, shape, data } = tensor;
  if (name === '') return refuse('infer-invalid', 'a tensor without a name');
  const storage = storages[datatype];
  if (storage === undefined) return refuse('infer-invalid', `${name}: unknown datatype`);
  const count = elementCount(shape);
  if (!Number.isFinite(count)) return refuse('infer-invalid', `${name}: [${shape.join(',')}] is no shape`);
  if (!storage.holds(data)) return refuse('infer-invalid', `${name}: the data is not ${datatype}`);
  if (data.length !== count) {
    return refuse(
      'infer-invalid',
      `${name}: shape [${shape.join(',')}] needs ${count} elements, not ${data.length}`,
    );
  }
  if (datatype === 'BYTES') {
    for (const text of data as string[]) {
      const fault = stringFault(text);
      if (fault !== null) return refuse('infer-invalid', `${name}: ${fault}`);
    }
  }
  if (datatype === 'BOOL' && (data as Uint8Array).some((value) => value > 1)) {
    return refuse('infer-invalid', `${name}: a BOOL that is neither 0 nor 1`);
  }
  return ok(tensor);
}

const hostIsLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Turns each element's bytes around; a copy. */
function swapped(bytes: Uint8Array, width: number): Uint8Array {
  const copy = bytes.slice();
  for (let start = 0; start < copy.length; start += width) copy.subarray(start, start + width).reverse();
  return copy;
}

/**
 * Raw bytes of the data: little-endian, C order; BYTES as u32 length and UTF-8 for each element (OIP
 * "Binary Tensor Data"). For numbers the result is a view of the tensor's own memory where the host
 * is little-endian: do not change it.
 */
export function tensorToBytes(tensor: Tensor): Uint8Array {
  const { data } = tensor;
  if (Array.isArray(data)) {
    const parts = data.map((text) => encoder.encode(text));
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const part of parts) {
      view.setUint32(at, part.length, true);
      bytes.set(part, at + 4);
      at += 4 + part.length;
    }
    return bytes;
  }
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return hostIsLittleEndian ? bytes : swapped(bytes, data.BYTES_PER_ELEMENT);
}

/**
 * The tensor in raw bytes as `tensorToBytes` writes them, checked. Views `bytes` where their
 * alignment allows it, else copies. Refusal: `infer-invalid`.
 */
export function tensorFromBytes(
  name: string,
  datatype: Datatype,
  shape: number[],
  bytes: Uint8Array,
): Result<Tensor> {
  const count = elementCount(shape);
  if (!Number.isFinite(count)) return refuse('infer-invalid', `${name}: [${shape.join(',')}] is no shape`);
  if (datatype === 'BYTES') {
    const data = stringsFromBytes(bytes, count);
    if (data === null)
      return refuse(
        'infer-invalid',
        `${name}: the bytes are not ${count} strings in UTF-8 with their lengths`,
      );
    return checkTensor({ name, datatype, shape, data });
  }
  const storage = storages[datatype];
  if (bytes.length !== count * storage.bytes) {
    return refuse('infer-invalid', `${name}: needs ${count * storage.bytes} bytes, not ${bytes.length}`);
  }
  let source = hostIsLittleEndian ? bytes : swapped(bytes, storage.bytes);
  if (source.byteOffset % storage.bytes !== 0) source = new Uint8Array(source);
  return checkTensor({ name, datatype, shape, data: storage.view(source.buffer, source.byteOffset, count) });
}

/** Null where the bytes are not exactly `count` strings. Allocates by what is there, not by what is claimed. */
function stringsFromBytes(bytes: Uint8Array, count: number): string[] | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const strings: string[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (at + 4 > bytes.length || strings.length === count) return null;
    const end = at + 4 + view.getUint32(at, true);
    if (end > bytes.length) return null;
    try {
      strings.push(decoder.decode(bytes.subarray(at + 4, end)));
    } catch (error) {
      // A fatal decoder throws TypeError for what is not UTF-8; anything else is a bug.
      if (error instanceof TypeError) return null;
      throw error;
    }
    at = end;
  }
  return strings.length === count ? strings : null;
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** The number behind an IEEE 754 binary16 pattern. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The nearest IEEE 754 binary16 pattern, ties to even; infinity where the number is too large. */
export function numberToHalf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const magnitude = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (magnitude >= 65_520) return sign | 0x7c00;
  // Below the smallest normal number the step is fixed at 2^-24.
  if (magnitude < 2 ** -14) return sign | roundToEven(magnitude * 2 ** 24);
  scratchFloat[0] = magnitude;
  const exponent = ((scratchBits[0] ?? 0) >>> 23) - 127;
  // fround may have carried into the next power of two; the quotient below stays exact either way.
  const steps = roundToEven(magnitude * 2 ** (10 - exponent));
  return sign | (((exponent + 14) << 10) + steps);
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest > 0.5 || (rest === 0.5 && floor % 2 === 1)) return floor + 1;
  return floor;
}
