// Why: models with random weights on dirty random data, and a run of their files, for tests of conversion.
// Trusts: ONNX Runtime. Must never: use anything of the conversion to say what the right answer is.

import assert from 'node:assert/strict';
import * as ort from 'onnxruntime-node';
import { type Matrix, matrix } from '../../registry/learn/matrix.ts';
import type {
  CategoryCleaning,
  Examples,
  Head,
  Layer,
  Network,
  NumericCleaning,
  TrainedModel,
} from '../../registry/learn/model.ts';
import { answer, fitPreparation, prepare } from '../../registry/learn/preparation.ts';
import type { Recipe } from '../../registry/learn/recipe.ts';
import { chance } from '../support/chance.ts';

export interface Case {
  name: string;
  head: 'whole' | 'texts' | 'value' | 'carried' | 'anomaly';
  window?: number;
  features?: Recipe['windowFeatures'];
  bands?: number;
  /** How many numeric inputs. Default 3. */
  numeric?: number;
  /** What all columns are raised by. */
  level?: number;
  /** What they are multiplied by before. */
  size?: number;
  texts?: boolean;
  clip?: boolean;
  hidden?: number[];
  activation?: Recipe['activation'];
  normalise?: Recipe['normalise'];
}

/** About N(0, 1): sum of twelve (Irwin–Hall). */
export const bell = (next: () => number): number =>
  Array.from({ length: 12 }, next).reduce((sum, one) => sum + one, -6);

const sentinels = [[], [-999.9], [-1, 65_535]];

/** Waves with noise around another level for each column, with holes, sentinels and outliers. */
function dirtyColumn(
  rows: number,
  column: number,
  { level = 0, size = 1 }: Case,
  next: () => number,
): Float64Array {
  const marks = sentinels[column % 3] ?? [];
  return Float64Array.from({ length: rows }, (_, row) => {
    const kind = next();
    if (kind < 0.03) return Number.NaN;
    if (kind < 0.06 && marks.length > 0) return marks[Math.floor(next() * marks.length)] as number;
    // A plain 0 is no sentinel here, and no column's fill.
    if (kind < 0.08 && level === 0) return 0;
    const value = level + size * (20 * column + 3 * Math.sin(row / (3 + column)) + bell(next));
    return kind > 0.98 ? value + size * 200 * next() : value;
  });
}

const cleaningOf = (column: number, { clip = false, level = 0, size = 1 }: Case): NumericCleaning => ({
  name: `sensor ${column}`,
  sentinels: sentinels[column % 3] ?? [],
  // One column of the clipped ones stays open on each side.
  low: clip && column !== 1 ? level + size * (20 * column - 4.3) : Number.NEGATIVE_INFINITY,
  high: clip && column !== 2 ? level + size * (20 * column + 4.1) : Number.POSITIVE_INFINITY,
  fill: level + size * (20 * column + 0.1),
});

const textCleaning: CategoryCleaning[] = [
  { name: 'place', categories: ['hall', 'Süd-Tor', 'a=b'] },
  { name: 'shift', categories: ['night'] },
  { name: 'note', categories: [] },
];
/** What is said in the columns: known texts, and one that is not. */
const said = [['yard', 'hall', 'Süd-Tor', 'a=b'], ['day', 'night', 'Night'], ['x']];

export function dirtyExamples(one: Case, count: number, seed: number): Examples {
  const next = chance(seed);
  const window = one.window ?? 1;
  const rows = count + window - 1;
  const columns = one.numeric ?? 3;
  return {
    numeric: Array.from({ length: columns }, (_, column) => ({
      kind: 'numeric',
      name: `sensor ${column}`,
      values: dirtyColumn(rows, column, one, next),
    })),
    categories: (one.texts === true ? said : []).map((categories, at) => ({
      kind: 'category',
      name: textCleaning[at]?.name ?? '',
      categories,
      codes: Int32Array.from({ length: rows }, () => Math.floor(next() * (categories.length + 1)) - 1),
    })),
    at: Int32Array.from({ length: count }, (_, at) => at + window - 1),
    window,
  };
}

function randomLayer(inputs: number, outputs: number, next: () => number): Layer {
  const size = 1 / Math.sqrt(inputs);
  return {
    inputs,
    outputs,
    weights: Float64Array.from({ length: inputs * outputs }, () => bell(next) * size),
    bias: Float64Array.from({ length: outputs }, () => bell(next) * 0.3),
  };
}

