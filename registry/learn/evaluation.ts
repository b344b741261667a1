// Why: what answers are worth against the truth, beside a guess that needs no model: the most frequent class, the mean,
// the last value, the value of a day or a week before. Pure.
// Trusts: truth and answers of the same rows. Must never: show a model's number without the naive one.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type ClassMetrics,
  classesAuc,
  classificationMetrics,
  logLoss,
  type RegressionMetrics,
  regressionMetrics,
  rocAuc,
  skill,
} from './metrics.ts';
import type { Answers } from './model.ts';
import type { Recipe } from './recipe.ts';
import { labelRuns, type WindowMetrics, windowMetrics } from './window-metrics.ts';

export interface ClassificationMetrics {
  task: 'classification';
  rows: number;
  accuracy: number;
  /** Of the class `positive` where there are two, else the mean over the classes. */
  precision: number;
  recall: number;
  f1: number;
  positive: number | string | null;
  /** Null where the answers have no probabilities or one class alone is there. */
  rocAuc: number | null;
  logLoss: number | null;
  classes: ({ label: number | string } & Pick<ClassMetrics, 'support' | 'precision' | 'recall' | 'f1'>)[];
  /** Row by row the true class, its columns what was answered. */
  confusion: number[][];
  /** Rows whose true class the model does not know: counted as wrong. */
  unknownClass: number;
  baseline: { name: string; accuracy: number };
}

export interface ValueMetrics extends RegressionMetrics {
  task: 'regression' | 'forecast';
  rows: number;
  /** Naive guesses, the best first. */
  baselines: ({ name: string } & RegressionMetrics)[];
  /** 1 − (RMSE / RMSE of the best naive guess)²; null where that is never wrong. */
  skill: number | null;
}

export interface AnomalyMetrics {
  task: 'anomaly';
  rows: number;
  rocAuc: number | null;
  /** Of single rows. */
  precision: number;
  recall: number;
  f1: number;
  windows: WindowMetrics;
  baseline: { name: string; f1: number; rocAuc: number };
}

export type Metrics = ClassificationMetrics | ValueMetrics | AnomalyMetrics;

export interface Measured {
  task: Recipe['task'];
  /** Of each row; of classes the place among `labels`, −1 where it is none of them. */
  truth: Float64Array;
  answers: Answers;
  labels: number[] | string[] | null;
  /** The target of every row of the table, tested or not, and of each tested row its place there (of windows the last). */
  series: Float64Array;
  at: Int32Array;
  /** How many rows after `at` the truth stands. */
  reach: number;
  /** Milliseconds between rows as a rule; null: rows have no order. */
  stepMs: number | null;
  /** The truth of the rows that were trained on: what a naive guess may know. Empty: the tested rows themselves. */
  trainedOn: Float64Array;
}

/** Refusal: `data-unfit` where truth and answers are not of one kind. */
export function measure(parts: Measured): Result<Metrics> {
  const { answers, labels } = parts;
  if (parts.truth.length === 0) return refuse('data-unfit', 'no row is left to measure');
  if (answers.kind === 'classes' && labels !== null) {
    if (parts.truth.every((value) => value < 0))
      return refuse(
        'data-unfit',
        `of no row is the true class one that the model knows (${labels.slice(0, 8).join(', ')})`,
      );
    return ok(classification(parts, answers, labels));
  }
  if (answers.kind === 'value' && (parts.task === 'regression' || parts.task === 'forecast'))
    return ok(values(parts, parts.task, answers.values));
  if (answers.kind === 'anomaly' && parts.task === 'anomaly') return ok(anomalies(parts, answers.scores));
  return refuse(
    'data-unfit',
    `the model answers with ${answers.kind}, which says nothing about a ${parts.task}`,
  );
}

function mostFrequent(truth: Float64Array): number {
  const counts = new Map<number, number>();
  for (const value of truth) counts.set(value, (counts.get(value) ?? 0) + 1);
  let best = truth[0] ?? 0;
  for (const [value, count] of counts) if (count > (counts.get(best) ?? 0)) best = value;
  return best;
}

