// Why: the products in which a training spends its time, in tiles that stay in registers: each value that is loaded
// is used twice or four times. Pure. Trusts: its callers for sizes.
// Must never: allocate, or let the sum of one number depend on how many rows are worked on at once.

/**
 * out[r, c] += Σ_i a[r, i] · b[i, c], the terms added one by one in the order of i: however the rows are cut into
 * calls, and also the terms, the bits that come out are the same.
 * `out` is row-major, rows × columns. Element [r, i] of `a` stands at `aFrom + r · aRow + i · aStep`, element [i, c] of
 * `b` at `i · bStep + c · bColumn`: so either may be read transposed.
 */
export function addProduct(
  out: Float64Array,
  rows: number,
  columns: number,
  inner: number,
  a: Float64Array,
  aFrom: number,
  aRow: number,
  aStep: number,
  b: Float64Array,
  bStep: number,
  bColumn: number,
): void {
  const wide = columns - (columns % 4);
  const even = rows - (rows % 2);
  for (let row = 0; row < even; row += 2) {
    const upper = row * columns;
    const lower = upper + columns;
    for (let column = 0; column < wide; column += 4) {
      let u0 = out[upper + column] as number;
      let u1 = out[upper + column + 1] as number;
      let u2 = out[upper + column + 2] as number;
      let u3 = out[upper + column + 3] as number;
      let l0 = out[lower + column] as number;
      let l1 = out[lower + column + 1] as number;
      let l2 = out[lower + column + 2] as number;
      let l3 = out[lower + column + 3] as number;
      let atUpper = aFrom + row * aRow;
      let atB = column * bColumn;
      for (let left = inner; left > 0; left -= 1) {
        const x = a[atUpper] as number;
        const y = a[atUpper + aRow] as number;
        const b0 = b[atB] as number;
        const b1 = b[atB + bColumn] as number;
        const b2 = b[atB + 2 * bColumn] as number;
        const b3 = b[atB + 3 * bColumn] as number;
        u0 += x * b0;
        u1 += x * b1;
        u2 += x * b2;
        u3 += x * b3;
        l0 += y * b0;
        l1 += y * b1;
        l2 += y * b2;
        l3 += y * b3;
        atUpper += aStep;
        atB += bStep;
      }
      out[upper + column] = u0;
      out[upper + column + 1] = u1;
      out[upper + column + 2] = u2;
      out[upper + column + 3] = u3;
      out[lower + column] = l0;
      out[lower + column + 1] = l1;
      out[lower + column + 2] = l2;
      out[lower + column + 3] = l3;
    }
  }
  if (wide < columns) addNarrow(out, 0, even, wide, columns, inner, a, aFrom, aRow, aStep, b, bStep, bColumn);
  if (even < rows) addNarrow(out, even, rows, 0, columns, inner, a, aFrom, aRow, aStep, b, bStep, bColumn);
}

/** What the tiles leave over, four rows of one column at a time where there are four. */
function addNarrow(
  out: Float64Array,
  rowFrom: number,
  rowTo: number,
  columnFrom: number,
  columns: number,
  inner: number,
  a: Float64Array,
  aFrom: number,
  aRow: number,
  aStep: number,
  b: Float64Array,
  bStep: number,
  bColumn: number,
): void {
  for (let column = columnFrom; column < columns; column += 1) {
    let row = rowFrom;
    for (; row + 4 <= rowTo; row += 4) {
      const at = row * columns + column;
      let s0 = out[at] as number;
      let s1 = out[at + columns] as number;
      let s2 = out[at + 2 * columns] as number;
      let s3 = out[at + 3 * columns] as number;
      let atA = aFrom + row * aRow;
      let atB = column * bColumn;
      for (let left = inner; left > 0; left -= 1) {
        const value = b[atB] as number;
        s0 += (a[atA] as number) * value;
        s1 += (a[atA + aRow] as number) * value;
        s2 += (a[atA + 2 * aRow] as number) * value;
        s3 += (a[atA + 3 * aRow] as number) * value;
        atA += aStep;
        atB += bStep;
      }
      out[at] = s0;
      out[at + columns] = s1;
      out[at + 2 * columns] = s2;
      out[at + 3 * columns] = s3;
    }
    for (; row < rowTo; row += 1) {
      let sum = out[row * columns + column] as number;
      let atA = aFrom + row * aRow;
      let atB = column * bColumn;
      for (let left = inner; left > 0; left -= 1) {
        sum += (a[atA] as number) * (b[atB] as number);
        atA += aStep;
        atB += bStep;
      }
      out[row * columns + column] = sum;
    }
  }
}
