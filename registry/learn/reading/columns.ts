// Why: what a column is shows when all its cells were seen: numbers, times or texts. Pure.
// Trusts: the cells kept. Must never: take a cell for a number or a date without saying how many were none.

import type { Column, TimeColumn } from '../table.ts';
import type { Cells } from './cells.ts';
import { readDates } from './dates.ts';
import type { ColumnReading, ReadingReport } from './report.ts';

/** A column is numeric where at least this part of its values are numbers; the rest is counted as unreadable. */
const numbersMin = 0.98;
const examplesMax = 3;

export interface TypedColumn {
  column: Column;
  reading: ColumnReading;
  /** Of a time: what was written. */
  part: 'date' | 'clock' | 'both' | null;
}

/**
 * Comma or point, by which of the two stands in more cells that are numbers in every other respect. Thousands
 * separators are not guessed: `1,234` between semicolons is 1.234 where other cells have decimal commas.
 */
export function decimalOf(columns: Cells[], delimiter: ReadingReport['delimiter']): '.' | ',' {
  if (delimiter === ',') return '.';
  let [withComma, withPoint] = [0, 0];
  for (const { commas, points } of columns) {
    withComma += commas;
    withPoint += points;
  }
  // As many of both: the points may be times of day (18.00), the commas can be nothing else.
  return withComma > 0 && withComma >= withPoint ? ',' : '.';
}

const thousands = /^[+-]?\d{1,3}(?:([., '’])\d{3})(?:\1\d{3})*(?:[.,]\d+)?$/;

function asNumeric(
  name: string,
  cells: Cells,
  decimal: '.' | ',',
  lines: Int32Array,
): { typed: TypedColumn; numbers: number } {
  const values = new Float64Array(cells.length);
  const reading: ColumnReading = {
    name,
    kind: 'numeric',
    missing: 0,
    unreadable: { count: 0, examples: [] },
  };
  for (let at = 0; at < cells.length; at += 1) {
    const value = cells.number(at, decimal);
    values[at] = value;
    if (!Number.isNaN(value)) continue;
    if (cells.isMissing(at)) {
      reading.missing += 1;
      continue;
    }
    reading.unreadable.count += 1;
    if (reading.unreadable.examples.length < examplesMax)
      reading.unreadable.examples.push({ line: lines[at] as number, text: cells.text(at).slice(0, 80) });
  }
  const numbers = cells.length - reading.missing - reading.unreadable.count;
  return { typed: { column: { kind: 'numeric', name, values }, reading, part: null }, numbers };
}

function asTexts(name: string, cells: Cells): TypedColumn & { column: { kind: 'category' } } {
  const codes = new Int32Array(cells.length);
  const categories: string[] = [];
  const known = new Map<string, number>();
  let missing = 0;
  let separated = 0;
  for (let at = 0; at < cells.length; at += 1) {
    if (cells.isMissing(at)) {
      codes[at] = -1;
      missing += 1;
      continue;
    }
    const text = cells.text(at);
    if (thousands.test(text)) separated += 1;
    let code = known.get(text);
    if (code === undefined) {
      code = categories.push(text) - 1;
      known.set(text, code);
    }
    codes[at] = code;
  }
  const reading: ColumnReading = {
    ...{ name, kind: 'category', missing, unreadable: { count: 0, examples: [] } },
    ...{ distinct: categories.length },
    ...(separated > 0 ? { thousands: separated } : {}),
  };
  return { column: { kind: 'category', name, categories, codes }, reading, part: null };
}

function asTime({ column, reading }: TypedColumn): TypedColumn | null {
  if (column.kind !== 'category') return null;
  const dates = readDates(column.categories);
  if (dates === null) return null;
  const values = new Float64Array(column.codes.length);
  for (let at = 0; at < values.length; at += 1)
    values[at] = dates.times[column.codes[at] as number] ?? Number.NaN;
  const { name, missing, unreadable } = reading;
  return {
    column: { kind: 'time', name, values },
    reading: {
      ...{ name, kind: 'time', dateFormat: dates.format, missing, unreadable },
      ...(dates.dayFirstGuessed ? { dayFirstGuessed: true } : {}),
    },
    part: dates.part,
  };
}

/**
 * Numeric where every value is a number, or 98 % of them; time where every one is a date or time of day and none is a
 * number; else a category. A column without any value is numeric, all of it missing.
 *
 * @param lines Of each row, where it began in the file.
 */
export function typeColumn(name: string, cells: Cells, decimal: '.' | ',', lines: Int32Array): TypedColumn {
  const { typed, numbers } = asNumeric(name, cells, decimal, lines);
  const values = cells.length - typed.reading.missing;
  if (values === 0 || numbers >= numbersMin * values) return typed;
  const texts = asTexts(name, cells);
  return (numbers === 0 ? asTime(texts) : null) ?? texts;
}

function join(date: TypedColumn, clock: TypedColumn, name: string): TypedColumn {
  const [days, hours] = [date.column as TimeColumn, clock.column as TimeColumn];
  const values = new Float64Array(days.values.length);
  let missing = 0;
  for (let at = 0; at < values.length; at += 1) {
    const time = (days.values[at] as number) + (hours.values[at] as number);
    values[at] = time;
    if (Number.isNaN(time)) missing += 1;
  }
  const reading: ColumnReading = {
    ...date.reading,
    ...{ name, missing, dateFormat: `${date.reading.dateFormat} ${clock.reading.dateFormat}` },
  };
  return { column: { kind: 'time', name, values }, reading, part: 'both' };
}

/** Makes one column of each that holds dates alone and the next one where that holds times of day alone. */
export function joinDates(columns: TypedColumn[]): {
  columns: TypedColumn[];
  joined: ReadingReport['joinedColumns'];
} {
  const joined: ReadingReport['joinedColumns'] = [];
  const made: TypedColumn[] = [];
  const names = new Set(columns.map(({ column }) => column.name));
  for (let at = 0; at < columns.length; at += 1) {
    const [one, next] = [columns[at] as TypedColumn, columns[at + 1]];
    const name = `${one.column.name} ${next?.column.name}`;
    if (one.part !== 'date' || next?.part !== 'clock' || names.has(name)) {
      made.push(one);
      continue;
    }
    names.add(name);
    joined.push({ name, from: [one.column.name, next.column.name] });
    made.push(join(one, next, name));
    at += 1;
  }
  return { columns: made, joined };
}
