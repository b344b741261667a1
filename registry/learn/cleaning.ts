// Why: what is done to raw values before a network sees them: missing ones filled, outliers clipped, texts told apart.
// Pure. Trusts: that `rows` are the training part alone. Must never: let the test part decide a fill or a fence, or
// change a cell that no report counts.

import type { CategoryCleaningReport, CleaningReport, NumericCleaningReport } from './cleaning/report.ts';
import type { Sentinel } from './cleaning/sentinels.ts';
import { float32, meanOf, mostFrequentOf, quartilesOf } from './cleaning/statistics.ts';
import type { CategoryCleaning, NumericCleaning } from './model.ts';
import type { Recipe } from './recipe.ts';
import type { CategoryColumn, NumericColumn } from './table.ts';

export { dropDuplicates } from './cleaning/duplicates.ts';
export { type CleaningReport, cleaningText } from './cleaning/report.ts';
export { findSentinels, type Sentinel } from './cleaning/sentinels.ts';

/** Each text is one input of the network; what is rarer than so many others teaches little. */
export const categoriesMax = 64;
/** Of Tukey's outer fences ("far out", Exploratory Data Analysis 1977): interquartile ranges beyond the quartiles. */
const fenceRanges = 3;

type Rules = Pick<Recipe, 'missing' | 'outliers'>;

/**
 * One value as the network gets it, by the three steps of `NumericCleaning`. A sentinel is compared as float32, which
 * is what a device's value is.
 */
export function cleanValue(cleaning: NumericCleaning, value: number): number {
  const missing = Number.isNaN(value) || cleaning.sentinels.includes(float32(value));
  return Math.min(Math.max(missing ? cleaning.fill : value, cleaning.low), cleaning.high);
}

function fillOf(sorted: Float64Array, rule: Recipe['missing']): number {
  if (sorted.length === 0) return 0;
  switch (rule) {
    case 'median':
      return quartilesOf(sorted).median;
    case 'mean':
      return meanOf(sorted);
    case 'most-frequent':
      return mostFrequentOf(sorted);
  }
}

/** Null where half of the values are one: then every other value would be an outlier. */
function fencesOf(sorted: Float64Array): { low: number; high: number } | null {
  if (sorted.length === 0) return null;
  const { low, high } = quartilesOf(sorted);
  const range = high - low;
  // An infinite range: quartiles at both ends of what a double holds.
  if (range === 0 || !Number.isFinite(range)) return null;
  return {
    low: float32(Math.max(low - fenceRanges * range, -Number.MAX_VALUE)),
    high: float32(Math.min(high + fenceRanges * range, Number.MAX_VALUE)),
  };
}

/** The values of the training part, without missing ones and sentinels, in order. */
function trainingValues(column: NumericColumn, rows: Int32Array, sentinels: number[]): Float64Array {
  const values = new Float64Array(rows.length);
  let count = 0;
  for (const row of rows) {
    const value = column.values[row] as number;
    if (Number.isNaN(value) || sentinels.includes(float32(value))) continue;
    values[count] = value;
    count += 1;
  }
  return values.subarray(0, count).sort();
}

function countCells(
  column: NumericColumn,
  sentinels: number[],
  fences: { low: number; high: number } | null,
): Pick<NumericCleaningReport, 'cells' | 'missing' | 'sentinels' | 'within' | 'outliers'> {
  const counts = sentinels.map(() => 0);
  let [missing, below, above, within] = [0, 0, 0, 0];
  for (const value of column.values) {
    const sentinel = sentinels.indexOf(float32(value));
    if (Number.isNaN(value)) missing += 1;
    else if (sentinel !== -1) counts[sentinel] = (counts[sentinel] as number) + 1;
    else if (fences !== null && value < fences.low) below += 1;
    else if (fences !== null && value > fences.high) above += 1;
    else within += 1;
  }
  return {
    cells: column.values.length,
    missing,
    sentinels: sentinels.map((value, index) => ({ value, count: counts[index] as number })),
    within,
    outliers: fences === null ? null : { ...fences, below, above },
  };
}

function fitNumeric(
  column: NumericColumn,
  rows: Int32Array,
  sentinels: number[],
  rules: Rules,
): { cleaning: NumericCleaning; report: NumericCleaningReport } {
  const { name } = column;
  const sorted = trainingValues(column, rows, sentinels);
  const fences = fencesOf(sorted);
  const fill = float32(fillOf(sorted, rules.missing));
  const clip = rules.outliers === 'clip' ? fences : null;
  return {
    cleaning: {
      ...{ name, sentinels, fill },
      low: clip?.low ?? Number.NEGATIVE_INFINITY,
      high: clip?.high ?? Number.POSITIVE_INFINITY,
    },
    report: {
      name,
      ...countCells(column, sentinels, fences),
      ...{ fill, fittedOn: sorted.length, allMissing: sorted.length === 0 },
    },
  };
}

function fitCategory(
  column: CategoryColumn,
  rows: Int32Array,
): { cleaning: CategoryCleaning; report: CategoryCleaningReport } {
  const { name, categories, codes } = column;
  const counts = new Int32Array(categories.length);
  for (const row of rows) {
    const code = codes[row] as number;
    if (code >= 0) counts[code] = (counts[code] as number) + 1;
  }
  const present = categories.map((text, code) => ({ text, code, count: counts[code] as number }));
  const seen = present.filter(({ count }) => count > 0);
  // Equally frequent ones by their text, so that the order of the rows decides nothing.
  seen.sort((a, b) => b.count - a.count || (a.text < b.text ? -1 : 1));
  const kept = seen.slice(0, categoriesMax);
  const keptCodes = new Set(kept.map(({ code }) => code));
  let [missing, known] = [0, 0];
  for (const code of codes) {
    if (code < 0) missing += 1;
    else if (keptCodes.has(code)) known += 1;
  }
  return {
    cleaning: { name, categories: kept.map(({ text }) => text) },
    report: {
      ...{ name, cells: codes.length, missing, known, other: codes.length - missing - known },
      ...{ categories: kept.length, distinct: seen.length, allMissing: seen.length === 0 },
    },
  };
}

/**
 * Fills and fences of each numeric column and the texts told apart of each category, by the training rows alone. All
 * numbers are float32, as the ONNX graph holds them. The report counts the cells of all rows, the training part's and
 * the others'; outliers are counted also where the rule is to keep them. `duplicates` and `rowsWithoutTarget` are 0
 * until the caller, who dropped them, fills them in.
 *
 * @param parts.rows The training part: indexes into the columns.
 * @param parts.sentinels As `findSentinels` gives them.
 */
export function fitCleaning(parts: {
  columns: NumericColumn[];
  categories: CategoryColumn[];
  rows: Int32Array;
  sentinels: Map<string, Sentinel[]>;
  rules: Rules;
}): { numeric: NumericCleaning[]; categories: CategoryCleaning[]; report: CleaningReport } {
  const { rows, rules } = parts;
  const numeric = parts.columns.map((column) => {
    const found = parts.sentinels.get(column.name) ?? [];
    const sentinels = [...new Set(found.map(({ value }) => float32(value)))];
    return fitNumeric(column, rows, sentinels, rules);
  });
  const categories = parts.categories.map((column) => fitCategory(column, rows));
  return {
    numeric: numeric.map(({ cleaning }) => cleaning),
    categories: categories.map(({ cleaning }) => cleaning),
    report: {
      rules: { missing: rules.missing, outliers: rules.outliers },
      duplicates: 0,
      rowsWithoutTarget: 0,
      numeric: numeric.map(({ report }) => report),
      categories: categories.map(({ report }) => report),
    },
  };
}
