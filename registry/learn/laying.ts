// Why: a table laid out for one task: its columns in order of time, what is true of each row, and which rows train and
// test; the same for whoever trains and for whoever evaluates later. Pure.
// Trusts: a table that was read. Must never: drop a row without counting it.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Chosen, chooseColumns } from './choosing.ts';
import { dropDuplicates, findSentinels, type Sentinel } from './cleaning.ts';
import type { Recipe } from './recipe.ts';
import { ahead, gapsOf, inOrder, isExample, type Split, splitRows } from './rows.ts';
import { type CategoryColumn, type Column, type NumericColumn, selectRows, type Table } from './table.ts';

export interface Laid {
  /** The rows that are used, in order. */
  table: Table;
  chosen: Chosen;
  rows: number;
  /** Of each row its target, sentinels left out; of classes the place among `labels`. NaN: none. */
  truth: Float64Array;
  /** Of classification. Sorted: numbers by size, texts by code point. */
  labels: number[] | string[] | null;
  split: Split;
  sentinels: Map<string, Sentinel[]>;
  dropped: { duplicates: number; withoutTime: number; withoutTarget: number };
  /** Steps of time that are longer than usual; null without time. */
  gaps: number | null;
  /** Milliseconds between two rows as a rule; null without time. */
  stepMs: number | null;
}

const isIdentity = (order: Int32Array, rows: number): boolean =>
  order.length === rows && order.every((row, at) => row === at);

function truthOf(column: NumericColumn | CategoryColumn, sentinels: readonly number[]): Float64Array {
  if (column.kind === 'category')
    return Float64Array.from(column.codes, (code) => (code < 0 ? Number.NaN : code));
  return column.values.map((value) => (sentinels.includes(value) ? Number.NaN : value));
}

/** Classes in an order of their own, and each row's place in it. */
function classesOf(
  column: NumericColumn | CategoryColumn,
  truth: Float64Array,
): Result<{ labels: number[] | string[]; truth: Float64Array }> {
  const kinds = new Set<number>();
  for (const value of truth) if (!Number.isNaN(value)) kinds.add(value);
  if (kinds.size < 2) {
    const only = column.kind === 'category' ? column.categories[[...kinds][0] ?? 0] : [...kinds][0];
    return refuse(
      'data-unfit',
      kinds.size === 0
        ? `the target ${column.name} has no value in any row`
        : `the target ${column.name} is ${JSON.stringify(only)} in every row; a classifier needs two classes`,
    );
  }
  if (kinds.size > 1_000)
    return refuse('data-unfit', `the target ${column.name} has ${kinds.size} classes; use --task regression`);
  const values = [...kinds];
  if (column.kind === 'category') {
    const text = (code: number): string => column.categories[code] ?? '';
    values.sort((a, b) => (text(a) < text(b) ? -1 : 1));
  } else {
    const odd = values.find((value) => !Number.isInteger(value));
    if (odd !== undefined)
      return refuse(
        'data-malformed',
        `the target ${column.name} holds ${odd}; classes are whole numbers or texts`,
      );
    values.sort((a, b) => a - b);
  }
  const placeOf = new Map(values.map((value, place) => [value, place]));
  return ok({
    labels: column.kind === 'category' ? values.map((code) => column.categories[code] ?? '') : values,
    truth: truth.map((value) => placeOf.get(value) ?? Number.NaN),
  });
}

/** Anomalies are labelled 0 and 1. */
function labelled(column: NumericColumn | CategoryColumn, truth: Float64Array): Result<void> {
  const odd = truth.find((value) => !Number.isNaN(value) && value !== 0 && value !== 1);
  if (odd === undefined) return ok();
  return refuse('data-malformed', `the target ${column.name} holds ${odd}; anomalies are labelled 0 and 1`);
}

/** The columns that were chosen, of a table with other rows: what a column is good for was decided on all of them. */
function sameColumns({ numeric, categories, target, time, left }: Chosen, table: Table): Chosen {
  const found = new Map(table.columns.map((column) => [column.name, column]));
  const again = <T extends Column>(column: T): T => (found.get(column.name) ?? column) as T;
  return {
    numeric: numeric.map(again),
    categories: categories.map(again),
    target: again(target),
    time: time === null ? null : again(time),
    left,
  };
}

