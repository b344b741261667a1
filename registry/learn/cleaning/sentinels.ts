// Why: values such as -200 or 9999 that stand for a missing one are found before anything is learnt from them. Pure.
// Trusts: nothing. Must never: take a value that a sensor may well have measured for a missing one.

import type { Recipe } from '../recipe.ts';
import type { NumericColumn, Table } from '../table.ts';
import { float32, quartilesOf, shortestFloat32 } from './statistics.ts';

export interface Sentinel {
  value: number;
  count: number;
}

/** Fewer may be chance. */
const repeatsMin = 3;
/** Of one column; who marks missing values by more than this has data that wants a look. */
const sentinelsMax = 4;
/** Around the codes of a scale (-10, 0, 10) every value stands apart; a measurement takes more values than that. */
const distinctMin = 8;
/** Where another column of the file knows the value: its distance from the rest, in ranges of the rest. */
const knownGapMin = 0.1;

/** All nines, whole or with a decimal point in it: 99, 999, 9999, 99.9, 999.99. */
const isNines = (value: number): boolean => value > 9 && /^9+(\.9+)?$/.test(shortestFloat32(value));

interface Side {
  value: number;
  count: number;
  /** The values that are not it (and none of those found before), in order. */
  rest: Float64Array;
  gap: number;
}

/** The smallest or greatest value as a candidate: how often it stands there, and how far off. `sorted` is not empty. */
function sideOf(sorted: Float64Array, lowest: boolean): Side | null {
  const value = sorted[lowest ? 0 : sorted.length - 1] as number;
  let count = 0;
  while (count < sorted.length && sorted[lowest ? count : sorted.length - 1 - count] === value) count += 1;
  if (count === sorted.length) return null;
  const rest = lowest ? sorted.subarray(count) : sorted.subarray(0, sorted.length - count);
  const nearest = rest[lowest ? 0 : rest.length - 1] as number;
  return { value, count, rest, gap: Math.abs(nearest - value) };
}

function hasDistinct(sorted: Float64Array, wanted: number): boolean {
  let distinct = 1;
  for (let at = 1; at < sorted.length && distinct < wanted; at += 1)
    if (sorted[at] !== sorted[at - 1]) distinct += 1;
  return distinct >= wanted;
}

/**
 * By its column alone. The value is written like a code (nines, or a negative whole number of two digits and more),
 * stands there three times, and lies further from its nearest neighbour than the middle half of the rest is wide and
 * than that neighbour lies from the median: a tail of real values does not jump so far, to one value, again and again.
 */
function standsApart({ value, count, rest, gap }: Side, lowest: boolean): boolean {
  const nines = isNines(Math.abs(value));
  const code = nines || (lowest && Number.isInteger(value) && value <= -10);
  if (!code || count < repeatsMin) return false;
  const { low, median, high } = quartilesOf(rest);
  const nearest = rest[lowest ? 0 : rest.length - 1] as number;
  if (gap < high - low || gap < Math.abs(nearest - median)) return false;
  return hasDistinct(rest, nines ? 2 : distinctMin);
}

/** In a file where another column says so, less is enough: still an extreme, repeated, and set off from the rest. */
function standsOff({ value, count, rest, gap }: Side, known: ReadonlySet<number>): boolean {
  const range = (rest[rest.length - 1] as number) - (rest[0] as number);
  return known.has(value) && count >= repeatsMin && gap >= knownGapMin * range;
}

function sortedOf(column: NumericColumn): Float64Array {
  const values = column.values.filter((value) => Number.isFinite(value));
  for (let at = 0; at < values.length; at += 1) values[at] = float32(values[at] as number);
  return values.sort();
}

/** Takes one side off after the other while its value is a sentinel: -9999 may hide -999. */
function peel(all: Float64Array, accept: (side: Side, lowest: boolean) => boolean): Sentinel[] {
  const found: Sentinel[] = [];
  let sorted = all;
  let lowest = true;
  let refused = 0;
  while (refused < 2 && sorted.length > 0 && found.length < sentinelsMax) {
    const side = sideOf(sorted, lowest);
    if (side === null || !accept(side, lowest)) {
      refused += 1;
      lowest = !lowest;
      continue;
    }
    found.push({ value: side.value, count: side.count });
    sorted = side.rest;
    refused = 0;
  }
  return found;
}

function countOf(column: NumericColumn, values: number[]): Sentinel[] {
  return [...new Set(values.map(float32))].flatMap((value) => {
    let times = 0;
    for (const one of column.values) if (float32(one) === value) times += 1;
    return times > 0 ? [{ value, count: times }] : [];
  });
}

/**
 * The values that stand for a missing one, of each numeric column that has any, most frequent first. Values are
 * float32, as a device has them. `auto`: a value that stands apart in its column (see `standsApart`), and then every
 * column where a value found in another is the extreme too. A list: those values, wherever they are.
 *
 * Zero, positive values other than nines, and -1 to -9 are never found: they are measured, or are codes of a scale.
 */
export function findSentinels(table: Table, rule: Recipe['sentinels']): Map<string, Sentinel[]> {
  const found = new Map<string, Sentinel[]>();
  if (rule === 'none') return found;
  const keep = (name: string, sentinels: Sentinel[]): void => {
    if (sentinels.length > 0)
      found.set(
        name,
        sentinels.sort((a, b) => b.count - a.count),
      );
  };
  const columns = table.columns.filter((column) => column.kind === 'numeric');
  if (rule !== 'auto') {
    for (const column of columns) keep(column.name, countOf(column, rule));
    return found;
  }
  const known = new Set<number>();
  // Sorted twice rather than kept: one column's copy at a time.
  for (const column of columns) for (const { value } of peel(sortedOf(column), standsApart)) known.add(value);
  if (known.size === 0) return found;
  for (const column of columns)
    keep(
      column.name,
      peel(sortedOf(column), (side, lowest) => standsApart(side, lowest) || standsOff(side, known)),
    );
  return found;
}
