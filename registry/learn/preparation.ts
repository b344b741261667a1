// Why: from raw inputs to what a network takes, and from its outputs to answers, in double precision: what the ONNX
// file of conversion.ts computes in single. Pure. Trusts: cleaning fitted on the training part.
// Must never: see the test part while it fits, or prepare by a rule that the file does not hold.

import { invariant } from '../../shared/kernel/errors.ts';
import {
  type FeatureWriter,
  featureColumns,
  featureNames,
  featureWriter,
  type WindowShape,
} from './features.ts';
import { type Matrix, matrix } from './matrix.ts';
import type {
  Answers,
  CategoryCleaning,
  Examples,
  Head,
  Network,
  NumericCleaning,
  Preparation,
  TrainedModel,
} from './model.ts';
import { type Recipe, windowFeatures } from './recipe.ts';
import { type ColumnKind, fitScaling } from './scaling.ts';

/** A preparation before its columns are normalised. */
type Frame = Pick<Preparation, 'numeric' | 'categories' | 'window' | 'features' | 'bands'>;

export interface PreparationParts {
  /** Of the training part. */
  examples: Examples;
  numeric: NumericCleaning[];
  categories: CategoryCleaning[];
  recipe: Pick<Recipe, 'window' | 'windowFeatures' | 'bands' | 'normalise'>;
}

/**
 * Fits how columns are normalised. Prepared columns, without a window: each numeric column's cleaned value, then for
 * each known category of each text column whether it is that one (`NAME=TEXT`). With a window: numeric column by
 * numeric column its features, always in the order lags, changes, mean, deviation, minimum, maximum, bands.
 * Holds one matrix of all examples while it fits.
 */
export function fitPreparation({ examples, numeric, categories, recipe }: PreparationParts): Preparation {
  invariant(examples.window === (recipe.window ?? 1), 'examples of another window than the recipe');
  for (const { name, fill } of numeric)
    invariant(Number.isFinite(Math.fround(fill)), `${name} is filled with what is no number`);
  const frame: Frame = {
    numeric,
    categories,
    window: recipe.window,
    features:
      recipe.window === null ? [] : windowFeatures.filter((one) => recipe.windowFeatures.includes(one)),
    bands: recipe.bands,
  };
  const names = preparedNames(frame);
  invariant(names.length > 0, 'no prepared column');
  const kinds = preparedKinds(frame, examples);
  const scaling = fitScaling(rawMatrix(frame, examples), kinds, recipe.bands, recipe.normalise);
  return { ...frame, normalise: recipe.normalise, names, ...scaling };
}

/**
 * One row an example. Raw values and the numbers of the cleaning are rounded to single precision first, as a device
 * feeds them and the file holds them; all else is in double.
 */
export function prepare(preparation: Preparation, examples: Examples): Matrix {
  const { center, scale } = preparation;
  const prepared = rawMatrix(preparation, examples);
  const { values, columns } = prepared;
  for (let start = 0; start < values.length; start += columns)
    for (let at = 0; at < columns; at += 1)
      values[start + at] = ((values[start + at] as number) - (center[at] as number)) * (scale[at] as number);
  return prepared;
}

/** What the model answers to prepared examples; `examples` are the same, for a value that is carried. */
export function answer(
  model: TrainedModel,
  prepared: Matrix,
  examples: Examples,
  forward: (network: Network, x: Matrix) => Matrix,
): Answers {
  const { head, network } = model;
  const outputs = forward(network, prepared);
  if (head.kind === 'classes') return { kind: 'classes', probabilities: outputs, best: bestOf(outputs) };
  if (head.kind === 'anomaly')
    return { kind: 'anomaly', scores: scoresOf(outputs, prepared, Math.fround(head.threshold)) };
  return { kind: 'value', values: valuesOf(outputs, head, model.preparation, examples) };
}

/** Of equal ones the first, as ArgMax. */
function bestOf({ rows, columns, values }: Matrix): Int32Array {
  const best = new Int32Array(rows);
  for (let row = 0; row < rows; row += 1) {
    let found = 0;
    for (let at = 1; at < columns; at += 1)
      if ((values[row * columns + at] as number) > (values[row * columns + found] as number)) found = at;
    best[row] = found;
  }
  return best;
}

/** Mean squared difference of a row, as a part of the threshold. */
function scoresOf(outputs: Matrix, prepared: Matrix, threshold: number): Float64Array {
  const { rows, columns } = prepared;
  invariant(outputs.columns === columns, 'an anomaly model that does not repeat its inputs');
  const scores = new Float64Array(rows);
  for (let row = 0; row < rows; row += 1) {
    let sum = 0;
    for (let at = row * columns; at < (row + 1) * columns; at += 1)
      sum += ((outputs.values[at] as number) - (prepared.values[at] as number)) ** 2;
    scores[row] = sum / columns / threshold;
  }
  return scores;
}

