// Why: numbers in rows, the form in which a network takes them: one array, row after row. Pure.
// Trusts: its maker. Must never: hold fewer values than rows × columns.

export interface Matrix {
  rows: number;
  columns: number;
  /** Row-major: row r, column c at `r * columns + c`. */
  values: Float64Array;
}

export function matrix(rows: number, columns: number): Matrix {
  return { rows, columns, values: new Float64Array(rows * columns) };
}
