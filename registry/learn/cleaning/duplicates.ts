// Why: a row that is there twice would stand in the training and in the test part. Pure.
// Trusts: the table. Must never: take two rows for one because their hashes are equal.

import type { Column, Table } from '../table.ts';

const scratch = new Float64Array(1);
const words = new Uint32Array(scratch.buffer);

function mix(hash: number, word: number): number {
  // One step of MurmurHash3 (A. Appleby, public domain).
  let k = Math.imul(word, 0xcc9e2d51);
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  const h = hash ^ k;
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
}

function finish(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function addColumn(hashes: Int32Array, column: Column): void {
  if (column.kind === 'category') {
    for (let row = 0; row < hashes.length; row += 1)
      hashes[row] = mix(hashes[row] as number, column.codes[row] as number);
    return;
  }
  for (let row = 0; row < hashes.length; row += 1) {
    const value = column.values[row] as number;
    // One bit pattern for all NaN, and one for 0 and -0.
    scratch[0] = Number.isNaN(value) ? Number.NaN : value + 0;
    hashes[row] = mix(mix(hashes[row] as number, words[0] as number), words[1] as number);
  }
}

function same(columns: Column[], one: number, other: number): boolean {
  for (const column of columns) {
    const values = column.kind === 'category' ? column.codes : column.values;
    const [a, b] = [values[one] as number, values[other] as number];
    if (a !== b && !(Number.isNaN(a) && Number.isNaN(b))) return false;
  }
  return true;
}

/**
 * The rows without those that repeat an earlier one in every column (missing equals missing).
 * Memory: twenty bytes a row at most, whatever the columns.
 */
export function dropDuplicates(table: Table): { kept: Int32Array; dropped: number } {
  const { rows, columns } = table;
  const hashes = new Int32Array(rows);
  for (const column of columns) addColumn(hashes, column);
  let slots = 16;
  while (slots < rows * 2) slots *= 2;
  // Open addressing; a slot holds row + 1, and 0 where it is free.
  const seen = new Int32Array(slots);
  const kept = new Int32Array(rows);
  let count = 0;
  for (let row = 0; row < rows; row += 1) {
    const hash = hashes[row] as number;
    let slot = finish(hash) & (slots - 1);
    let other = (seen[slot] as number) - 1;
    while (other !== -1 && !(hashes[other] === hash && same(columns, row, other))) {
      slot = (slot + 1) & (slots - 1);
      other = (seen[slot] as number) - 1;
    }
    if (other !== -1) continue;
    seen[slot] = row + 1;
    kept[count] = row;
    count += 1;
  }
  return { kept: kept.slice(0, count), dropped: rows - count };
}
