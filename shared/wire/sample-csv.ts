// Why: accepted samples as a table of numbers, the form that most training takes. Pure.
// Trusts: rows that passed their schema. Must never: write a table in which a column means two things.

import { ok, type Result, refuse } from '../kernel/result.ts';
import type { SampleRow, SampleTensor } from './samples.ts';

/** A table of more is no table any more: images go out as NDJSON. */
const columnsMax = 16_384;

const widthOf = ({ shape }: SampleTensor): number => shape.reduce((product, size) => product * size, 1);

/** `NAME` for one number, else `NAME[0]` and so on: of one row, a batch of one. */
function columnsOf(row: SampleRow): Result<string[]> {
  const columns: string[] = [];
  for (const input of row.inputs) {
    const { name, shape } = input;
    const width = widthOf(input);
    const inOneRow = shape.slice(0, -1).every((size) => size === 1);
    if (!inOneRow)
      return refuse(
        'input-invalid',
        `input ${name} of sample ${row.id} has the shape [${shape.join(', ')}], which is no row`,
      );
    if (columns.length + width > columnsMax)
      return refuse('input-invalid', `sample ${row.id} has more than ${columnsMax} columns`);
    if (width === 1) columns.push(name);
    else for (let at = 0; at < width; at += 1) columns.push(`${name}[${at}]`);
  }
  return ok(columns);
}

/** As it is, for programs that train: one that takes a cell for a formula is no place for data of strangers. */
function cell(value: string | number | boolean | null): string {
  if (value === null) return '';
  if (typeof value !== 'string') return String(value);
  return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

/** Where all samples have one row with the same columns; refusal: `input-invalid`, which says where not. */
export function datasetCsv(rows: readonly SampleRow[]): Result<string> {
  const [first] = rows;
  if (first === undefined) return ok('');
  const columns = columnsOf(first);
  if (!columns.ok) return columns;
  const head = [...columns.value, 'target'];
  if (new Set(head).size !== head.length)
    return refuse('input-invalid', 'an input is called like another column of the table');
  const lines = [head.map(cell).join(',')];
  for (const row of rows) {
    const own = columnsOf(row);
    if (!own.ok) return own;
    if (own.value.join('\n') !== columns.value.join('\n'))
      return refuse('input-invalid', `samples ${first.id} and ${row.id} have different columns`);
    const values = row.inputs.flatMap(({ data }) => data);
    lines.push([...values.map(cell), cell(row.target)].join(','));
  }
  return ok(`${lines.join('\n')}\n`);
}

export function datasetLines(rows: readonly SampleRow[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}
