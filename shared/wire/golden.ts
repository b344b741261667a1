// Why: golden cases, the release's own questions and answers; they are its probe on each device.
// Trusts: nothing before `parseGolden`; the publisher's signature covers the bytes. Must never: pass
// a case that was not compared, or read a file outside the release.

import { releasePathPattern } from '../kernel/releases.ts';
import { type Result, refuse } from '../kernel/result.ts';
import { type JsonReader, readWhole } from './json-reader.ts';
import { readInferRequest, readInferResponse } from './oip-json.ts';
import { joinParts, type TextPart, tensorParts } from './tensor-json.ts';
import { halfToNumber, type Tensor, tensorToBytes } from './tensors.ts';

/** Both tolerances where a case names none (contract, section 12). */
export const goldenToleranceDefault = 1e-3;
const casesMax = 10_000;

export interface GoldenCase {
  inputs: Tensor[];
  /** Outputs that are compared; others of the model are ignored. At least one. */
  expected: Tensor[];
  rtol: number;
  atol: number;
  /** Cases of one sequence run in order, with the manifest's state carried from one to the next. */
  sequence: string | null;
}

/**
 * Parses a golden file. `readData` gives the bytes of a data file named relative to the golden file,
 * or null where there is none. Bare NaN and Infinity are accepted besides their spelling as strings,
 * because Python's json module writes them. Refusal: `golden-malformed`.
 */
export function parseGolden(
  bytes: Uint8Array,
  readData: (file: string) => Uint8Array | null,
): Result<GoldenCase[]> {
  const readInside = (file: string): Uint8Array | null =>
    releasePathPattern.test(file) ? readData(file) : null;
  const parsed = readWhole(bytes, 'golden-malformed', { bareNonFinite: true }, (reader) => {
    const cases: GoldenCase[] = [];
    if (!reader.nextIsList()) reader.fail('a golden file is a JSON list of cases');
    reader.list((index) => {
      if (index === casesMax) reader.fail(`more than ${casesMax} cases`);
      cases.push(readCase(reader, index, readInside));
    });
    return cases;
  });
  if (parsed.ok && parsed.value.length === 0)
    return refuse('golden-malformed', 'the golden file holds no case');
  return parsed;
}

/** Names of the data files that a golden file refers to, each once. Refusal: `golden-malformed`. */
export function goldenDataFiles(bytes: Uint8Array): Result<string[]> {
  const files = new Set<string>();
  return readWhole(bytes, 'golden-malformed', { bareNonFinite: true }, (reader) => {
    collectDataFiles(reader.plain(), files);
    for (const file of files) {
      if (!releasePathPattern.test(file))
        reader.fail(`the data file ${JSON.stringify(file)} leaves the release`);
    }
    return [...files];
  });
}

function collectDataFiles(value: unknown, files: Set<string>): void {
  if (typeof value !== 'object' || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === 'binary_data_file' && typeof inner === 'string') files.add(inner);
    else collectDataFiles(inner, files);
  }
}

function readCase(
  reader: JsonReader,
  index: number,
  readData: (file: string) => Uint8Array | null,
): GoldenCase {
  const golden: GoldenCase = {
    inputs: [],
    expected: [],
    rtol: goldenToleranceDefault,
    atol: goldenToleranceDefault,
    sequence: null,
  };
  const given = new Set<string>();
  reader.object((key) => {
    given.add(key);
    if (key === 'request') golden.inputs = readInferRequest(reader, readData).inputs;
    else if (key === 'response') golden.expected = readInferResponse(reader, readData).outputs;
    else if (key === 'rtol' || key === 'atol') golden[key] = readTolerance(reader, `case ${index}: ${key}`);
    else if (key === 'sequence') {
      if (!reader.nextIsString()) reader.fail(`case ${index}: sequence must be a string`);
      golden.sequence = reader.string();
    } else reader.fail(`case ${index}: unknown key ${JSON.stringify(key)}`);
  });
  if (!given.has('request')) reader.fail(`case ${index}: request is missing`);
  if (!given.has('response')) reader.fail(`case ${index}: response is missing`);
  if (golden.expected.length === 0)
    reader.fail(`case ${index}: the response names no output; it could not fail`);
  return golden;
}

function readTolerance(reader: JsonReader, what: string): number {
  const value = reader.number();
  if (!Number.isFinite(value) || value < 0) reader.fail(`${what} must be a number of at least 0`);
  return value;
}

