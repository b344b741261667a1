// Why: the binary tensor data extension of the Open Inference Protocol: a JSON object, then the raw numbers of
// its tensors in the same order. Two megabytes of an image need not become ten of text.
// Trusts: nothing; what comes out is checked and complete. Must never: copy numbers that can be viewed where they
// lie, or leave a byte of a message unread.
//
// The header `Inference-Header-Content-Length` gives the length of the JSON. Numbers are little-endian in C order,
// BOOL one byte 0 or 1, FP16 raw 16 bit, BYTES a u32 length and the UTF-8 of each element.

import type { ErrorCode } from '../kernel/codes.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type JsonReader, readWhole } from './json-reader.ts';
import type { Datatype, TensorSignature } from './manifest.ts';
import {
  type InferRequest,
  type InferResponse,
  readInferRequest,
  readNamedResponse,
  requestFrame,
  responseHead,
} from './oip-json.ts';
import { type BinaryTail, joinParts, type TextPart, tensorParts } from './tensor-json.ts';
import { elementBytes, elementCount, type Tensor, tensorFromBytes, tensorToBytes } from './tensors.ts';

/** In lower case, as Node gives header names. */
export const jsonLengthHeader = 'inference-header-content-length';

export interface BinaryMessage {
  /** The JSON, then the bytes of each binary tensor; views of the tensors' own memory: do not change them. */
  pieces: Uint8Array[];
  /** Value of `Inference-Header-Content-Length`. */
  jsonBytes: number;
  /** Of all pieces together. */
  bytes: number;
}

/** Whether a tensor of this name goes in binary form. */
export type IsBinary = (name: string) => boolean;

const all: IsBinary = () => true;

/**
 * Parses and checks a request whose first `jsonBytes` are JSON. Tensors view `body` where its memory is aligned for
 * their type. Refusal: `infer-invalid`.
 */
export function parseBinaryRequest(body: Uint8Array, jsonBytes: number): Result<InferRequest> {
  return readBinary(body, jsonBytes, 'infer-invalid', readInferRequest);
}

/** Parses a response, as a client. Refusal: `code`. */
export function parseBinaryResponse(
  body: Uint8Array,
  jsonBytes: number,
  code: ErrorCode = 'infer-invalid',
): Result<InferResponse> {
  return readBinary(body, jsonBytes, code, readNamedResponse);
}

function readBinary<T>(
  body: Uint8Array,
  jsonBytes: number,
  code: ErrorCode,
  read: (reader: JsonReader, tail: BinaryTail) => T,
): Result<T> {
  if (!Number.isSafeInteger(jsonBytes) || jsonBytes < 0 || jsonBytes > body.length) {
    return refuse(code, `the JSON of ${jsonBytes} bytes is longer than the body of ${body.length}`);
  }
  let at = jsonBytes;
  const tail: BinaryTail = {
    take: (length) => {
      if (length > body.length - at) return null;
      at += length;
      return body.subarray(at - length, at);
    },
  };
  return readWhole(body.subarray(0, jsonBytes), code, { bareNonFinite: false }, (reader) => {
    const message = read(reader, tail);
    if (at < body.length) reader.fail(`${body.length - at} bytes behind the JSON belong to no tensor`);
    return message;
  });
}

/** Longer ones name many tensors, or give numbers as text. */
const headKeptBytesMax = 1_024;

/** A request without its numbers, to be read again where a client asks the same of others. Not to be changed. */
export interface BinaryHead {
  json: Buffer;
  /** All but its inputs. */
  rest: Omit<InferRequest, 'inputs'>;
  inputs: readonly { name: string; datatype: Datatype; shape: readonly number[]; bytes: number }[];
  /** Of all inputs together. */
  bytesBehind: number;
}

/** Null where more than numbers may be another's next time: it holds strings, or numbers stand in the JSON. */
export function binaryHead(body: Uint8Array, jsonBytes: number, request: InferRequest): BinaryHead | null {
  if (jsonBytes > headKeptBytesMax) return null;
  const { inputs: tensors, ...rest } = request;
  const inputs: { name: string; datatype: Datatype; shape: readonly number[]; bytes: number }[] = [];
  let bytesBehind = 0;
  for (const { name, datatype, shape, data } of tensors) {
    if (Array.isArray(data)) return null;
    inputs.push({ name, datatype, shape, bytes: data.byteLength });
    bytesBehind += data.byteLength;
  }
  if (jsonBytes + bytesBehind !== body.length) return null;
  return { json: Buffer.from(body.subarray(0, jsonBytes)), rest, inputs, bytesBehind };
}

/**
 * The request in a body whose JSON is the very same bytes. Null where it is not, or where something about its numbers
 * is wrong: `parseBinaryRequest` says what.
 */
