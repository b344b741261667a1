// Why: how good a model is, in the field's own measures. Pure. Trusts: its callers for which truth belongs to which
// answer. Must never: make an undefined measure look earned: where there is nothing to divide by, it says so.

import { invariant } from '../../shared/kernel/errors.ts';
import { log } from './elementary.ts';
import type { Matrix } from './matrix.ts';

export type ClassMeasure = 'precision' | 'recall' | 'f1';

export interface ClassMetrics {
  /** True positives over predicted ones. */
  precision: number;
  /** True positives over the class's examples. */
  recall: number;
  /** 2 · precision · recall / (precision + recall). */
  f1: number;
  /** Examples of the class. */
  support: number;
  /** Measures that have nothing to divide by; they stand as 0. F1 is 0, not undefined, where examples were all missed. */
  undefinedMeasures: ClassMeasure[];
}

export interface ClassificationMetrics {
  /** Row: the true class, column: the predicted one. */
  confusion: number[][];
  accuracy: number;
  perClass: ClassMetrics[];
  /** Mean over all classes, each as important as the other; what is undefined goes in as 0, as in scikit-learn. */
  macro: Record<ClassMeasure, number>;
  /** Of two classes those of index 1; null for more. */
  positive: ClassMetrics | null;
}

/** Examples by true class (row) and predicted class (column). */
export function confusion(truth: Int32Array, predicted: Int32Array, classes: number): number[][] {
  invariant(truth.length === predicted.length, 'there is one prediction an example');
  const counts = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (let at = 0; at < truth.length; at += 1) {
    const row = counts[truth[at] as number];
    const column = predicted[at] as number;
    const count = row?.[column];
    invariant(
      row !== undefined && count !== undefined,
      `class ${truth[at]} or ${column} is none of ${classes}`,
    );
    row[column] = count + 1;
  }
  return counts;
}

function classMetrics(counts: readonly (readonly number[])[], index: number): ClassMetrics {
  const right = counts[index]?.[index] ?? 0;
  const support = counts[index]?.reduce((sum, count) => sum + count, 0) ?? 0;
  const predicted = counts.reduce((sum, row) => sum + (row[index] ?? 0), 0);
  const undefinedMeasures: ClassMeasure[] = [];
  const ratio = (name: ClassMeasure, part: number, whole: number): number => {
    if (whole !== 0) return part / whole;
    undefinedMeasures.push(name);
    return 0;
  };
  return {
    precision: ratio('precision', right, predicted),
    recall: ratio('recall', right, support),
    // The same as by precision and recall, and defined as their limit where both are 0.
    f1: ratio('f1', 2 * right, predicted + support),
    support,
    undefinedMeasures,
  };
}

/** Of class indexes, at least one example. */
export function classificationMetrics(
  truth: Int32Array,
  predicted: Int32Array,
  classes: number,
): ClassificationMetrics {
  invariant(truth.length > 0, 'there is at least one example');
  const counts = confusion(truth, predicted, classes);
  const perClass = counts.map((_, index) => classMetrics(counts, index));
  const right = counts.reduce((sum, row, index) => sum + (row[index] ?? 0), 0);
  const mean = (name: ClassMeasure): number =>
    perClass.reduce((sum, one) => sum + one[name], 0) / perClass.length;
  return {
    confusion: counts,
    accuracy: right / truth.length,
    perClass,
    macro: { precision: mean('precision'), recall: mean('recall'), f1: mean('f1') },
    positive: classes === 2 ? (perClass[1] ?? null) : null,
  };
}

/** Index of the greatest of `count` values from `from` on, the first of equal ones, counted from 0. */
export function bestOf(values: Float64Array, from: number, count: number): number {
  let best = 0;
  for (let index = 1; index < count; index += 1)
    if ((values[from + index] as number) > (values[from + best] as number)) best = index;
  return best;
}

/** The class of the greatest probability of each row. */
export function bestClasses({ rows, columns, values }: Matrix): Int32Array {
  const best = new Int32Array(rows);
  for (let row = 0; row < rows; row += 1) best[row] = bestOf(values, row * columns, columns);
  return best;
}

/**
 * Area under the receiver operating characteristic: the chance that a positive example (1) scores higher than a
 * negative one (0), a tie counting half (Mann, Whitney 1947; Hanley, McNeil 1982). Null where one of both is missing.
 */
