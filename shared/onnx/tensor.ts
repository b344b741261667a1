// Why: what a constant tensor of an ONNX file says about itself: name, shape, size, the few numbers of a short one.
// Trusts: nothing; field numbers are those of onnx-ml.proto. Must never: copy tensor data, or take memory by a
// dimension that it read.

import { ProtobufFault, type ProtobufReader, wireTypes } from './protobuf.ts';

const types = { float: 1, int32: 6, int64: 7, string: 8, double: 11 } as const;

/** Bits of one element in memory by TensorProto.DataType; strings are counted by their text. */
const elementBits: readonly number[] = [
  0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2,
];

/** No operator takes more; bounds what a hostile shape costs. */
export const dimensionsMax = 64;
/** Tensors up to this size may be a shape, a repetition or a padding: their numbers are read. */
export const numbersMax = 64;

export interface OnnxExternalData {
  /** Relative to the model file. */
  path: string;
  offset: number;
  /** Null: to the end of the file. */
  length: number | null;
  /** Of the tensor in memory, which the file must hold. */
  bytes: number;
}

export interface TensorFacts {
  name: string;
  dims: number[];
  bits: number;
  bytes: number;
  /** Its numbers in C order, where it has few; null where it has many, or holds no numbers that are known. */
  numbers: number[] | null;
}

/** Bits of an element of this TensorProto.DataType; 0 where there is no such type. */
export function bitsOf(dataType: number): number {
  return elementBits[dataType] ?? 0;
}

/** Elements of a shape; a dimension that is negative counts as 0. Never more than 2^53. */
export function elementsOf(dims: readonly number[]): number {
  const product = dims.reduce((sum, size) => sum * Math.max(size, 0), 1);
  return Math.min(product, Number.MAX_SAFE_INTEGER);
}

/** Bytes of a tensor in memory. Never more than 2^53. */
export function bytesOf(dims: readonly number[], bits: number): number {
  return Math.min(Math.ceil((elementsOf(dims) * bits) / 8), Number.MAX_SAFE_INTEGER);
}

/** StringStringEntryProto: key 1, value 2. A long value is left out. */
export function readEntry(reader: ProtobufReader, valueBytesMax = 65_536): { key: string; value: string } {
  const found = { key: '', value: '' };
  while (reader.next()) {
    if (reader.field === 1) found.key = reader.string();
    else if (reader.field === 2) {
      const value = reader.bytes();
      if (value.length <= valueBytesMax) found.value = reader.text(value);
    } else reader.skip();
  }
  return found;
}

function decimal(text: string | undefined): number | null {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return null;
  return Number(text);
}

function externalData(entries: ReadonlyMap<string, string>, bytes: number): OnnxExternalData {
  for (const key of ['offset', 'length']) {
    const text = entries.get(key);
    if (text !== undefined && decimal(text) === null)
      throw new ProtobufFault(`external data with the ${key} ${JSON.stringify(text.slice(0, 40))}`);
  }
  return {
    path: (entries.get('location') ?? '').replace(/^(\.\/)+/, ''),
    offset: decimal(entries.get('offset')) ?? 0,
    length: decimal(entries.get('length')),
    bytes,
  };
}

/** A packed field of fixed-size numbers, or one of them. */
function fixed(reader: ProtobufReader, size: 4 | 8, into: number[]): void {
  const bytes = reader.wireType === wireTypes.bytes ? reader.bytes() : reader.fixed(size);
  readNumbers(bytes, size === 4 ? types.float : types.double, into);
}

/** Numbers of raw little-endian data, up to a few more than are kept. */
function readNumbers(raw: Uint8Array, dataType: number, into: number[]): void {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const bytes = elementBits[dataType] === 64 ? 8 : 4;
  for (let at = 0; at + bytes <= raw.length && into.length <= numbersMax; at += bytes) {
    if (dataType === types.int64) into.push(Number(view.getBigInt64(at, true)));
    else if (dataType === types.int32) into.push(view.getInt32(at, true));
    else if (dataType === types.double) into.push(view.getFloat64(at, true));
    else into.push(view.getFloat32(at, true));
  }
}

/** Varints of a repeated field, up to a few more than are kept. */
function varints(reader: ProtobufReader, into: number[]): void {
  if (reader.wireType === wireTypes.varint) {
    const value = reader.varint();
    if (into.length <= numbersMax) into.push(Number(BigInt.asIntN(64, value)));
    return;
  }
  for (const value of reader.packed()) {
    if (into.length > numbersMax) return;
    into.push(Number(BigInt.asIntN(64, value)));
  }
}

/**
 * TensorProto: dims 1, data_type 2, float_data 4, int32_data 5, string_data 6, int64_data 7, name 8, raw_data 9,
 * double_data 10, external_data 13, data_location 14. What lies in external files is added to `external`.
 */
export function readTensor(reader: ProtobufReader, external: OnnxExternalData[]): TensorFacts {
  const dims: number[] = [];
  let dataType = 0;
  let name = '';
  let location = 0;
  let stringBytes = 0;
  let raw: Uint8Array | null = null;
  const listed: number[] = [];
  const entries = new Map<string, string>();
  while (reader.next()) {
    if (reader.field === 1) reader.ints(dims);
    else if (reader.field === 2) dataType = reader.int();
    else if (reader.field === 4) fixed(reader, 4, listed);
    else if (reader.field === 5 || reader.field === 7) varints(reader, listed);
    else if (reader.field === 6) stringBytes += reader.bytes().length;
    else if (reader.field === 8) name = reader.string();
    else if (reader.field === 9) raw = reader.bytes();
    else if (reader.field === 10) fixed(reader, 8, listed);
    else if (reader.field === 13) {
      const { key, value } = readEntry(reader.message());
      entries.set(key, value);
    } else if (reader.field === 14) location = reader.int();
    else reader.skip();
    if (dims.length > dimensionsMax)
      throw new ProtobufFault(`a tensor of more than ${dimensionsMax} dimensions`);
  }
  const bits = bitsOf(dataType);
  // The text of strings stands in the file; what each costs in memory is a handle more.
  const bytes = dataType === types.string ? stringBytes + elementsOf(dims) * 8 : bytesOf(dims, bits);
  if (location === 1) external.push(externalData(entries, bytes));
  const numeric: number[] = [types.float, types.int32, types.int64, types.double];
  if (raw !== null && numeric.includes(dataType)) readNumbers(raw, dataType, listed);
  const complete = numeric.includes(dataType) && listed.length === elementsOf(dims);
  return { name, dims, bits, bytes, numbers: complete && listed.length <= numbersMax ? listed : null };
}
