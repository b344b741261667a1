// Why: cleaning, imputation, features and normalisation as nodes, so that a device prepares as the training did.
// Pure. Trusts: a fitted preparation. Must never: compute what preparation.ts computes differently.

import { featureColumns, spectrum, type WindowShape } from './features.ts';
import type { GraphBuilder } from './graph-builder.ts';
import type { CategoryCleaning, NumericCleaning, Preparation } from './model.ts';
import type { WindowFeature } from './recipe.ts';

/** Names of the graph's inputs. */
export const inputNames = { values: 'values', texts: 'texts' } as const;

export interface PreparedGraph {
  /** FP32 [n, P]: the network's input. */
  prepared: string;
  /** FP32 [n, F]: the cleaned values of each example's last row; null where nothing needs them. */
  last: string | null;
}

/** `carries`: whether the head needs the last row. */
export function addPreparation(
  graph: GraphBuilder,
  preparation: Preparation,
  carries: boolean,
): PreparedGraph {
  const { numeric, window, center, scale } = preparation;
  const cleaned = numeric.length === 0 ? null : addCleaning(graph, numeric);
  let last = cleaned;
  if (cleaned !== null && window !== null)
    last = carries || needsLast(preparation.features) ? addLast(graph, cleaned, window) : null;
  const parts = addCategories(graph, preparation.categories);
  if (cleaned !== null && window === null) parts.unshift(cleaned);
  if (cleaned !== null && window !== null)
    parts.unshift(addWindowFeatures(graph, { cleaned, last }, { ...preparation, window }));
  const features = graph.join('features', parts);
  const centers = center.slice();
  for (const place of meanPlaces(preparation)) centers[place] = 0;
  const centered = graph.node('center_features', 'Sub', [
    features,
    graph.floats('center', [center.length], centers),
  ]);
  const prepared = graph.node('scale_features', 'Mul', [
    centered,
    graph.floats('scale', [scale.length], scale),
  ]);
  return { prepared, last };
}

/** Whether any is computed by way of differences to the last value. */
function needsLast(features: readonly WindowFeature[]): boolean {
  return features.includes('changes') || needsCenter(features);
}

/** Whether any is computed by way of the window less its mean. */
function needsCenter(features: readonly WindowFeature[]): boolean {
  return features.some((feature) => feature === 'mean' || feature === 'deviation' || feature === 'bands');
}

function addLast(graph: GraphBuilder, cleaned: string, window: number): string {
  return graph.node('last', 'Gather', [cleaned, graph.integers('last_row', [], [window - 1])], axis(1));
}

const axis = (at: number) => ({ axis: { int: at } });

/** The prepared columns that are means of a window: they are centered where they are made. */
function meanPlaces({ numeric, window, features, bands }: Preparation): number[] {
  if (window === null) return [];
  const ofOne = featureColumns({ window, features, bands });
  const place = ofOne.indexOf('mean');
  return place < 0 ? [] : numeric.map((_, input) => input * ofOne.length + place);
}

/** Sentinels and NaN are missing; missing ones are filled; then values are clipped, where any column is. */
function addCleaning(graph: GraphBuilder, numeric: readonly NumericCleaning[]): string {
  const constant = (name: string, of: (cleaning: NumericCleaning) => number): string =>
    graph.floats(name, [numeric.length], numeric.map(of));
  let missing = graph.node('is_nan', 'IsNaN', [inputNames.values]);
  const sentinels = Math.max(...numeric.map((cleaning) => cleaning.sentinels.length));
  for (let at = 0; at < sentinels; at += 1) {
    // A column with fewer sentinels has NaN here, which equals nothing.
    const sentinel = constant(`sentinel_${at + 1}`, (cleaning) => cleaning.sentinels[at] ?? Number.NaN);
    const is = graph.node(`is_sentinel_${at + 1}`, 'Equal', [inputNames.values, sentinel]);
    missing = graph.node(`is_missing_${at + 1}`, 'Or', [missing, is]);
  }
  const fill = constant('fill', (cleaning) => cleaning.fill);
  let cleaned = graph.node('fill_missing', 'Where', [missing, fill, inputNames.values]);
  if (numeric.some(({ low }) => low !== Number.NEGATIVE_INFINITY))
    cleaned = graph.node('clip_low', 'Max', [cleaned, constant('low', ({ low }) => low)]);
  if (numeric.some(({ high }) => high !== Number.POSITIVE_INFINITY))
    cleaned = graph.node('clip_high', 'Min', [cleaned, constant('high', ({ high }) => high)]);
  return cleaned;
}

/** One hot part [n, K] for each text column that has known texts. */
function addCategories(graph: GraphBuilder, columns: readonly CategoryCleaning[]): string[] {
  return columns.flatMap(({ categories }, at) => {
    if (categories.length === 0) return [];
    const name = `category_${at + 1}`;
    const column = graph.integers(`${name}_column`, [1], [at]);
    const text = graph.node(`${name}_text`, 'Gather', [inputNames.texts, column], axis(1));
    const places = categories.map((_, place) => place);
    const code = graph.node(
      `${name}_code`,
      'LabelEncoder',
      [text],
      { keys_strings: { strings: categories }, values_int64s: { ints: places }, default_int64: { int: -1 } },
      'ai.onnx.ml',
    );
    const known = graph.integers(`${name}_known`, [1, categories.length], places);
    const is = graph.node(`${name}_is`, 'Equal', [code, known]);
    return [graph.node(name, 'Cast', [is], { to: { int: 1 } })];
  });
}

