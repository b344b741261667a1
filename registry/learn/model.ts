// Why: the parts of a trained model as they pass from one room to the next: what is done to raw values, the network, and
// what its outputs mean. Pure. Trusts: whoever fitted them on the training part alone.
// Must never: hold anything of the test part.

import type { Matrix } from './matrix.ts';
import type { Recipe, WindowFeature } from './recipe.ts';
import type { CategoryColumn, NumericColumn } from './table.ts';

/**
 * What is done to one numeric column, in this order: a value equal to a sentinel is missing; a missing value (NaN) is
 * replaced by `fill`; then it is clipped to [low, high] (±Infinity where outliers are kept).
 */
export interface NumericCleaning {
  name: string;
  sentinels: number[];
  low: number;
  high: number;
  fill: number;
}

/** The texts known of one column. Any other text, and a missing one, is none of them: all its columns are 0. */
export interface CategoryCleaning {
  name: string;
  categories: string[];
}

/**
 * Raw inputs as a device feeds them: of each example the rows at `at[i] - window + 1 … at[i]` of the columns.
 * `window` 1: single rows. Categories are used with single rows only.
 */
export interface Examples {
  numeric: NumericColumn[];
  categories: CategoryColumn[];
  at: Int32Array;
  window: number;
}

/** From raw inputs to what the network takes; fitted on the training part. */
export interface Preparation {
  numeric: NumericCleaning[];
  categories: CategoryCleaning[];
  /** Null: one row. */
  window: number | null;
  /** What is computed of each numeric column over the window; with no window the values themselves. */
  features: WindowFeature[];
  bands: number;
  normalise: Recipe['normalise'];
  /** Of the columns of the prepared matrix, in order; a column `(x − center) · scale`. */
  names: string[];
  center: Float64Array;
  scale: Float64Array;
}

/** One layer: `y = x · weights + bias`; the activation stands between layers. */
export interface Layer {
  inputs: number;
  outputs: number;
  /** Row-major, `inputs` × `outputs`. */
  weights: Float64Array;
  bias: Float64Array;
}

export interface Network {
  layers: Layer[];
  activation: Recipe['activation'];
  /** On the last layer: class probabilities, or the numbers themselves. */
  output: 'softmax' | 'identity';
}

/** What the network's outputs mean. */
export type Head =
  /** One output a class. Labels are all whole numbers or all texts. */
  | { kind: 'classes'; labels: number[] | string[] }
  /**
   * One output: value = output · scale + center, and where `carries` names a numeric input by its index, plus that
   * input's last (cleaned) value in the window: the network then predicts a change.
   */
  | { kind: 'value'; center: number; scale: number; carries: number | null }
  /** As many outputs as the network has inputs: it repeats what it is given. Score: mean squared difference / threshold. */
  | { kind: 'anomaly'; threshold: number };

export interface TrainedModel {
  preparation: Preparation;
  network: Network;
  head: Head;
}

/** What a model answers to examples, as its ONNX file does, in double precision. */
export type Answers =
  | { kind: 'classes'; probabilities: Matrix /** Index of the label. */; best: Int32Array }
  | { kind: 'value'; values: Float64Array }
  | { kind: 'anomaly' /** Above 1: an anomaly. */; scores: Float64Array };