/** Refusals: those of `chooseColumns` and `splitRows`, and `data-unfit` where the target says nothing. */
export function layOut(table: Table, recipe: Recipe): Result<Laid> {
  const first = chooseColumns(table, recipe);
  if (!first.ok) return first;
  const isSeries = recipe.window !== null;
  // A row that stands twice in a series is a measurement that did not change.
  const kept = recipe.duplicates === 'drop' && !isSeries ? dropDuplicates(table) : null;
  const distinct = kept === null || kept.dropped === 0 ? table : selectRows(table, kept.kept);
  const timeName = first.value.time?.name ?? null;
  const time = distinct.columns.find(({ name }) => name === timeName);
  const { order, untimed } = inOrder(distinct.rows, time?.kind === 'time' ? time : null);
  const laid = isIdentity(order, distinct.rows) ? distinct : selectRows(distinct, order);
  const chosen = laid === table ? first.value : sameColumns(first.value, laid);
  const { target } = chosen;
  const sentinels = findSentinels(laid, recipe.sentinels);
  const raw = truthOf(
    target,
    (sentinels.get(target.name) ?? []).map(({ value }) => value),
  );
  const classes = recipe.task === 'classification' ? classesOf(target, raw) : null;
  if (classes?.ok === false) return classes;
  if (recipe.task === 'anomaly') {
    const good = labelled(target, raw);
    if (!good.ok) return good;
  }
  const truth = classes === null ? raw : classes.value.truth;
  if (truth.every(Number.isNaN))
    return refuse('data-unfit', `the target ${target.name} has no value in any row`);
  const split = splitRows({
    recipe,
    rows: laid.rows,
    byTime: isSeries || chosen.time !== null,
    truth,
    classes: classes === null ? null : Int32Array.from(truth, (value) => (Number.isNaN(value) ? -1 : value)),
  });
  if (!split.ok) return split;
  const steps = chosen.time === null ? null : gapsOf(chosen.time);
  return ok({
    table: laid,
    chosen,
    rows: laid.rows,
    truth,
    labels: classes === null ? null : classes.value.labels,
    split: split.value,
    sentinels,
    dropped: {
      duplicates: kept?.dropped ?? 0,
      withoutTime: untimed,
      withoutTarget: truth.reduce((sum, value) => sum + (Number.isNaN(value) ? 1 : 0), 0),
    },
    gaps: steps?.gaps ?? null,
    stepMs: steps?.stepMs ?? null,
  });
}

/** What was left out beyond what the cleaning report counts, and why, in lines for people. */
export function layingText({ chosen, sentinels, dropped, gaps }: Laid): string[] {
  const { target, left } = chosen;
  const ofTarget = (sentinels.get(target.name) ?? []).map(
    ({ value, count }) => `${value} stands for missing in the target ${target.name}: ${count}`,
  );
  return [
    ...ofTarget,
    ...(dropped.withoutTime === 0 ? [] : [`${dropped.withoutTime} rows without a time dropped`]),
    ...(gaps === null || gaps === 0 ? [] : [`${gaps} steps in time are longer than usual`]),
    ...left.map(({ name, why }) => `not used: ${name} (${why})`),
  ];
}

/** Every row that can be asked about, and has an answer: of windows the last ones. */
export function allExamples(laid: Laid, recipe: Recipe): Int32Array {
  const reach = ahead(recipe.task, recipe.horizon);
  const rows = Int32Array.from({ length: laid.rows }, (_, row) => row);
  return rows.filter(
    (row) => isExample(row, laid.rows, recipe) && !Number.isNaN(laid.truth[row + reach] as number),
  );
}

/** What is true of each of these rows (of windows: the last ones). */
export function truthAt(laid: Laid, recipe: Recipe, rows: Int32Array): Float64Array {
  const reach = ahead(recipe.task, recipe.horizon);
  return Float64Array.from(rows, (row) => laid.truth[row + reach] as number);
}
