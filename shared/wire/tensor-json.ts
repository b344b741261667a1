// Why: one tensor as an Open Inference Protocol JSON object, read exactly and written fast.
// Trusts: nothing; what comes out is checked and complete. Must never: round an integer, turn an
// overflow into Infinity, or guess what a malformed tensor meant.
//
// JSON has no NaN and no infinities. Where a float tensor holds them, both directions spell them as
// the strings "NaN", "Infinity" and "-Infinity": the protocol's gRPC half is proto3, whose JSON
// mapping says so, and null (as some servers write) could not tell them apart.

import { floatsText } from './float-text.ts';
import { type JsonPlain, type JsonReader, nonFiniteWords } from './json-reader.ts';
import type { Datatype } from './manifest.ts';
import {
  elementCount,
  halfToNumber,
  isDatatype,
  numberToHalf,
  rankMax,
  stringFault,
  type Tensor,
  type TensorData,
  tensorFromBytes,
  unfilledData,
} from './tensors.ts';

export type OipParameters = Record<string, string | number | boolean>;

/** Inputs or outputs in one message; far above any model we know. */
export const tensorsMax = 1024;

/** Strings in one message: each costs ten times what the shortest text of it does. */
export const stringsMax = 1_000_000;

/** How a tensor's data may stand outside the JSON: golden cases name a file, a request cannot. */
export type ReadDataFile = (file: string) => Uint8Array | null;

/** The bytes behind the JSON of a binary message (oip-binary.ts): tensors take them in order. */
export interface BinaryTail {
  /** The next `length` bytes, null where so many are not there. */
  take(length: number): Uint8Array | null;
}
export type DataElsewhere = ReadDataFile | BinaryTail | null;

export function readName(reader: JsonReader, what: string): string {
  if (!reader.nextIsString()) reader.fail(`${what} must be a string`);
  const name = reader.string();
  if (name.length > 512) reader.fail(`${what} is longer than 512 characters`);
  return name;
}

export function readParameters(reader: JsonReader): OipParameters {
  const parameters: [string, string | number | boolean][] = [];
  reader.object((key) => {
    // Before it is read: what is nested costs many times its text.
    const value: JsonPlain = reader.nextIsNested() ? null : reader.plain();
    if (value === null || typeof value === 'object') {
      return reader.fail(`parameter ${JSON.stringify(key)} must be a string, a number or a boolean`);
    }
    parameters.push([key, value]);
  });
  return Object.fromEntries(parameters);
}

export function readTensors(
  reader: JsonReader,
  what: 'input' | 'output',
  elsewhere: DataElsewhere,
): Tensor[] {
  const tensors: Tensor[] = [];
  let strings = 0;
  reader.list((index) => {
    if (index === tensorsMax) reader.fail(`more than ${tensorsMax} ${what}s`);
    const tensor = readTensor(reader, `${what}s.${index}`, elsewhere);
    if (tensors.some((other) => other.name === tensor.name))
      reader.fail(`the ${what} ${tensor.name} stands twice`);
    if (tensor.datatype === 'BYTES') strings += tensor.data.length;
    if (strings > stringsMax) reader.fail(`more than ${stringsMax} strings`);
    tensors.push(tensor);
  });
  return tensors;
}