const heads: Record<Case['head'], Head> = {
  whole: { kind: 'classes', labels: [-7, 3, 12, 2 ** 40] },
  texts: { kind: 'classes', labels: ['läuft', 'steht', ''] },
  value: { kind: 'value', center: 12.3, scale: 4.7, carries: null },
  carried: { kind: 'value', center: -0.3, scale: 1.9, carries: 2 },
  anomaly: { kind: 'anomaly', threshold: 1 },
};

export function madeModel(one: Case, train: Examples, seed: number): TrainedModel {
  const next = chance(seed);
  const head = heads[one.head];
  const columns = one.numeric ?? 3;
  const preparation = fitPreparation({
    examples: train,
    numeric: Array.from({ length: columns }, (_, column) => cleaningOf(column, one)),
    categories: one.texts === true ? textCleaning : [],
    recipe: {
      window: one.window ?? null,
      windowFeatures: one.features ?? ['lags'],
      bands: one.bands ?? 3,
      normalise: one.normalise ?? 'standard',
    },
  });
  const width = preparation.names.length;
  const outputs = head.kind === 'classes' ? head.labels.length : head.kind === 'value' ? 1 : width;
  const sizes = [width, ...(one.hidden ?? [8]), outputs];
  const network: Network = {
    layers: sizes.slice(1).map((size, at) => randomLayer(sizes[at] ?? 0, size, next)),
    activation: one.activation ?? 'relu',
    output: head.kind === 'classes' ? 'softmax' : 'identity',
  };
  if (head.kind !== 'anomaly') return { preparation, network, head };
  // Half of what it was made on is an anomaly.
  const made = { preparation, network, head };
  const scored = answer(made, prepare(preparation, train), train, plainForward);
  assert.ok(scored.kind === 'anomaly');
  const threshold = scored.scores.sort()[Math.floor(scored.scores.length / 2)];
  return { preparation, network, head: { kind: 'anomaly', threshold: threshold ?? Number.NaN } };
}

const activations: Record<Recipe['activation'], (x: number) => number> = {
  relu: (x) => Math.max(0, x),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
};

/** The network's own rule, row by row. */
export function plainForward({ layers, activation, output }: Network, x: Matrix): Matrix {
  const rows = Array.from({ length: x.rows }, (_, row) => {
    let values = Array.from(x.values.subarray(row * x.columns, (row + 1) * x.columns));
    for (const [at, layer] of layers.entries()) {
      const sums = Array.from(layer.bias, (bias, to) =>
        values.reduce(
          (sum, value, from) => sum + value * (layer.weights[from * layer.outputs + to] ?? 0),
          bias,
        ),
      );
      values = at < layers.length - 1 ? sums.map(activations[activation]) : sums;
    }
    if (output === 'identity') return values;
    const highest = Math.max(...values);
    const raised = values.map((value) => Math.exp(value - highest));
    const total = raised.reduce((sum, value) => sum + value, 0);
    return raised.map((value) => value / total);
  });
  const made = matrix(x.rows, rows[0]?.length ?? 0);
  made.values.set(rows.flat());
  return made;
}

/** Raw inputs as a device feeds them. */
export function feedsOf({ numeric, categories, at, window }: Examples): Record<string, ort.Tensor> {
  const feeds: Record<string, ort.Tensor> = {};
  const ends = [...at];
  if (numeric.length > 0) {
    const rows = ends.flatMap((end) => Array.from({ length: window }, (_, step) => end - window + 1 + step));
    const values = Float32Array.from(
      rows.flatMap((row) => numeric.map((column) => column.values[row] ?? Number.NaN)),
    );
    const shape = window === 1 ? [ends.length, numeric.length] : [ends.length, window, numeric.length];
    feeds['values'] = new ort.Tensor('float32', values, shape);
  }
  if (categories.length > 0) {
    const texts = ends.flatMap((row) =>
      categories.map((column) => column.categories[column.codes[row] ?? -1] ?? ''),
    );
    feeds['texts'] = new ort.Tensor('string', texts, [ends.length, categories.length]);
  }
  return feeds;
}

export async function runFile(bytes: Uint8Array, examples: Examples): Promise<Record<string, ort.Tensor>> {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 });
  try {
    const feeds = feedsOf(examples);
    assert.deepEqual([...session.inputNames], Object.keys(feeds));
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}
