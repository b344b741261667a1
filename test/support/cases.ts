// Why: real models with the answers that others computed, as tensors for every test that runs one.
// Trusts: the data folder (test/support/data.ts) and its README for the formats. Must never: alter an
// expected value or loosen a tolerance.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { unwrap } from '../../shared/kernel/errors.ts';
import { readModel } from '../../shared/onnx/model.ts';
import { type GoldenCase, writeGolden } from '../../shared/wire/golden.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import {
  allocateData,
  elementCount,
  type Tensor,
  type TensorData,
  tensorFromBytes,
} from '../../shared/wire/tensors.ts';
import { dataFolder, readJson } from './data.ts';

export interface ModelCase {
  /** `mnist/digit4-opset7`, or for a suite `SklearnLabelEncoder[3]` with the row. */
  name: string;
  /** Absolute path. */
  modelPath: string;
  inputs: Tensor[];
  expected: Tensor[];
  /** Names of the expected outputs; others of the model may not be fetchable. */
  fetch: string[];
  rtol: number;
  atol: number;
  /** int8 kernels differ between processors: compare the decision, not raw values. */
  approximate: boolean;
  note: string;
}

interface StoredTensor {
  type: string;
  dims: number[];
  data?: (number | string | boolean)[];
  file?: string;
}

interface StoredCase {
  model: string;
  feeds: Record<string, StoredTensor>;
  expect: Record<string, StoredTensor>;
  fetch: string[];
  rtol: number;
  atol: number;
  expected_from?: string;
  note?: string;
  batch?: string;
}

const datatypes: Record<string, Datatype> = {
  float32: 'FP32',
  float64: 'FP64',
  int64: 'INT64',
  int32: 'INT32',
  uint8: 'UINT8',
  bool: 'BOOL',
  string: 'BYTES',
};

/** All cases of `models/<name>/<case>/case.json`, sorted by name; empty where the data is absent. */
export function modelCases(): ModelCase[] {
  const models = dataFolder('models');
  if (!existsSync(models)) return [];
  return readdirSync(models, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('case.json'))
    .sort()
    .map((path) => readCase(join(models, path)));
}

/** One case by its name, such as `yolox-nano/coco139-r2`. */
export function modelCase(name: string): ModelCase {
  return readCase(dataFolder('models', ...name.split('/'), 'case.json'));
}

function readCase(path: string): ModelCase {
  const folder = dirname(path);
  const stored = readJson<StoredCase>(path);
  return {
    name: relative(dataFolder('models'), folder),
    modelPath: resolve(folder, stored.model),
    ...tensorsOf(stored, folder),
  };
}

function tensorsOf(stored: StoredCase, folder: string): Omit<ModelCase, 'name' | 'modelPath'> {
  return {
    inputs: Object.entries(stored.feeds).map(([name, tensor]) => readTensor(name, tensor, folder)),
    expected: stored.fetch.map((name) => {
      const tensor = stored.expect[name];
      if (tensor === undefined) throw new Error(`${folder}: no expected value for ${name}`);
      return readTensor(name, tensor, folder);
    }),
    fetch: stored.fetch,
    rtol: stored.rtol,
    atol: stored.atol,
    approximate: stored.expected_from?.includes('int8') === true || stored.model.includes('int8'),
    note: stored.note ?? '',
  };
}

/**
 * The cases of `sklearn-onnx-upstream/suite.json`. Models whose first dimension is fixed at 1 take
 * one row at a run: such a case comes as one case for each row.
 */
export function suiteCases(): ModelCase[] {
  const folder = dataFolder('models', 'sklearn-onnx-upstream');
  if (!existsSync(join(folder, 'suite.json'))) return [];
  const suite = readJson<{ cases: StoredCase[] }>(join(folder, 'suite.json'));
  return suite.cases.flatMap((stored) => {
    const name = stored.model.replace(/\.onnx$/, '');
    const whole: ModelCase = { name, modelPath: join(folder, stored.model), ...tensorsOf(stored, folder) };
    return stored.batch?.includes('feed one row') === true ? rowsOf(whole) : [whole];
  });
}