function readTensor(reader: JsonReader, where: string, elsewhere: DataElsewhere): Tensor {
  let name = '';
  let datatype: Datatype | null = null;
  let shape: number[] | null = null;
  let parameters: OipParameters = {};
  let data: TensorData | null = null;
  let dataAt = -1;
  reader.object((key) => {
    if (key === 'name') name = readName(reader, `${where}.name`);
    else if (key === 'datatype') datatype = readDatatype(reader, where);
    else if (key === 'shape') shape = readShape(reader, where);
    else if (key === 'parameters') parameters = readParameters(reader);
    else if (key === 'data' && datatype !== null && shape !== null)
      data = readData(reader, where, datatype, shape);
    else if (key === 'data') {
      // Its type is not known yet: step over it now, read it when the object is complete.
      dataAt = reader.at;
      reader.skip();
    } else reader.skip();
  });
  if (name === '') reader.fail(`${where}: name is missing`);
  if (datatype === null) return reader.fail(`${where} (${name}): datatype is missing`);
  if (shape === null) return reader.fail(`${where} (${name}): shape is missing`);
  if (dataAt >= 0) {
    const end = reader.at;
    reader.seek(dataAt);
    data = readData(reader, where, datatype, shape);
    reader.seek(end);
  }
  const outside = readElsewhere(reader, `${where} (${name})`, elsewhere, parameters);
  if (outside === null) {
    if (data === null) return reader.fail(`${where} (${name}): data is missing`);
    return { name, datatype, shape, data };
  }
  if (data !== null) reader.fail(`${where} (${name}): data stands in the JSON and outside it`);
  if (datatype === 'BYTES' && elementCount(shape) > stringsMax)
    reader.fail(`${where}: more than ${stringsMax} strings`);
  const tensor = tensorFromBytes(name, datatype, shape, outside);
  if (!tensor.ok) return reader.fail(`${where}: ${tensor.refusal.detail}`);
  return tensor.value;
}

/** The tensor's bytes where its parameters say that they stand outside the JSON, else null. */
function readElsewhere(
  reader: JsonReader,
  where: string,
  elsewhere: DataElsewhere,
  parameters: OipParameters,
): Uint8Array | null {
  if (typeof elsewhere === 'function') {
    const file = parameters['binary_data_file'];
    if (file === undefined) return null;
    const bytes = typeof file === 'string' ? elsewhere(file) : null;
    return bytes ?? reader.fail(`${where}: the data file ${JSON.stringify(file)} is not there`);
  }
  const length = parameters['binary_data_size'];
  if (length === undefined) return null;
  if (elsewhere === null) {
    return reader.fail(`${where}: binary_data_size without the header Inference-Header-Content-Length`);
  }
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0)
    return reader.fail(`${where}: binary_data_size must be a whole number of at least 0`);
  return elsewhere.take(length) ?? reader.fail(`${where}: fewer than ${length} bytes follow for it`);
}

function readDatatype(reader: JsonReader, where: string): Datatype {
  const text = readName(reader, `${where}.datatype`);
  if (!isDatatype(text)) return reader.fail(`${where}: unknown datatype ${JSON.stringify(text)}`);
  return text;
}

function readShape(reader: JsonReader, where: string): number[] {
  const shape: number[] = [];
  reader.list((index) => {
    if (index === rankMax) reader.fail(`${where}: more than ${rankMax} dimensions`);
    const size = reader.number();
    if (!Number.isSafeInteger(size) || size < 0)
      reader.fail(`${where}: a dimension must be a whole number of at least 0`);
    shape.push(size);
  });
  if (!Number.isFinite(elementCount(shape)))
    reader.fail(`${where}: the shape [${shape.join(',')}] overflows`);
  return shape;
}

