// Why: which columns of a table a model takes and which it does not, each with the reason, so that nothing is left out
// silently. Pure. Trusts: a table that was read. Must never: let a model see what it is to predict.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Recipe } from './recipe.ts';
import {
  type CategoryColumn,
  type Column,
  columnOf,
  type NumericColumn,
  type Table,
  type TimeColumn,
} from './table.ts';

export interface Chosen {
  numeric: NumericColumn[];
  categories: CategoryColumn[];
  target: NumericColumn | CategoryColumn;
  time: TimeColumn | null;
  /** Columns that are not used, and why. */
  left: { name: string; why: string }[];
}

const named = (table: Table): string => table.columns.map(({ name }) => name).join(', ');

function missing(
  table: Table,
  name: string,
  what: string,
): { ok: false; refusal: { code: 'data-column-unknown'; detail: string } } {
  return {
    ok: false,
    refusal: {
      code: 'data-column-unknown',
      detail: `there is no column ${JSON.stringify(name)} for the ${what}; there are ${named(table)}`,
    },
  };
}

/** A column that only counts the rows, as an identifier does: whole numbers, each one more than the one before. */
function countsRows({ values }: NumericColumn): boolean {
  if (values.length < 3) return false;
  for (let row = 1; row < values.length; row += 1)
    if ((values[row] as number) - (values[row - 1] as number) !== 1) return false;
  return Number.isInteger(values[0]);
}

/** Texts of which most stand once: names and identifiers, of which a model can learn nothing that holds for others. */
function isIdentifier({ categories, codes }: CategoryColumn): boolean {
  return categories.length > 20 && categories.length > codes.length / 4;
}

function whyLeft(column: Column, recipe: Recipe): string | null {
  if (column.kind === 'time') return 'a time is no number of its own';
  if (column.kind === 'numeric') {
    if (column.values.every(Number.isNaN)) return 'it has no value';
    return recipe.features === null && countsRows(column) ? 'it only counts the rows' : null;
  }
  if (recipe.window !== null) return 'texts are not used in windows';
  if (recipe.task === 'anomaly') return 'texts are not used for anomalies';
  return recipe.features === null && isIdentifier(column) ? 'nearly every row has a text of its own' : null;
}

/** Where none is named, a table's only column of time: rows of a time series do not stand for themselves. */
function timeOf(table: Table, recipe: Recipe): Result<TimeColumn | null> {
  const times = table.columns.filter((column): column is TimeColumn => column.kind === 'time');
  if (recipe.time === null) return ok(times.length === 1 ? (times[0] ?? null) : null);
  const column = columnOf(table, recipe.time);
  if (column === undefined) return missing(table, recipe.time, 'time');
  if (column.kind !== 'time')
    return refuse('data-malformed', `the column ${recipe.time} holds no dates or times that are understood`);
  return ok(column);
}

/** Refusals: `data-column-unknown`, `data-malformed` (texts where numbers are needed), `data-unfit`. */
export function chooseColumns(table: Table, recipe: Recipe): Result<Chosen> {
  const target = columnOf(table, recipe.target);
  if (target === undefined) return missing(table, recipe.target, 'target');
  if (target.kind === 'time')
    return refuse('data-malformed', `the target ${target.name} is a column of times`);
  if (target.kind === 'category' && recipe.task !== 'classification')
    return refuse(
      'data-malformed',
      `the target ${target.name} holds texts (${target.categories.slice(0, 3).join(', ')}); ${recipe.task} needs numbers`,
    );
  const time = timeOf(table, recipe);
  if (!time.ok) return time;
  for (const name of recipe.features ?? [])
    if (columnOf(table, name) === undefined) return missing(table, name, 'features');
  const chosen: Chosen = { numeric: [], categories: [], target, time: time.value, left: [] };
  for (const column of table.columns) {
    const { name } = column;
    const isOwnPast = column === target && recipe.task === 'forecast';
    if (column === time.value || (column === target && !isOwnPast)) continue;
    if (recipe.features !== null && !recipe.features.includes(name) && !isOwnPast) {
      chosen.left.push({ name, why: 'not among --features' });
      continue;
    }
    const why = whyLeft(column, recipe);
    if (why !== null) chosen.left.push({ name, why });
    else if (column.kind === 'numeric') chosen.numeric.push(column);
    else if (column.kind === 'category') chosen.categories.push(column);
  }
  if (chosen.numeric.length + chosen.categories.length === 0)
    return refuse(
      'data-unfit',
      `no column is left to learn from: ${chosen.left.map(({ name, why }) => `${name} (${why})`).join(', ') || 'there is only the target'}`,
    );
  return ok(chosen);
}

/** Whole numbers of at most this many kinds are classes where nobody says what the task is. */
const classesMax = 10;

/** What a target asks for by itself; a forecast is asked for by its window. */
export function taskOf(table: Table, target: string, isAhead: boolean): Result<Recipe['task']> {
  const column = columnOf(table, target);
  if (column === undefined) return missing(table, target, 'target');
  if (isAhead) return ok('forecast');
  if (column.kind === 'category') return ok('classification');
  const kinds = new Set<number>();
  for (const value of column.values) {
    if (Number.isNaN(value)) continue;
    kinds.add(value);
    if (kinds.size > classesMax || !Number.isInteger(value)) return ok('regression');
  }
  return ok('classification');
}
