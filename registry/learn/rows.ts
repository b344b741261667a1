// Why: which rows train, validate and test a model: by time where there is time, else drawn by the seed, each class in
// its share. Pure. Trusts: columns of one table. Must never: train on a row that is tested on, or on its future.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { createRandom } from './random.ts';
import type { Recipe } from './recipe.ts';
import type { TimeColumn } from './table.ts';

/** Of the part that is trained on, so much validates where training may end early. */
const validationShare = 0.1;
/** Fewer rows show nothing. */
const rowsMin = 10;

export interface Split {
  /** Rows (of windows the last ones) with a target, in order. */
  train: Int32Array;
  validation: Int32Array;
  test: Int32Array;
  /** Rows that statistics may be fitted on: all of the training part, with a target or without. */
  fitted: Int32Array;
  byTime: boolean;
}

/** The rows in the order of time; those without a time are left out. Null: the order of the file. */
export function inOrder(rows: number, time: TimeColumn | null): { order: Int32Array; untimed: number } {
  const all = Int32Array.from({ length: rows }, (_, row) => row);
  if (time === null) return { order: all, untimed: 0 };
  const { values } = time;
  const order = all.filter((row) => !Number.isNaN(values[row] as number));
  // Equal times keep the order of the file.
  order.sort((a, b) => (values[a] as number) - (values[b] as number) || a - b);
  return { order, untimed: rows - order.length };
}

/** Steps of time that are longer than half as long again as the usual one: windows reach over them. */
export function gapsOf({ values }: TimeColumn): { gaps: number; stepMs: number } {
  const steps = new Float64Array(Math.max(0, values.length - 1));
  for (let row = 1; row < values.length; row += 1)
    steps[row - 1] = (values[row] as number) - (values[row - 1] as number);
  const sorted = steps.slice().sort();
  const stepMs = sorted[sorted.length >> 1] ?? 0;
  return { gaps: steps.filter((step) => step > 1.5 * stepMs).length, stepMs };
}

/** Whether the last row of a window can be one of an example: with a whole window before it and a target after it. */
export function isExample(row: number, rows: number, { window, horizon, task }: Recipe): boolean {
  return row >= (window ?? 1) - 1 && row + ahead(task, horizon) < rows;
}

/** How many rows after the last one of a window its target stands. */
export const ahead = (task: Recipe['task'], horizon: number): number => (task === 'forecast' ? horizon : 0);

/**
 * By time: the first part trains, and nothing of it looks into the rest. `truth` is NaN where a row has no target;
 * `classes`: of each row, −1 where it has none. Refusal: `data-unfit` where too little is left.
 */
export function splitRows(parts: {
  recipe: Recipe;
  rows: number;
  byTime: boolean;
  truth: Float64Array;
  /** Labels by which each class is drawn in its share; null: no classes. */
  classes: Int32Array | null;
}): Result<Split> {
  const { recipe, rows, byTime, truth } = parts;
  const { split, patience } = recipe;
  const reach = ahead(recipe.task, recipe.horizon);
  const usable = (row: number): boolean =>
    isExample(row, rows, recipe) && !Number.isNaN(truth[row + reach] as number);
  const all = Int32Array.from({ length: rows }, (_, row) => row);
  let result: Split;
  if (byTime) {
    const cut = Math.floor(rows * split);
    const begun = patience === null ? cut : Math.floor(cut * (1 - validationShare));
    const between = (from: number, until: number): Int32Array =>
      all.filter((row) => row >= from && row + reach < until && usable(row));
    result = {
      train: between(0, begun),
      validation: between(begun, cut),
      test: between(cut, rows),
      fitted: all.slice(0, cut),
      byTime,
    };
  } else result = drawn(recipe, all.filter(usable), parts.classes);
  const { train, test } = result;
  if (train.length < rowsMin || test.length < 2)
    return refuse(
      'data-unfit',
      `${train.length} rows are left to train on and ${test.length} to test on, of ${rows}; at least ${rowsMin} and 2 are needed`,
    );
  return ok(result);
}

function drawn(recipe: Recipe, rows: Int32Array, classes: Int32Array | null): Split {
  const random = createRandom(recipe.seed);
  const groups = new Map<number, number[]>();
  for (const row of rows) {
    const group = classes?.[row] ?? 0;
    const members = groups.get(group) ?? [];
    members.push(row);
    groups.set(group, members);
  }
  const parts = { train: [] as Int32Array[], validation: [] as Int32Array[], test: [] as Int32Array[] };
  for (const [, members] of [...groups].sort(([a], [b]) => a - b)) {
    const order = Int32Array.from(members);
    random.shuffle(order);
    const tested = order.length - Math.round(order.length * recipe.split);
    const trained = order.length - tested;
    const validated = recipe.patience === null ? 0 : Math.round(trained * validationShare);
    parts.test.push(order.subarray(0, tested));
    parts.validation.push(order.subarray(tested, tested + validated));
    parts.train.push(order.subarray(tested + validated));
  }
  const [train, validation] = [sorted(parts.train), sorted(parts.validation)];
  return { train, validation, test: sorted(parts.test), fitted: sorted([train, validation]), byTime: false };
}

/** At most so many of the rows, in their order, evenly spaced. */
export function spaced(rows: Int32Array, most: number): Int32Array {
  const count = Math.min(rows.length, Math.max(1, most));
  return Int32Array.from(
    { length: count },
    (_, at) => rows[Math.floor((at * rows.length) / count)] as number,
  );
}

/** All of them in one, rising: not by arguments of a call, of which there may be millions. */
function sorted(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all.sort();
}