/** Data in C order: flat, or nested exactly as the shape; a bare value where the shape is []. */
function readData(reader: JsonReader, where: string, datatype: Datatype, shape: number[]): TensorData {
  const count = elementCount(shape);
  // Each element takes at least one byte of text, and a comma: never allocate what the body cannot fill.
  if (2 * count - 1 > reader.bytesLeft)
    reader.fail(`${where}: the shape [${shape.join(',')}] needs ${count} elements`);
  if (datatype === 'BYTES' && count > stringsMax) reader.fail(`${where}: more than ${stringsMax} strings`);
  // Returned only where each of them was read.
  const data = unfilledData(datatype, count);
  const readElement = elementReader(reader, where, datatype, data);
  let filled = 0;
  const one = (): void => {
    if (filled === count)
      reader.fail(`${where}: more than the ${count} elements of shape [${shape.join(',')}]`);
    readElement(filled++);
  };
  const nested = (level: number): void => {
    let size = 0;
    reader.list(() => {
      size++;
      if (level + 1 === shape.length) one();
      else nested(level + 1);
    });
    if (size !== shape[level]) reader.fail(`${where}: nested otherwise than its shape [${shape.join(',')}]`);
  };
  if (!reader.nextIsList()) {
    if (shape.length > 0) reader.fail(`${where}: data must be a list`);
    one();
  } else {
    const start = reader.at;
    let flat = true;
    let floats = data instanceof Float32Array || data instanceof Float64Array ? data : null;
    reader.list((index) => {
      if (index === 0) flat = !reader.nextIsList();
      const read = flat && floats !== null ? reader.plainNumbers(floats, filled) : 0;
      filled += read;
      if (read > 0) return;
      // The next number is not plain, and so will those behind it be.
      floats = null;
      if (flat) one();
      else reader.skip();
    });
    if (!flat) {
      if (shape.length < 2) reader.fail(`${where}: nested otherwise than its shape [${shape.join(',')}]`);
      const end = reader.at;
      reader.seek(start);
      nested(0);
      reader.seek(end);
    }
  }
  if (filled !== count)
    reader.fail(`${where}: shape [${shape.join(',')}] needs ${count} elements, not ${filled}`);
  return data;
}

const integerRanges: Partial<Record<Datatype, readonly [number, number]>> = {
  INT8: [-0x80, 0x7f],
  INT16: [-0x8000, 0x7fff],
  INT32: [-0x8000_0000, 0x7fff_ffff],
  UINT8: [0, 0xff],
  UINT16: [0, 0xffff],
  UINT32: [0, 0xffff_ffff],
};
const int64Range = [-(2n ** 63n), 2n ** 63n - 1n] as const;
const uint64Range = [0n, 2n ** 64n - 1n] as const;

/** How one element is read into its place: chosen once for a tensor, run for each of its elements. */
function elementReader(
  reader: JsonReader,
  where: string,
  datatype: Datatype,
  data: TensorData,
): (index: number) => void {
  if (datatype === 'BYTES') {
    const strings = data as string[];
    return () => {
      if (!reader.nextIsString()) reader.fail(`${where}: BYTES must be strings`);
      const text = reader.string();
      const fault = stringFault(text);
      if (fault !== null) reader.fail(`${where}: ${fault}`);
      strings.push(text);
    };
  }
  if (datatype === 'BOOL') {
    const flags = data as Uint8Array;
    return (index) => {
      const value = reader.nextIsNested() ? null : reader.plain();
      if (value !== true && value !== false && value !== 0 && value !== 1)
        reader.fail(`${where}: BOOL must be true or false`);
      flags[index] = Number(value);
    };
  }
  if (datatype === 'INT64' || datatype === 'UINT64') {
    const integers = data as BigInt64Array | BigUint64Array;
    const [low, high] = datatype === 'INT64' ? int64Range : uint64Range;
    return (index) => {
      const value = reader.integer();
      if (value < low || value > high) reader.fail(`${where}: ${value} is no ${datatype}`);
      integers[index] = value;
    };
  }
  const range = integerRanges[datatype];
  if (range !== undefined) {
    const integers = data as Int32Array;
    const [low, high] = range;
    return (index) => {
      const value = reader.number();
      if (!Number.isInteger(value) || value < low || value > high)
        reader.fail(`${where}: ${value} is no ${datatype}`);
      integers[index] = value;
    };
  }
  return floatReader(reader, where, datatype, data);
}

