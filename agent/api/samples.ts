// Why: samples of a stream as they come in, raw or as JSON lines, and steps as they go out.
// Trusts: nothing. Must never: keep more than one line or one unfinished sample.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { joinParts, tensorsParts } from '../../shared/wire/tensor-json.ts';
import { allocateData, elementBytes, numberToHalf } from '../../shared/wire/tensors.ts';
import { type InferStream, type StreamStep, sampleBytes } from '../inference/streams.ts';
import type { Numbers } from '../inference/windows.ts';

/** Turns what arrives into whole samples, in order. Refusal: `infer-invalid`. */
export interface SampleReader {
  take(chunk: Uint8Array): Result<Numbers[]>;
  /** Nothing more comes. */
  end(): Result<Numbers[]>;
}

/** Little-endian numbers of the input's datatype, cut anywhere. */
export function createRawReader(stream: InferStream): SampleReader {
  const unit = sampleBytes(stream);
  const width = elementBytes(stream.datatype);
  let rest: Uint8Array = new Uint8Array(0);
  return {
    take: (chunk) => {
      const whole = Math.floor((rest.length + chunk.length) / unit) * unit;
      if (whole === 0) {
        rest = Buffer.concat([rest, chunk]);
        return ok([]);
      }
      const data = allocateData(stream.datatype, whole / width) as Numbers;
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      bytes.set(rest, 0);
      bytes.set(chunk.subarray(0, whole - rest.length), rest.length);
      rest = chunk.slice(whole - rest.length);
      return ok([data]);
    },
    end: () =>
      rest.length === 0
        ? ok([])
        : refuse('infer-invalid', `${rest.length} bytes at the end are no whole sample of ${unit} bytes`),
  };
}

/** Raw samples that are whole. */
export function wholeSamples(bytes: Uint8Array, stream: InferStream): Result<Numbers> {
  const reader = createRawReader(stream);
  const taken = reader.take(bytes);
  const end = reader.end();
  if (!taken.ok) return taken;
  if (!end.ok) return end;
  return ok(taken.value[0] ?? (allocateData(stream.datatype, 0) as Numbers));
}

/** A line of samples; a second of 48 kHz sound as text is half of it. */
const lineBytesMax = 1024 * 1024;
const numbersPerLineMax = 256 * 1024;

/** One line: numbers flat, or one list a sample; alone or as `{"data": …}`. */
export function parseSamples(line: Uint8Array, stream: InferStream): Result<Numbers> {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(line.buffer, line.byteOffset, line.length).toString('utf8'));
  } catch (error) {
    return refuse('infer-invalid', `a line is not JSON: ${error instanceof Error ? error.message : ''}`);
  }
  if (value !== null && typeof value === 'object' && 'data' in value) value = value.data;
  if (!Array.isArray(value)) return refuse('infer-invalid', 'a line is a list of numbers, or {"data": […]}');
  const flat: unknown[] = value.some(Array.isArray) ? value.flat(1) : value;
  if (flat.length > numbersPerLineMax) return refuse('infer-invalid', 'too many numbers in one line');
  if (flat.length % stream.channels !== 0)
    return refuse('infer-invalid', `${flat.length} numbers are no samples of ${stream.channels} channels`);
  const data = allocateData(stream.datatype, flat.length) as Numbers;
  for (const [at, number] of flat.entries()) {
    const fault = put(data, at, number, stream.datatype);
    if (fault !== null)
      return refuse('infer-invalid', `sample ${Math.floor(at / stream.channels)}: ${fault}`);
  }
  return ok(data);
}

function put(data: Numbers, at: number, given: unknown, datatype: InferStream['datatype']): string | null {
  const number = typeof given === 'boolean' ? Number(given) : given;
  if (typeof number !== 'number' || !Number.isFinite(number)) return `${JSON.stringify(given)} is no number`;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    if (!Number.isSafeInteger(number)) return `${number} is no ${datatype}`;
    data[at] = BigInt(number);
    return data[at] === BigInt(number) ? null : `${number} is no ${datatype}`;
  }
  if (datatype === 'FP16') {
    data[at] = numberToHalf(number);
    return ((data[at] ?? 0) & 0x7fff) === 0x7c00 ? `${number} is beyond the range of FP16` : null;
  }
  data[at] = number;
  if (datatype === 'FP32' || datatype === 'FP64')
    return Number.isFinite(data[at]) ? null : `${number} is beyond the range of ${datatype}`;
  return data[at] === number ? null : `${number} is no ${datatype}`;
}

const newline = 0x0a;

/** Lines of JSON, cut anywhere; empty ones are let go. */
export function createLineReader(stream: InferStream): SampleReader {
  let rest: Uint8Array = new Uint8Array(0);
  const take = (chunk: Uint8Array, last: boolean): Result<Numbers[]> => {
    const all = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const found: Numbers[] = [];
    let at = 0;
    while (at < all.length) {
      const end = all.indexOf(newline, at);
      if (end < 0 && !last) break;
      const line = all.subarray(at, end < 0 ? all.length : end);
      at = end < 0 ? all.length : end + 1;
      if (line.every((byte) => byte === 0x20 || byte === 0x0d || byte === 0x09)) continue;
      const samples = parseSamples(line, stream);
      if (!samples.ok) return samples;
      found.push(samples.value);
    }
    rest = all.slice(at);
    if (rest.length > lineBytesMax)
      return refuse('infer-invalid', `a line of more than ${lineBytesMax} bytes`);
    return ok(found);
  };
  return { take: (chunk) => take(chunk, false), end: () => take(new Uint8Array(0), true) };
}

const encoder = new TextEncoder();

/** One step as a line of JSON. */
export function stepLine(step: StreamStep): Uint8Array {
  const { index, start, version, reset } = step;
  const head = `{"index":${index},"start":${start},"model_version":${JSON.stringify(version)}${reset ? ',"reset":true' : ''}`;
  return joinParts([`${head},"outputs":[`, ...tensorsParts(step.outputs), ']}\n']);
}

/** The last line of a stream that went wrong. */
export function faultLine(code: string, detail: string): Uint8Array {
  return encoder.encode(`${JSON.stringify({ error: detail, code })}\n`);
}