function classification(
  { truth, trainedOn }: Measured,
  { probabilities, best }: Extract<Answers, { kind: 'classes' }>,
  labels: number[] | string[],
): ClassificationMetrics {
  const classes = labels.length;
  const known = Int32Array.from(truth).map((value) => (value >= 0 && value < classes ? value : -1));
  const rows = Int32Array.from([...known.keys()].filter((row) => (known[row] as number) >= 0));
  const unknownClass = known.length - rows.length;
  const picked = Int32Array.from(rows, (row) => known[row] as number);
  const guessed = Int32Array.from(rows, (row) => best[row] as number);
  const { confusion, accuracy, perClass, macro, positive } = classificationMetrics(picked, guessed, classes);
  const shares =
    probabilities.columns === classes
      ? { rows: rows.length, columns: classes, values: flat(rows, probabilities.values, classes) }
      : null;
  const guess = mostFrequent(trainedOn.length === 0 ? truth : trainedOn);
  return {
    task: 'classification',
    rows: known.length,
    // Of a class that the model does not know it cannot be right.
    accuracy: (accuracy * rows.length) / known.length,
    precision: (positive ?? macro).precision,
    recall: (positive ?? macro).recall,
    f1: (positive ?? macro).f1,
    positive: positive === null ? null : (labels[1] ?? null),
    rocAuc: shares === null ? null : classesAuc(picked, shares),
    logLoss: shares === null ? null : logLoss(picked, shares),
    classes: perClass.map(({ support, precision, recall, f1 }, index) => ({
      label: labels[index] ?? index,
      support,
      precision,
      recall,
      f1,
    })),
    confusion,
    unknownClass,
    baseline: {
      name: 'the most frequent class',
      accuracy: truth.reduce((sum, value) => sum + (value === guess ? 1 : 0), 0) / Math.max(1, truth.length),
    },
  };
}

function flat(rows: Int32Array, values: Float64Array, columns: number): Float64Array {
  const made = new Float64Array(rows.length * columns);
  for (let at = 0; at < rows.length; at += 1) {
    const from = (rows[at] as number) * columns;
    made.set(values.subarray(from, from + columns), at * columns);
  }
  return made;
}

const dayMs = 86_400_000;

/** What is known at `row` of the value `reach` rows on: the one that stands a whole number of periods before it. */
function before(series: Float64Array, row: number, reach: number, period: number): number {
  for (let at = row + reach - Math.ceil(reach / period) * period; at >= 0; at -= period) {
    const value = series[at] as number;
    if (!Number.isNaN(value)) return value;
  }
  return Number.NaN;
}

function naiveGuesses({
  series,
  at,
  reach,
  stepMs,
  truth,
  trainedOn,
  task,
}: Measured): { name: string; values: Float64Array }[] {
  const known = trainedOn.length === 0 ? truth : trainedOn;
  const mean = known.reduce((sum, value) => sum + value, 0) / Math.max(1, known.length);
  const of = trainedOn.length === 0 ? 'rows that are tested' : 'training part';
  const guesses = [{ name: `the mean of the ${of}`, values: truth.map(() => mean) }];
  if (task !== 'forecast') return guesses;
  const periods: [string, number][] = [['the last value', 1]];
  if (stepMs !== null && stepMs > 0) {
    for (const [name, ms] of [
      ['the value a day before', dayMs],
      ['the value a week before', 7 * dayMs],
      ['the value a year before', 364 * dayMs],
    ] as const) {
      const period = Math.round(ms / stepMs);
      if (period > 1 && period * 2 < series.length && Math.abs(period * stepMs - ms) < stepMs)
        periods.push([name, period]);
    }
  }
  for (const [name, period] of periods) {
    // Where the series does not reach back so far, the mean is all that is known.
    const values = Float64Array.from(at, (row) => {
      const value = before(series, row, reach, period);
      return Number.isNaN(value) ? mean : value;
    });
    guesses.push({ name, values });
  }
  return guesses;
}

function values(parts: Measured, task: ValueMetrics['task'], predicted: Float64Array): ValueMetrics {
  const own = regressionMetrics(parts.truth, predicted);
  const baselines = naiveGuesses(parts).map(({ name, values: guess }) => ({
    name,
    ...regressionMetrics(parts.truth, guess),
  }));
  baselines.sort((a, b) => a.rmse - b.rmse);
  return {
    task,
    rows: parts.truth.length,
    ...own,
    baselines,
    skill: skill(own.rmse, baselines[0]?.rmse ?? 0),
  };
}

/** Rows without a flag that do not end an alarm: a person is called once. */
const alarmGap = 10;

function anomalies({ truth }: Measured, scores: Float64Array): AnomalyMetrics {
  const labels = Int32Array.from(truth);
  const flagged = Int32Array.from(scores, (score) => (score > 1 ? 1 : 0));
  const { positive: point } = classificationMetrics(labels, flagged, 2);
  const rows = [...flagged.keys()].filter((row) => flagged[row] === 1);
  return {
    task: 'anomaly',
    rows: truth.length,
    rocAuc: rocAuc(labels, scores),
    precision: point?.precision ?? 0,
    recall: point?.recall ?? 0,
    f1: point?.f1 ?? 0,
    windows: windowMetrics(labelRuns(labels), rows, alarmGap),
    baseline: { name: 'never an anomaly', f1: 0, rocAuc: 0.5 },
  };
}