function floatReader(
  reader: JsonReader,
  where: string,
  datatype: Datatype,
  data: TensorData,
): (index: number) => void {
  const word = (): number => {
    const text = reader.string();
    const known = nonFiniteWords.find(([spelling]) => spelling === text);
    return known === undefined
      ? reader.fail(`${where}: ${JSON.stringify(text.slice(0, 40))} is no number`)
      : known[1];
  };
  if (datatype === 'FP32') {
    const floats = data as Float32Array;
    return (index) => {
      if (reader.nextIsString()) {
        floats[index] = word();
        return;
      }
      const value = reader.number(true);
      const rounded = Math.fround(value);
      if (!Number.isFinite(rounded) && Number.isFinite(value))
        reader.fail(`${where}: ${value} is beyond the range of FP32`);
      floats[index] = rounded;
    };
  }
  if (datatype === 'FP64') {
    const floats = data as Float64Array;
    return (index) => {
      floats[index] = reader.nextIsString() ? word() : reader.number();
    };
  }
  const halves = data as Uint16Array;
  return (index) => {
    const value = reader.nextIsString() ? word() : reader.number();
    const bits = numberToHalf(value);
    if ((bits & 0x7fff) === 0x7c00 && Number.isFinite(value))
      reader.fail(`${where}: ${value} is beyond the range of FP16`);
    halves[index] = bits;
  };
}

/** Pieces of a JSON text: large ones as bytes already. */
export type TextPart = string | Uint8Array;

const encoder = new TextEncoder();

/** Up to here a text is written where it may be three times as long, and nothing is joined afterwards. */
const shortTextMax = 1_000;

export function joinParts(parts: readonly TextPart[]): Uint8Array {
  let size = 0;
  for (let index = 0; index < parts.length; index++) size += parts[index]?.length ?? 0;
  return size <= shortTextMax ? joinShort(parts, size) : joinLong(parts);
}

function joinShort(parts: readonly TextPart[], size: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(size * 3);
  let text = '';
  let at = 0;
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index] ?? '';
    if (typeof part === 'string') {
      text += part;
      continue;
    }
    at += bytes.write(text, at);
    text = '';
    bytes.set(part, at);
    at += part.length;
  }
  at += bytes.write(text, at);
  return bytes.subarray(0, at);
}

function joinLong(parts: readonly TextPart[]): Uint8Array {
  const pieces: Uint8Array[] = [];
  let text = '';
  let length = 0;
  const add = (piece: Uint8Array): void => {
    pieces.push(piece);
    length += piece.length;
  };
  // Strings side by side are encoded at once: the encoder costs more than a short text.
  for (const part of parts) {
    if (typeof part === 'string') text += part;
    else {
      if (text !== '') add(encoder.encode(text));
      text = '';
      add(part);
    }
  }
  if (text !== '') add(encoder.encode(text));
  const [only] = pieces;
  if (only !== undefined && pieces.length === 1) return only;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Tensors as the elements of a JSON list, with commas between them. */
export function tensorsParts(tensors: readonly Tensor[]): TextPart[] {
  const parts: TextPart[] = [];
  for (let index = 0; index < tensors.length; index++) {
    const tensor = tensors[index];
    if (index > 0) parts.push(',');
    if (tensor !== undefined) parts.push(...tensorParts(tensor, null));
  }
  return parts;
}

/**
 * One tensor as an OIP JSON object, flat. Where its data stands elsewhere: the name of the file, or how many
 * bytes of it follow the JSON.
 */
export function tensorParts(tensor: Tensor, elsewhere: string | number | null): TextPart[] {
  const { name, shape, datatype } = tensor;
  const head = `{"name":${JSON.stringify(name)},"shape":[${shape.join(',')}],"datatype":"${datatype}"`;
  if (typeof elsewhere === 'string')
    return [`${head},"parameters":{"binary_data_file":${JSON.stringify(elsewhere)}}}`];
  if (elsewhere !== null) return [`${head},"parameters":{"binary_data_size":${elsewhere}}}`];
  return [`${head},"data":[`, dataText(tensor), ']}'];
}

function dataText({ datatype, data }: Tensor): TextPart {
  if (Array.isArray(data)) return data.map((text) => JSON.stringify(text)).join(',');
  if (datatype === 'BOOL')
    return Array.from(data as Uint8Array, (value) => (value === 0 ? 'false' : 'true')).join(',');
  if (datatype === 'FP16') return floatsText(Float32Array.from(data as Uint16Array, halfToNumber));
  if (datatype === 'FP32' || datatype === 'FP64') return floatsText(data as Float32Array | Float64Array);
  return data.join(',');
}
