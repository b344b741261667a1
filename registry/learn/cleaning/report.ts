// Why: what cleaning found and did, cell by cell accounted for, and its words for people. Pure.
// Trusts: who counted. Must never: name a rule that was not applied.

import type { ReadingReport } from '../reading/report.ts';
import type { Recipe } from '../recipe.ts';
import { shortestFloat32 } from './statistics.ts';

/** Cells are those of all rows that were kept; `cells = missing + sentinels + below + within + above`. */
export interface NumericCleaningReport {
  name: string;
  cells: number;
  /** Not in the file, or unreadable there. */
  missing: number;
  sentinels: { value: number; count: number }[];
  within: number;
  /** Values beyond the fences; clipped to them where the rule is `clip`. Null where there are none to draw. */
  outliers: { low: number; high: number; below: number; above: number } | null;
  /** What a missing value and a sentinel become. */
  fill: number;
  /** Values of the training part, by which fill and fences were found. */
  fittedOn: number;
  /** The training part has no value at all: `fill` is 0. */
  allMissing: boolean;
}

/** `cells = missing + known + other`. */
export interface CategoryCleaningReport {
  name: string;
  cells: number;
  missing: number;
  /** Cells with one of the texts that are told apart, and with another text. */
  known: number;
  other: number;
  /** Texts that are told apart, and texts in the training part. */
  categories: number;
  distinct: number;
  allMissing: boolean;
}

/** Plain data, ready for JSON. */
export interface CleaningReport {
  rules: Pick<Recipe, 'missing' | 'outliers'>;
  /** Rows dropped before; the caller fills these two in. */
  duplicates: number;
  rowsWithoutTarget: number;
  numeric: NumericCleaningReport[];
  categories: CategoryCleaningReport[];
}

const namesMax = 20;

/** `1 row`, `2 rows`. */
const counted = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`;

/** `CO(GT) 1683, T 366`; of very many the first ones. */
function listed(parts: string[]): string {
  const more = parts.length - namesMax;
  return [...parts.slice(0, namesMax), ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

const separators: Record<ReadingReport['delimiter'], string> = {
  ',': 'separator ","',
  ';': 'separator ";"',
  '|': 'separator "|"',
  '\t': 'separator tab',
};

function readingText(reading: ReadingReport, name: string): string[] {
  const { short, long } = reading.raggedRows;
  const count = (kind: string): number => reading.columns.filter((column) => column.kind === kind).length;
  const kinds = `${count('numeric')} of numbers, ${count('category')} of texts, ${count('time')} of times`;
  const unreadable = reading.columns.filter(({ unreadable: { count: cells } }) => cells > 0);
  const empty = reading.columns.filter(({ missing }) => missing === reading.rows);
  const mark = reading.byteOrderMark ? ' with byte-order mark' : '';
  const decimal = reading.decimal === ',' ? ', decimal comma' : '';
  return [
    `${name}: ${counted(reading.rows, 'row')}, ${counted(reading.columns.length, 'column')} (${kinds})`,
    `${reading.encoding}${mark}, ${separators[reading.delimiter]}${decimal}`,
    ...(reading.blankRows > 0 ? [`${counted(reading.blankRows, 'blank row')} dropped`] : []),
    ...(reading.emptyColumns.length > 0
      ? [`${counted(reading.emptyColumns.length, 'empty column')} dropped`]
      : []),
    ...(short > 0 ? [`${counted(short, 'row')} with too few fields: the rest is missing`] : []),
    ...(long > 0 ? [`${counted(long, 'row')} with too many fields, all of those empty: ignored`] : []),
    ...reading.unnamedColumns.map((position) => `column ${position} has no name: called by its position`),
    ...reading.joinedColumns.map(
      ({ name: both, from }) => `"${from[0]}" and "${from[1]}" joined to the time "${both}"`,
    ),
    ...reading.columns.flatMap(({ name: column, dateFormat, dayFirstGuessed, thousands }) => [
      ...(dayFirstGuessed ? [`"${column}": day or month first cannot be told; read as ${dateFormat}`] : []),
      ...(thousands === undefined
        ? []
        : [
            `"${column}": ${counted(thousands, 'cell')} with thousands separators, which are not guessed: texts`,
          ]),
    ]),
    ...(empty.length > 0 ? [`columns without any value: ${listed(empty.map((column) => column.name))}`] : []),
    ...unreadable.map(({ name: column, unreadable: { count: cells, examples } }) => {
      const shown = examples.map(({ line, text }) => `"${text}" at line ${line}`).join(', ');
      return `"${column}": ${counted(cells, 'cell')} no number, taken as missing: ${shown}`;
    }),
  ];
}

function sentinelText(columns: NumericCleaningReport[]): string[] {
  const byValue = new Map<number, string[]>();
  for (const { name, sentinels } of columns)
    for (const { value, count } of sentinels)
      byValue.set(value, [...(byValue.get(value) ?? []), `${name} ${count}`]);
  return [...byValue].map(
    ([value, parts]) =>
      `${shortestFloat32(value)} stands for missing in ${counted(parts.length, 'column')}: ${listed(parts)}`,
  );
}

const replacements: Record<Recipe['missing'], string> = {
  median: 'the median',
  mean: 'the mean',
  'most-frequent': 'the most frequent value',
};

function cleaningLines({ rules, ...report }: CleaningReport): string[] {
  const missing = report.numeric.filter((column) => column.missing > 0);
  const missingTexts = report.categories.filter((column) => column.missing > 0);
  const outliers = report.numeric.flatMap(({ name, outliers: found }) =>
    found !== null && found.below + found.above > 0 ? [`${name} ${found.below + found.above}`] : [],
  );
  const done = rules.outliers === 'clip' ? 'clipped to it' : 'kept';
  const filled = report.numeric.some((column) => column.missing > 0 || column.sentinels.length > 0);
  const hollow = [...report.numeric, ...report.categories].filter(({ allMissing }) => allMissing);
  const others = report.categories.filter(({ other }) => other > 0);
  return [
    ...(report.duplicates > 0 ? [`${counted(report.duplicates, 'duplicate row')} dropped`] : []),
    ...(report.rowsWithoutTarget > 0
      ? [`${counted(report.rowsWithoutTarget, 'row')} without a target dropped`]
      : []),
    ...sentinelText(report.numeric),
    ...(missing.length > 0
      ? [`missing numbers: ${listed(missing.map((column) => `${column.name} ${column.missing}`))}`]
      : []),
    ...(filled ? [`missing numbers become ${replacements[rules.missing]} of the training part`] : []),
    ...(missingTexts.length > 0
      ? [`missing texts, left as none: ${listed(missingTexts.map((one) => `${one.name} ${one.missing}`))}`]
      : []),
    ...(outliers.length > 0
      ? [`outliers (3 interquartile ranges beyond the quartiles), ${done}: ${listed(outliers)}`]
      : []),
    ...others.map(
      ({ name, other, categories }) =>
        `"${name}": ${counted(other, 'cell')} with none of the ${counted(categories, 'text')} told apart`,
    ),
    ...(hollow.length > 0
      ? [`no value in the training part: ${listed(hollow.map(({ name }) => name))}`]
      : []),
  ];
}

/**
 * What was read and cleaned, in lines for a terminal or a model card. What did not occur has no line.
 *
 * @param name Of the data, as people know it.
 */
export function cleaningText(reading: ReadingReport, cleaning: CleaningReport, name: string): string[] {
  return [...readingText(reading, name), ...cleaningLines(cleaning)];
}
