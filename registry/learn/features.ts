// Why: what is computed of a window of rows, column by column, and how its columns are called and ordered.
// Pure. Trusts: cleaned values. Must never: compute what the graph of conversion.ts computes differently.

import type { WindowFeature } from './recipe.ts';

export interface WindowShape {
  /** Rows in a window. */
  window: number;
  /** In the order of their columns. */
  features: readonly WindowFeature[];
  /** Of equal width in frequency, for `bands`. */
  bands: number;
}

/** How many columns one feature makes of one numeric column. */
function featureWidth(feature: WindowFeature, { window, bands }: WindowShape): number {
  if (feature === 'lags') return window;
  if (feature === 'changes') return window - 1;
  return feature === 'bands' ? bands : 1;
}

/** The feature behind each of the columns made of one numeric column. */
export function featureColumns(shape: WindowShape): WindowFeature[] {
  return shape.features.flatMap((feature) =>
    Array.from({ length: featureWidth(feature, shape) }, () => feature),
  );
}

/** Their names: `NAME[t-5]` … `NAME[t]`, `NAME[t-5]-[t]` …, `NAME.mean`, `NAME.deviation`, …, `NAME.band1` … */
export function featureNames(column: string, shape: WindowShape): string[] {
  return shape.features.flatMap((feature) => {
    if (feature === 'bands')
      return Array.from({ length: shape.bands }, (_, band) => `${column}.band${band + 1}`);
    if (feature === 'changes')
      return Array.from({ length: shape.window - 1 }, (_, at) => `${column}[t-${shape.window - 1 - at}]-[t]`);
    if (feature !== 'lags') return [`${column}.${feature}`];
    return Array.from({ length: shape.window }, (_, at) => {
      const back = shape.window - 1 - at;
      return back === 0 ? `${column}[t]` : `${column}[t-${back}]`;
    });
  });
}

export interface Spectrum {
  /** Highest frequency: this many periods in a window. */
  frequencies: number;
  /** cos and sin of 2π · k / window, by k. */
  cosine: Float64Array;
  sine: Float64Array;
  /** The band of frequency k at `k − 1`. */
  bandOf: Int32Array;
}

/**
 * Frequencies 1 … floor(window / 2) of the discrete Fourier transform, in periods a window, in bands of equal width.
 * More bands than frequencies leave some empty.
 */
export function spectrum({ window, bands }: WindowShape): Spectrum {
  const frequencies = Math.floor(window / 2);
  return {
    frequencies,
    cosine: Float64Array.from({ length: window }, (_, at) => Math.cos((2 * Math.PI * at) / window)),
    sine: Float64Array.from({ length: window }, (_, at) => Math.sin((2 * Math.PI * at) / window)),
    bandOf: Int32Array.from({ length: frequencies }, (_, at) => Math.floor((at * bands) / frequencies)),
  };
}

/** Writes the features of the window that ends with row `end` of a column to `into` from `start` on. */
export type FeatureWriter = (values: Float64Array, end: number, into: Float64Array, start: number) => void;

/**
 * Features of one column's window x of W values:
 * `lags` its values, oldest first; `changes` those but the last, each less the last; `mean`; `deviation` of the population, √(Σ(x − mean)² / W); `minimum`; `maximum`;
 * `bands` ln(1 + e), where e is the sum of |X_k|² / W² over the band's frequencies and X the one-sided discrete Fourier
 * transform of x − mean (no doubling of frequencies below the highest). A sine of amplitude A with a whole number of
 * periods below W/2 has e = A² / 4.
 *
 * Mean and deviations are taken from differences to the last value, so that a column far from 0 keeps its digits in
 * the graph's single precision (Chan, Golub, LeVeque: "Algorithms for Computing the Sample Variance", 1983).
 */
export function featureWriter(shape: WindowShape): FeatureWriter {
  const { window, features } = shape;
  const centered = new Float64Array(window);
  const spectral = spectrum(shape);
  return (values, end, into, start) => {
    const first = end - window + 1;
    const mean = center(values, first, centered);
    let at = start;
    for (const feature of features) {
      if (feature === 'lags') into.set(values.subarray(first, end + 1), at);
      else if (feature === 'changes') writeChanges(values, first, end, into, at);
      else if (feature === 'mean') into[at] = mean;
      else if (feature === 'deviation') into[at] = rootMeanSquare(centered);
      else if (feature === 'minimum') into[at] = lowest(values, first, end);
      else if (feature === 'maximum') into[at] = highest(values, first, end);
      else writeBands(centered, spectral, into.subarray(at, at + shape.bands));
      at += featureWidth(feature, shape);
    }
  };
}

/** Fills `centered` with the window's values less their mean, which is returned. */
function center(values: Float64Array, first: number, centered: Float64Array): number {
  const last = values[first + centered.length - 1] as number;
  let sum = 0;
  for (let at = 0; at < centered.length; at += 1) {
    const off = (values[first + at] as number) - last;
    centered[at] = off;
    sum += off;
  }
  const meanOff = sum / centered.length;
  for (let at = 0; at < centered.length; at += 1) centered[at] = (centered[at] as number) - meanOff;
  return last + meanOff;
}

function writeChanges(
  values: Float64Array,
  first: number,
  end: number,
  into: Float64Array,
  start: number,
): void {
  const last = values[end] as number;
  for (let row = first; row < end; row += 1) into[start + row - first] = (values[row] as number) - last;
}

function rootMeanSquare(centered: Float64Array): number {
  let sum = 0;
  for (let at = 0; at < centered.length; at += 1) sum += (centered[at] as number) ** 2;
  return Math.sqrt(sum / centered.length);
}

function lowest(values: Float64Array, first: number, end: number): number {
  let found = values[first] as number;
  for (let at = first + 1; at <= end; at += 1) found = Math.min(found, values[at] as number);
  return found;
}

function highest(values: Float64Array, first: number, end: number): number {
  let found = values[first] as number;
  for (let at = first + 1; at <= end; at += 1) found = Math.max(found, values[at] as number);
  return found;
}

/** `into`: one number a band. */
function writeBands(centered: Float64Array, spectral: Spectrum, into: Float64Array): void {
  const { frequencies, cosine, sine, bandOf } = spectral;
  const window = centered.length;
  into.fill(0);
  for (let frequency = 1; frequency <= frequencies; frequency += 1) {
    let real = 0;
    let imaginary = 0;
    // The angle's step, taken modulo a full turn: a table of one turn serves every frequency.
    let turn = 0;
    for (let at = 0; at < window; at += 1) {
      const value = centered[at] as number;
      real += value * (cosine[turn] as number);
      imaginary += value * (sine[turn] as number);
      turn += frequency;
      if (turn >= window) turn -= window;
    }
    const band = bandOf[frequency - 1] as number;
    into[band] = (into[band] as number) + (real * real + imaginary * imaginary) / window ** 2;
  }
  for (let band = 0; band < into.length; band += 1) into[band] = Math.log1p(into[band] as number);
}