/** FP32 [n, W, F] to [n, F · features], numeric column by numeric column. */
function addWindowFeatures(
  graph: GraphBuilder,
  { cleaned, last }: { cleaned: string; last: string | null },
  shape: Preparation & WindowShape,
): string {
  const { features } = shape;
  const columns = shape.numeric.length;
  const width = columns * featureColumns(shape).length;
  const off = last === null || !needsLast(features) ? null : addDifferences(graph, cleaned, last, columns);
  const center = off === null || !needsCenter(features) ? null : addCenter(graph, off);
  const parts = features.map((feature) => {
    if (feature === 'lags') return cleaned;
    if (feature === 'minimum') return graph.node('minimum', 'ReduceMin', [cleaned], perWindow);
    if (feature === 'maximum') return graph.node('maximum', 'ReduceMax', [cleaned], perWindow);
    if (feature === 'changes' && off !== null) return addChanges(graph, off.off, shape.window);
    if (center === null) throw new TypeError(`no center for ${feature}`);
    if (feature === 'mean') return addMean(graph, center, shape);
    if (feature === 'deviation') return addDeviation(graph, center.centered);
    return addBands(graph, center.centered, shape);
  });
  const byFeature = graph.join('window_features', parts);
  // From [n, features, F] to columns that stand together.
  const byColumn = graph.node('by_column', 'Transpose', [byFeature], { perm: { ints: [0, 2, 1] } });
  return graph.node('flat_features', 'Reshape', [byColumn, graph.integers('flat_shape', [2], [0, width])]);
}

const perWindow = { axes: { ints: [1] }, keepdims: { int: 1 } };

interface Differences {
  /** FP32 [n, 1, F]. */
  last: string;
  /** FP32 [n, W, F]: each value less the last one. */
  off: string;
}

function addDifferences(graph: GraphBuilder, cleaned: string, last: string, columns: number): Differences {
  const shape = graph.integers('last_shape', [3], [0, 1, columns]);
  const lastRow = graph.node('last_of_window', 'Reshape', [last, shape]);
  return { last: lastRow, off: graph.node('off_last', 'Sub', [cleaned, lastRow]) };
}

/** All but the last one, which is 0. */
function addChanges(graph: GraphBuilder, off: string, window: number): string {
  const bound = (name: string, at: number): string => graph.integers(name, [1], [at]);
  const bounds = [bound('changes_from', 0), bound('changes_to', window - 1), bound('changes_axis', 1)];
  return graph.node('changes', 'Slice', [off, ...bounds]);
}

/** The window less its mean, by way of differences to its last value (see featureWriter). */
function addCenter(graph: GraphBuilder, { last: lastRow, off }: Differences) {
  const meanOff = graph.node('mean_off_last', 'ReduceMean', [off], perWindow);
  const centered = graph.node('centered', 'Sub', [off, meanOff]);
  return { last: lastRow, meanOff, centered };
}

/** Centered before it is put together: far from 0, a mean in single precision has few digits left. */
function addMean(
  graph: GraphBuilder,
  { last, meanOff }: { last: string; meanOff: string },
  preparation: Preparation,
): string {
  const centers = meanPlaces(preparation).map((at) => preparation.center[at] as number);
  const offset = graph.floats('mean_center', [1, 1, centers.length], centers);
  return graph.node('centered_mean', 'Add', [graph.node('center_last', 'Sub', [last, offset]), meanOff]);
}

function addDeviation(graph: GraphBuilder, centered: string): string {
  const squares = graph.node('squares', 'Mul', [centered, centered]);
  const variance = graph.node('variance', 'ReduceMean', [squares], perWindow);
  return graph.node('deviation', 'Sqrt', [variance]);
}

/** Spectral energies [n, bands, F]: the transform and the sums over each band are products with constant matrices. */
function addBands(graph: GraphBuilder, centered: string, shape: WindowShape): string {
  const { frequencies, cosine, sine, bandOf } = spectrum(shape);
  const { window, bands } = shape;
  const transform = (name: string, turn: Float64Array): string => {
    const values = new Float32Array(frequencies * window);
    for (let frequency = 1; frequency <= frequencies; frequency += 1)
      for (let at = 0; at < window; at += 1)
        values[(frequency - 1) * window + at] = turn[(frequency * at) % window] as number;
    return graph.floats(name, [frequencies, window], values);
  };
  const squared = (name: string, turn: Float64Array): string => {
    const part = graph.node(`${name}_part`, 'MatMul', [transform(`${name}_matrix`, turn), centered]);
    return graph.node(`${name}_power`, 'Mul', [part, part]);
  };
  const power = graph.node('power', 'Add', [squared('cosine', cosine), squared('sine', sine)]);
  const sums = new Float32Array(bands * frequencies);
  for (const [at, band] of bandOf.entries()) sums[band * frequencies + at] = 1 / window ** 2;
  const summed = graph.floats('band_sums', [bands, frequencies], sums);
  return addLogOfOneMore(graph, graph.node('band_energy', 'MatMul', [summed, power]));
}

/**
 * ln(1 + e) without losing a small e: with u = 1 + e as it is rounded, ln(u) · e / (u − 1), and e where u is 1
 * (Goldberg: "What Every Computer Scientist Should Know About Floating-Point Arithmetic", 1991, theorem 4).
 */
function addLogOfOneMore(graph: GraphBuilder, energy: string): string {
  const one = graph.floats('one', [1], [1]);
  const more = graph.node('energy_and_one', 'Add', [energy, one]);
  const rounded = graph.node('energy_rounded', 'Sub', [more, one]);
  const isLost = graph.node('energy_lost', 'Equal', [rounded, graph.floats('nothing', [1], [0])]);
  const log = graph.node('log_rounded', 'Log', [more]);
  const ratio = graph.node('rounding_ratio', 'Div', [energy, rounded]);
  const corrected = graph.node('log_corrected', 'Mul', [log, ratio]);
  return graph.node('bands', 'Where', [isLost, energy, corrected]);
}