export interface Comparison {
  passed: boolean;
  /** The first difference in words, null where there is none. */
  firstFailure: string | null;
}

/**
 * Compares the outputs of one case: |a−b| ≤ atol + rtol·|b| with b expected, NaN equals NaN, an
 * infinity equals itself only, integers, booleans and strings exactly. Outputs that are not expected
 * are ignored; datatype and shape must be equal.
 */
export function compareGolden(
  expected: readonly Tensor[],
  actual: readonly Tensor[],
  rtol: number,
  atol: number,
): Comparison {
  for (const want of expected) {
    const got = actual.find((tensor) => tensor.name === want.name);
    if (got === undefined) return failed(`${want.name}: the model gave no such output`);
    if (got.datatype !== want.datatype)
      return failed(`${want.name}: is ${got.datatype}, expected ${want.datatype}`);
    if (got.shape.join() !== want.shape.join() || got.data.length !== want.data.length) {
      return failed(`${want.name}: has shape [${got.shape.join(',')}], expected [${want.shape.join(',')}]`);
    }
    const at = firstDifference(want, got, rtol, atol);
    if (at >= 0) {
      return failed(
        `${want.name}[${at}]: is ${element(got, at)}, expected ${element(want, at)} (rtol ${rtol}, atol ${atol})`,
      );
    }
  }
  return { passed: true, firstFailure: null };
}

function failed(firstFailure: string): Comparison {
  return { passed: false, firstFailure };
}

/** Index of the first element that differs, −1 where none does. */
function firstDifference(want: Tensor, got: Tensor, rtol: number, atol: number): number {
  if (want.datatype === 'FP16') {
    const expected = want.data as Uint16Array;
    const actual = got.data as Uint16Array;
    return expected.findIndex(
      (bits, at) => !isClose(halfToNumber(actual[at] ?? 0), halfToNumber(bits), rtol, atol),
    );
  }
  if (want.datatype === 'FP32' || want.datatype === 'FP64') {
    const expected = want.data as Float64Array;
    const actual = got.data as Float64Array;
    return expected.findIndex((value, at) => !isClose(actual[at] ?? Number.NaN, value, rtol, atol));
  }
  for (let at = 0; at < want.data.length; at++) {
    if (want.data[at] !== got.data[at]) return at;
  }
  return -1;
}

function isClose(actual: number, expected: number, rtol: number, atol: number): boolean {
  if (actual === expected) return true;
  if (Number.isNaN(expected)) return Number.isNaN(actual);
  // An infinite bound would let every number pass for an expected infinity.
  if (!Number.isFinite(expected)) return false;
  return Math.abs(actual - expected) <= atol + rtol * Math.abs(expected);
}

function element(tensor: Tensor, at: number): string {
  const value = tensor.data[at];
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 80));
  if (tensor.datatype === 'FP16') return String(halfToNumber(Number(value)));
  return String(value);
}

export interface DataFile {
  file: string;
  bytes: Uint8Array;
}

/**
 * Writes a golden file. With `dataFiles`, tensors of more than `inlineBytesMax` bytes are put into
 * files beside it, which are appended to that list for the caller to store.
 */
export function writeGolden(
  cases: readonly GoldenCase[],
  options: { dataFiles: DataFile[]; inlineBytesMax: number } | null = null,
): Uint8Array {
  const list = (tensors: readonly Tensor[], stem: string): TextPart[] =>
    tensors.flatMap((tensor, index): TextPart[] => {
      const comma = index === 0 ? '' : ',';
      const bytes = tensorToBytes(tensor);
      if (options === null || bytes.length <= options.inlineBytesMax)
        return [comma, ...tensorParts(tensor, null)];
      const file = `${stem}-${index}.bin`;
      options.dataFiles.push({ file, bytes });
      return [comma, ...tensorParts(tensor, file)];
    });
  const parts: TextPart[] = ['[\n'];
  for (const [index, golden] of cases.entries()) {
    const sequence = golden.sequence === null ? '' : `,"sequence":${JSON.stringify(golden.sequence)}`;
    parts.push(index === 0 ? '' : ',\n', '{"request":{"inputs":[');
    parts.push(...list(golden.inputs, `golden-${index}-in`), ']},"response":{"outputs":[');
    parts.push(
      ...list(golden.expected, `golden-${index}-out`),
      `]},"rtol":${golden.rtol},"atol":${golden.atol}${sequence}}`,
    );
  }
  parts.push('\n]\n');
  return joinParts(parts);
}
