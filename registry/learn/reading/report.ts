// Why: what was found in a file and what was done to make a table of it, so that nothing is dropped silently. Pure.
// Trusts: the readers that fill it. Must never: hold more than a few cells of the data.

import type { Encoding } from './encoding.ts';

export interface ColumnReading {
  name: string;
  kind: 'numeric' | 'category' | 'time';
  /** Of a time, as it was written: `DD/MM/YYYY HH.MM.SS`. */
  dateFormat?: string;
  /** True where no date of the column tells day from month: the day was taken to stand first. */
  dayFirstGuessed?: true;
  /** Cells that are empty or say that there is no value (`NA`, `?`, …). */
  missing: number;
  /** Cells of a numeric column that are no numbers. They are missing in the table, and not counted in `missing`. */
  unreadable: { count: number; examples: { line: number; text: string }[] };
  /** Different texts of a category. */
  distinct?: number;
  /** Texts that look like numbers with thousands separators, which are not guessed. Left out where there are none. */
  thousands?: number;
}

/** Plain data, ready for JSON. */
export interface ReadingReport {
  encoding: Encoding;
  byteOrderMark: boolean;
  delimiter: ',' | ';' | '\t' | '|';
  decimal: '.' | ',';
  /** Of the table. */
  rows: number;
  /** Lines without any value, dropped wherever they stood. */
  blankRows: number;
  /** Rows with fewer fields than the header (the rest is missing), and with more, all of them empty (ignored). */
  raggedRows: { short: number; long: number };
  /** Columns without name and value, dropped: their positions in the file, the first is 1. */
  emptyColumns: number[];
  /** Columns with values and no name, called `column N` by their position. */
  unnamedColumns: number[];
  /** A column of dates and the next one of times of day, made one. */
  joinedColumns: { name: string; from: [string, string] }[];
  columns: ColumnReading[];
}