export function rocAuc(truth: Int32Array, scores: Float64Array): number | null {
  invariant(truth.length === scores.length, 'there is one score an example');
  const order = new Uint32Array(scores.length);
  for (let at = 0; at < order.length; at += 1) {
    invariant(!Number.isNaN(scores[at]), 'a score is a number');
    order[at] = at;
  }
  order.sort((a, b) => {
    const [left, right] = [scores[a] as number, scores[b] as number];
    return left < right ? -1 : left > right ? 1 : 0;
  });
  let positives = 0;
  /** Twice the ranks of the positive ones, so that mean ranks of ties stay whole numbers. */
  let ranksTwice = 0;
  for (let from = 0; from < order.length; ) {
    const score = scores[order[from] as number];
    let to = from;
    let tied = 0;
    for (; to < order.length && scores[order[to] as number] === score; to += 1)
      if (truth[order[to] as number] === 1) tied += 1;
    positives += tied;
    ranksTwice += tied * (from + 1 + to);
    from = to;
  }
  const negatives = order.length - positives;
  if (positives === 0 || negatives === 0) return null;
  return (ranksTwice - positives * (positives + 1)) / (2 * positives * negatives);
}

/**
 * `rocAuc` of class probabilities, rows × classes: of two classes that of index 1; of more each class against the
 * rest, averaged over the classes for which it is defined. Null where there is none.
 */
export function classesAuc(truth: Int32Array, probabilities: Matrix): number | null {
  const { rows, columns, values } = probabilities;
  const against = columns === 2 ? [1] : Array.from({ length: columns }, (_, index) => index);
  const areas = against.flatMap((index) => {
    const scores = new Float64Array(rows);
    for (let row = 0; row < rows; row += 1) scores[row] = values[row * columns + index] as number;
    return (
      rocAuc(
        truth.map((one) => (one === index ? 1 : 0)),
        scores,
      ) ?? []
    );
  });
  return areas.length === 0 ? null : areas.reduce((sum, area) => sum + area, 0) / areas.length;
}

/**
 * Mean of −ln p of the true class, in nats, at least one example. Probabilities are raised to 2⁻⁵², as scikit-learn
 * does it: one that is 0 by rounding would make the mean infinite.
 */
export function logLoss(truth: Int32Array, { rows, columns, values }: Matrix): number {
  invariant(truth.length === rows && rows > 0, 'there is one row of probabilities an example');
  let sum = 0;
  for (let row = 0; row < rows; row += 1) {
    const chance = values[row * columns + (truth[row] as number)];
    invariant(chance !== undefined, 'a true class is one of the columns');
    sum -= log(Math.max(chance, Number.EPSILON));
  }
  return sum / rows;
}

export interface RegressionMetrics {
  /** Mean absolute error, in the target's unit. */
  mae: number;
  /** Root of the mean squared error, in the target's unit. */
  rmse: number;
  /** 1 − squared errors over squared deviations from the mean; null where the truth does not vary. */
  r2: number | null;
}

/** Of at least one example. */
export function regressionMetrics(truth: Float64Array, predicted: Float64Array): RegressionMetrics {
  const count = truth.length;
  invariant(count > 0 && count === predicted.length, 'there is one prediction an example');
  let [absolute, squared, mean] = [0, 0, 0];
  let varies = false;
  for (let at = 0; at < count; at += 1) {
    const difference = (predicted[at] as number) - (truth[at] as number);
    absolute += Math.abs(difference);
    squared += difference * difference;
    mean += ((truth[at] as number) - mean) / (at + 1);
    if (truth[at] !== truth[0]) varies = true;
  }
  let spread = 0;
  for (const value of truth) spread += (value - mean) ** 2;
  // A constant's deviations from its computed mean may be rounding errors, which are no variance.
  const r2 = varies && spread > 0 ? 1 - squared / spread : null;
  return { mae: absolute / count, rmse: Math.sqrt(squared / count), r2 };
}

/**
 * 1 − MSE of the model / MSE of a naive answer (Murphy 1988), from their roots: 1 is perfect, 0 no better than the naive
 * answer, below 0 worse. R² is the same against the mean. Null where the naive answer is perfect.
 */
export function skill(rmseModel: number, rmseNaive: number): number | null {
  return rmseNaive === 0 ? null : 1 - (rmseModel / rmseNaive) ** 2;
}
