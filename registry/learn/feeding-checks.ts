// Why: whether a column's values can stand in an input at all: whole, in range, there. Pure.
// Trusts: tables that were read. Must never: let a value be rounded or cut to fit.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import type { FedInput } from './feeding.ts';
import type { Column } from './table.ts';

/** Least and greatest of the integer types; null: any number. */
const integers: Partial<Record<Datatype, [bigint, bigint]>> = {
  BOOL: [0n, 1n],
  INT8: [-(2n ** 7n), 2n ** 7n - 1n],
  INT16: [-(2n ** 15n), 2n ** 15n - 1n],
  INT32: [-(2n ** 31n), 2n ** 31n - 1n],
  INT64: [-(2n ** 63n), 2n ** 63n - 1n],
  UINT8: [0n, 2n ** 8n - 1n],
  UINT16: [0n, 2n ** 16n - 1n],
  UINT32: [0n, 2n ** 32n - 1n],
  UINT64: [0n, 2n ** 64n - 1n],
};

/** Marks in `lacking` the rows without a value, where the input is of integers. Refusal: `input-invalid`. */
export function checkColumn(column: Column, input: FedInput, lacking: Uint8Array): Result<void> {
  const { name, datatype } = input;
  if (datatype === 'BYTES') return ok();
  const to = `the input ${name} takes ${datatype}`;
  if (column.kind === 'category') {
    // A column without a single value has no kind of its own.
    if (column.categories.length > 0)
      return refuse(
        'input-invalid',
        `the column ${column.name} holds texts (${JSON.stringify(column.categories[0]?.slice(0, 40))}), and ${to}`,
      );
    if (integers[datatype] !== undefined) lacking.fill(1);
    return ok();
  }
  const range = integers[datatype];
  if (range === undefined) return ok();
  const [least, most] = range;
  for (const [row, value] of column.values.entries()) {
    if (Number.isNaN(value)) lacking[row] = 1;
    else if (!Number.isInteger(value) || BigInt(value) < least || BigInt(value) > most)
      return refuse('input-invalid', `row ${row + 1} of the column ${column.name} is ${value}, and ${to}`);
  }
  return ok();
}

/** Rows of which every row of the window has all that integer inputs need. */
export function usableRows(lacking: Uint8Array, window: number): { rows: Int32Array; missing: number } {
  const rows: number[] = [];
  let lastLacking = -1;
  for (const [row, lacks] of lacking.entries()) {
    if (lacks === 1) lastLacking = row;
    if (row >= window - 1 && lastLacking <= row - window) rows.push(row);
  }
  return { rows: Int32Array.from(rows), missing: Math.max(0, lacking.length - window + 1) - rows.length };
}