/** The suite stacked the answers as columns; the model itself answers with the rank that it declares. */
function rowsOf(whole: ModelCase): ModelCase[] {
  const rows = whole.inputs[0]?.shape[0] ?? 0;
  const model = unwrap(readModel(readFileSync(whole.modelPath)));
  const ranks = new Map(model.outputs.map((output) => [output.name, output.shape?.length]));
  return Array.from({ length: rows }, (_, row) => ({
    ...whole,
    name: `${whole.name}[${row}]`,
    inputs: whole.inputs.map((tensor) => rowOf(tensor, row)),
    expected: whole.expected.map((tensor) => {
      const one = rowOf(tensor, row);
      return ranks.get(tensor.name) === 1 ? { ...one, shape: [one.data.length] } : one;
    }),
  }));
}

function rowOf(tensor: Tensor, row: number): Tensor {
  const shape = [1, ...tensor.shape.slice(1)];
  const width = elementCount(shape);
  return { ...tensor, shape, data: tensor.data.slice(row * width, (row + 1) * width) };
}

function readTensor(name: string, stored: StoredTensor, folder: string): Tensor {
  const datatype = datatypes[stored.type];
  if (datatype === undefined) throw new Error(`${folder}: ${name} has the unknown type ${stored.type}`);
  if (stored.file !== undefined) {
    const bytes = readFileSync(join(folder, stored.file));
    const tensor = tensorFromBytes(name, datatype, stored.dims, bytes);
    if (!tensor.ok) throw new Error(`${folder}: ${tensor.refusal.detail}`);
    return tensor.value;
  }
  return { name, datatype, shape: stored.dims, data: readValues(datatype, stored.data ?? []) };
}

/** int64 stands as decimal strings, NaN as "nan". */
function readValues(datatype: Datatype, values: (number | string | boolean)[]): TensorData {
  if (datatype === 'BYTES') return values.map(String);
  const data = allocateData(datatype, values.length);
  if (data instanceof BigInt64Array) data.set(values.map(BigInt));
  else if (!Array.isArray(data) && !(data instanceof BigUint64Array)) data.set(values.map(Number));
  return data;
}

/** The case as a golden case, for a release's golden file. */
export function asGolden(model: ModelCase): GoldenCase {
  return {
    inputs: model.inputs,
    expected: model.expected,
    rtol: model.rtol,
    atol: model.atol,
    sequence: null,
  };
}

/** A golden file with everything inline. */
export function goldenFile(models: ModelCase[]): Uint8Array {
  return writeGolden(models.map(asGolden));
}

export interface SpeechStream {
  /** Speech probability of each window. */
  probabilities: number[];
  windowSamples: number;
  contextSamples: number;
  sampleRateHz: number;
  speechWindows: number;
  toleranceAbsolute: number;
}

/** silero-vad's own stream over `inputs/test.wav`: `v5` or `v6`. */
export function speechStream(version: 'v5' | 'v6'): SpeechStream {
  const stored = readJson<{
    tolerance_abs: number;
    streams: Record<
      string,
      { probs: number[]; window: number; context: number; sr: number; 'speech_windows_gt_0.5': number }
    >;
  }>(dataFolder('models', 'silero-vad', 'streams.json'));
  const stream = stored.streams[version];
  if (stream === undefined) throw new Error(`streams.json has no ${version}`);
  return {
    probabilities: stream.probs,
    windowSamples: stream.window,
    contextSamples: stream.context,
    sampleRateHz: stream.sr,
    speechWindows: stream['speech_windows_gt_0.5'],
    toleranceAbsolute: stored.tolerance_abs,
  };
}

/** Samples of a 16-bit mono WAV file, scaled by 1/32768. */
export function readWav(path: string): Float32Array {
  const bytes = readFileSync(path);
  let at = 12;
  while (at + 8 <= bytes.length) {
    const length = bytes.readUInt32LE(at + 4);
    if (bytes.toString('latin1', at, at + 4) === 'data') {
      const samples = new Float32Array(Math.floor(Math.min(length, bytes.length - at - 8) / 2));
      for (let index = 0; index < samples.length; index++)
        samples[index] = bytes.readInt16LE(at + 8 + index * 2) / 32768;
      return samples;
    }
    at += 8 + length + (length % 2);
  }
  throw new Error(`${path} has no data chunk`);
}