function valuesOf(
  outputs: Matrix,
  head: Extract<Head, { kind: 'value' }>,
  preparation: Preparation,
  examples: Examples,
): Float64Array {
  const center = Math.fround(head.center);
  const scale = Math.fround(head.scale);
  const values = Float64Array.from({ length: outputs.rows }, (_, row) => {
    return (outputs.values[row * outputs.columns] as number) * scale + center;
  });
  if (head.carries === null) return values;
  const cleaning = preparation.numeric[head.carries];
  invariant(cleaning !== undefined, `no numeric input ${head.carries} that could be carried`);
  const carried = cleanedColumn(cleaning, examples);
  for (const [at, row] of examples.at.entries())
    values[at] = (values[at] as number) + (carried[row] as number);
  return values;
}

function preparedNames(frame: Frame): string[] {
  const texts = frame.categories.flatMap(({ name, categories }) =>
    categories.map((text) => `${name}=${text}`),
  );
  if (frame.window === null) return [...frame.numeric.map(({ name }) => name), ...texts];
  const shape: WindowShape = { ...frame, window: frame.window };
  return frame.numeric.flatMap(({ name }) => featureNames(name, shape));
}

function preparedKinds(frame: Frame, examples: Examples): ColumnKind[] {
  const plain = (kind: 'value' | 'category'): ColumnKind => ({ kind, range: 0 });
  const texts = frame.categories.flatMap(({ categories }) => categories.map(() => plain('category')));
  if (frame.window === null) return [...frame.numeric.map(() => plain('value')), ...texts];
  const ofOne = featureColumns({ ...frame, window: frame.window });
  return frame.numeric.flatMap((cleaning) => {
    const range = ofOne.includes('mean') ? rangeOf(cleanedColumn(cleaning, examples), examples) : 0;
    return ofOne.map((kind) => ({ kind, range }));
  });
}

/** Highest less lowest value in the windows of the examples. */
function rangeOf(values: Float64Array, { at, window }: Examples): number {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const end of at)
    for (let row = end - window + 1; row <= end; row += 1) {
      low = Math.min(low, values[row] as number);
      high = Math.max(high, values[row] as number);
    }
  return Math.max(high - low, 0);
}

/** The columns before they are normalised. */
function rawMatrix(frame: Frame, examples: Examples): Matrix {
  invariant(examples.window === (frame.window ?? 1), 'examples of another window than the preparation');
  invariant(frame.window === null || frame.categories.length === 0, 'categories in a window');
  const ofOne = frame.window === null ? 1 : featureColumns({ ...frame, window: frame.window }).length;
  const texts = frame.categories.reduce((sum, { categories }) => sum + categories.length, 0);
  const made = matrix(examples.at.length, frame.numeric.length * ofOne + texts);
  const write: FeatureWriter =
    frame.window === null
      ? (values, end, into, start) => {
          into[start] = values[end] as number;
        }
      : featureWriter({ ...frame, window: frame.window });
  for (const [column, cleaning] of frame.numeric.entries()) {
    const values = cleanedColumn(cleaning, examples);
    checkPlaces(examples, values.length);
    for (let row = 0; row < made.rows; row += 1)
      write(values, examples.at[row] as number, made.values, row * made.columns + column * ofOne);
  }
  writeCategories(frame, examples, made, frame.numeric.length * ofOne);
  return made;
}

function checkPlaces({ at, window }: Examples, rows: number): void {
  for (let example = 0; example < at.length; example += 1) {
    const row = at[example] as number;
    invariant(row >= window - 1 && row < rows, `example ${example} leaves the table: row ${row} of ${rows}`);
  }
}

/** All rows of one numeric input: sentinel → missing → filled → clipped. */
function cleanedColumn(cleaning: NumericCleaning, examples: Examples): Float64Array {
  const column = examples.numeric.find(({ name }) => name === cleaning.name);
  invariant(column !== undefined, `no numeric column ${cleaning.name}`);
  const sentinels = new Set(cleaning.sentinels.map(Math.fround));
  const fill = Math.fround(cleaning.fill);
  const low = Math.fround(cleaning.low);
  const high = Math.fround(cleaning.high);
  return column.values.map((raw) => {
    const value = Math.fround(raw);
    const filled = Number.isNaN(value) || sentinels.has(value) ? fill : value;
    return Math.min(Math.max(filled, low), high);
  });
}

/** 1 in the column of the category that an example has; none for one that is unknown or missing. */
function writeCategories(frame: Frame, examples: Examples, made: Matrix, start: number): void {
  let first = start;
  for (const { name, categories } of frame.categories) {
    const column = examples.categories.find((one) => one.name === name);
    invariant(column !== undefined, `no text column ${name}`);
    checkPlaces(examples, column.codes.length);
    const place = column.categories.map((text) => categories.indexOf(text));
    for (let row = 0; row < made.rows; row += 1) {
      const known = place[column.codes[examples.at[row] as number] as number] ?? -1;
      if (known >= 0) made.values[row * made.columns + first + known] = 1;
    }
    first += categories.length;
  }
}
