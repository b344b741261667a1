// Why: fits how a column is normalised, without blowing up what is only rounding. Pure.
// Trusts: its caller's columns to hold numbers. Must never: return a scale that is no number.

import type { Matrix } from './matrix.ts';
import type { Recipe, WindowFeature } from './recipe.ts';

/** What is known of a column before it is fitted. */
export interface ColumnKind {
  /** A feature of a window, a value as it came, or whether a category is there. */
  kind: WindowFeature | 'value' | 'category';
  /** Of a feature: highest less lowest value of its input in all windows. */
  range: number;
}

/** Below this a spread is taken as none: its inverse would leave single precision. */
const spreadMin = 1e-30;
/** What single precision (24 bits) may add to a number by rounding on the way to it, as a part of the largest one. */
const roundingPart = 2 ** -22;
/** The same of the energy of a band, as a part of the largest energy of any band of that input. */
const leakagePart = 2 ** -30;

/**
 * Center and scale of each column, both rounded to single precision: `standard` mean and 1 / deviation; `min-max`
 * minimum and 1 / (maximum − minimum); `robust` median and 1 / interquartile range. A column that does not vary, or no
 * more than by rounding, keeps the scale 1: it is 0 where it is as it was. Categories stay 0 and 1.
 */
export function fitScaling(
  raw: Matrix,
  kinds: readonly ColumnKind[],
  bands: number,
  normalise: Recipe['normalise'],
): { center: Float64Array; scale: Float64Array } {
  const center = new Float64Array(raw.columns);
  const scale = new Float64Array(raw.columns).fill(1);
  const floors = noiseFloors(raw, kinds, bands);
  const column = new Float64Array(raw.rows);
  for (const [at, { kind }] of kinds.entries()) {
    if (kind === 'category' || raw.rows === 0) continue;
    for (let row = 0; row < raw.rows; row += 1) column[row] = raw.values[row * raw.columns + at] as number;
    const fitted = fits[normalise](column);
    center[at] = Math.fround(fitted.center);
    if (fitted.spread > (floors[at] as number)) scale[at] = Math.fround(1 / fitted.spread);
  }
  return { center, scale };
}

/** The spread up to which a column may vary by nothing but the graph's rounding. */
function noiseFloors(raw: Matrix, kinds: readonly ColumnKind[], bands: number): Float64Array {
  const largest = new Float64Array(raw.columns);
  for (let at = 0; at < raw.values.length; at += 1) {
    const column = at % raw.columns;
    largest[column] = Math.max(largest[column] as number, Math.abs(raw.values[at] as number));
  }
  const floors = new Float64Array(raw.columns).fill(spreadMin);
  for (const [at, { kind, range }] of kinds.entries()) {
    // Values, lags, changes and extremes are numbers as they came, or their differences: any difference between them is one.
    let noise = 0;
    if (kind === 'mean') noise = range * roundingPart;
    if (kind === 'deviation' || kind === 'bands') noise = (largest[at] as number) * roundingPart;
    floors[at] = Math.max(spreadMin, noise);
  }
  // What one band has too much or too little by rounding goes by what its neighbours have.
  const isStart = (at: number): boolean => kinds[at]?.kind === 'bands';
  for (let start = 0; start < kinds.length; start += isStart(start) ? bands : 1) {
    if (!isStart(start)) continue;
    const energyMax = Math.expm1(Math.max(...largest.subarray(start, start + bands)));
    for (let at = start; at < start + bands; at += 1)
      floors[at] = Math.max(floors[at] as number, energyMax * leakagePart);
  }
  return floors;
}

interface Fitted {
  center: number;
  spread: number;
}

/** Each may reorder the column it is given. */
const fits: Record<Recipe['normalise'], (column: Float64Array) => Fitted> = {
  standard(column) {
    // Differences to one value of the column: a column that does not vary has exactly that value as its mean.
    const first = column[0] as number;
    const mean = first + column.reduce((sum, value) => sum + (value - first), 0) / column.length;
    const squares = column.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return { center: mean, spread: Math.sqrt(squares / column.length) };
  },
  'min-max'(column) {
    const low = column.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
    const high = column.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    return { center: low, spread: high - low };
  },
  robust(column) {
    column.sort();
    return { center: quantile(column, 0.5), spread: quantile(column, 0.75) - quantile(column, 0.25) };
  },
};

/** Of sorted numbers, linear between neighbours (Hyndman and Fan, type 7; NumPy's default). */
function quantile(sorted: Float64Array, part: number): number {
  const place = (sorted.length - 1) * part;
  const below = Math.floor(place);
  const low = sorted[below] as number;
  const high = sorted[Math.min(below + 1, sorted.length - 1)] as number;
  return low + (high - low) * (place - below);
}