export function repeatedRequest(
  { json, rest, inputs, bytesBehind }: BinaryHead,
  body: Uint8Array,
  jsonBytes: number,
): InferRequest | null {
  if (jsonBytes !== json.length || jsonBytes + bytesBehind !== body.length) return null;
  if (json.compare(body, 0, jsonBytes) !== 0) return null;
  const tensors: Tensor[] = [];
  let at = jsonBytes;
  for (const { name, datatype, shape, bytes } of inputs) {
    const tensor = tensorFromBytes(name, datatype, [...shape], body.subarray(at, at + bytes));
    if (!tensor.ok) return null;
    tensors.push(tensor.value);
    at += bytes;
  }
  return { ...rest, inputs: tensors };
}

/** Which outputs a request wants in binary form: `binary_data` of an output, else `binary_data_output`. */
export function binaryOutputs(request: InferRequest): IsBinary {
  const byDefault = request.parameters?.['binary_data_output'] === true;
  if (request.outputs === undefined) return () => byDefault;
  const named = new Map<string, boolean>();
  for (const { name, parameters } of request.outputs) {
    const wanted = parameters?.['binary_data'];
    if (typeof wanted === 'boolean') named.set(name, wanted);
  }
  if (named.size === 0) return () => byDefault;
  return (name) => named.get(name) ?? byDefault;
}

export function encodeBinaryRequest(request: InferRequest, isBinary: IsBinary = all): BinaryMessage {
  const { head, tail } = requestFrame(request);
  return encodeBinary(head, request.inputs, isBinary, tail);
}

export function encodeBinaryResponse(response: InferResponse, isBinary: IsBinary = all): BinaryMessage {
  return encodeBinary(responseHead(response), response.outputs, isBinary, ']}');
}

function encodeBinary(
  head: string,
  tensors: readonly Tensor[],
  isBinary: IsBinary,
  tail: string,
): BinaryMessage {
  const json: TextPart[] = [head];
  const raw: Uint8Array[] = [];
  let rawBytes = 0;
  for (const [index, tensor] of tensors.entries()) {
    if (index > 0) json.push(',');
    if (isBinary(tensor.name)) {
      const bytes = tensorToBytes(tensor);
      rawBytes += bytes.length;
      if (bytes.length > 0) raw.push(bytes);
      json.push(...tensorParts(tensor, bytes.length));
    } else json.push(...tensorParts(tensor, null));
  }
  json.push(tail);
  const first = joinParts(json);
  return { pieces: [first, ...raw], jsonBytes: first.length, bytes: first.length + rawBytes };
}

/**
 * A body that is nothing but the data of the model's only input (`Inference-Header-Content-Length: 0`). Its shape
 * comes from the metadata; one free dimension follows from the length. A BYTES input is one element: the body
 * itself, without a length before it. Refusals: `infer-invalid`, `infer-unsupported` (the model takes more than that).
 */
export function parseRawInput(body: Uint8Array, inputs: readonly TensorSignature[]): Result<Tensor> {
  const [input] = inputs;
  if (input === undefined || inputs.length > 1) {
    return refuse('infer-invalid', `a raw body needs a model with one input; this one has ${inputs.length}`);
  }
  const { name, datatype } = input;
  const free = input.shape.filter((size) => size < 0).length;
  const text = `[${input.shape.join(',')}]`;
  if (free > 1) {
    return refuse('infer-invalid', `${name}: ${text} has ${free} free dimensions; send its shape as JSON`);
  }
  const fixed = elementCount(input.shape.filter((size) => size >= 0));
  if (datatype === 'BYTES') {
    if (fixed !== 1) return refuse('infer-invalid', `${name}: ${text} is more than one string`);
    const shape = input.shape.map(() => 1);
    const framed = new Uint8Array(4 + body.length);
    new DataView(framed.buffer).setUint32(0, body.length, true);
    framed.set(body, 4);
    return tensorFromBytes(name, datatype, shape, framed);
  }
  const rowBytes = fixed * elementBytes(datatype);
  if (free === 0) return tensorFromBytes(name, datatype, [...input.shape], body);
  if (rowBytes === 0 || !Number.isFinite(rowBytes) || body.length % rowBytes !== 0) {
    return refuse('infer-invalid', `${name}: ${body.length} bytes do not fill ${text} of ${datatype}`);
  }
  const shape = input.shape.map((size) => (size < 0 ? body.length / rowBytes : size));
  return tensorFromBytes(name, datatype, shape, body);
}

/**
 * The header's value as a number, null where it is absent. Refusal `infer-invalid` where it is anything but plain
 * digits, given once: two readers of one message must not see two lengths.
 */
export function readJsonLength(value: string | string[] | undefined): Result<number | null> {
  if (value === undefined) return ok(null);
  // Node joins a header that is given twice with a comma, which is no digit either.
  if (typeof value !== 'string' || !/^\d{1,15}$/.test(value)) {
    return refuse('infer-invalid', `Inference-Header-Content-Length must be a whole number, given once`);
  }
  return ok(Number(value));
}
