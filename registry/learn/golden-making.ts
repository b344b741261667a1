// Why: which rows become a release's golden cases: few, and yet every class, the least certain and the extremes, because
// a model that was converted or quantised wrongly differs there first. Pure.
// Trusts: its callers for answers to the rows. Must never: choose by chance that no seed repeats, or choose a row whose
// class rounding alone decides.

import { FleetError } from '../../shared/kernel/errors.ts';
import {
  compareGolden,
  type GoldenCase,
  goldenToleranceDefault,
  parseGolden,
  writeGolden,
} from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { createRandom } from './random.ts';

/** Below it two processors may round to different classes; answers of single precision differ by less. */
const marginMin = 1e-4;

export interface GoldenChoice {
  rows: number;
  classOf: ((row: number) => number) | null;
  /** How far the greatest probability lies above the second: small near the edge of a class. */
  margin: ((row: number) => number) | null;
  /** Columns whose rows of the least and the greatest value are edges. */
  extremes: readonly Float64Array[];
  count: number;
  seed: number;
}

/** The first row of each class in the order given, the most frequent class first. */
function onePerClass(order: Int32Array, classOf: (row: number) => number): number[] {
  const found = new Map<number, { row: number; count: number }>();
  for (const row of order) {
    const known = found.get(classOf(row));
    if (known === undefined) found.set(classOf(row), { row, count: 1 });
    else known.count += 1;
  }
  return [...found.values()].sort((a, b) => b.count - a.count).map(({ row }) => row);
}

/** The rows of the least and of the greatest finite value. */
function edgeRows(column: Float64Array, usable: (row: number) => boolean): number[] {
  let [least, most] = [-1, -1];
  for (const [row, value] of column.entries()) {
    if (!Number.isFinite(value) || !usable(row)) continue;
    if (least < 0 || value < (column[least] as number)) least = row;
    if (most < 0 || value > (column[most] as number)) most = row;
  }
  return least < 0 || least === most ? [] : [least, most];
}

/**
 * Up to `count` different rows, rising: one of each class (the most frequent classes where `count` is less), then in
 * turn the least certain and the extremes until half of what is left is taken, the rest at random. Rows whose margin
 * is below 1e-4 are none of them, unless there are no others: their class is not the same on every processor.
 */
export function chooseGolden(choice: GoldenChoice): Int32Array {
  const { rows, classOf, margin, extremes, count, seed } = choice;
  const every = Int32Array.from({ length: rows }, (_, row) => row);
  const clear = margin === null ? every : every.filter((row) => !(margin(row) < marginMin));
  const usable = clear.length > 0 ? clear : every;
  const order = usable.slice();
  createRandom(seed).shuffle(order);
  const chosen = new Set<number>();
  const take = (row: number | undefined, most: number): void => {
    if (row !== undefined && chosen.size < most) chosen.add(row);
  };
  if (classOf !== null) for (const row of onePerClass(order, classOf)) take(row, count);

  const pointed = chosen.size + Math.ceil((count - chosen.size) / 2);
  const isUsable = new Set(usable);
  const edges = [...new Set(extremes.flatMap((column) => edgeRows(column, (row) => isUsable.has(row))))];
  const known = margin === null ? [] : [...usable].filter((row) => !Number.isNaN(margin(row)));
  const unsure = margin === null ? [] : known.sort((a, b) => margin(a) - margin(b) || a - b);
  for (let at = 0; at < Math.max(edges.length, unsure.length) && chosen.size < pointed; at += 1) {
    take(unsure[at], pointed);
    take(edges[at], pointed);
  }
  for (const row of order) take(row, count);
  return Int32Array.from(chosen).sort();
}

export interface GoldenAnswer {
  inputs: Tensor[];
  expected: Tensor[];
  rtol?: number;
  atol?: number;
}

/** The file of golden cases, read back and compared to the last bit. At most 10,000 cases. */
export function goldenFile(answers: readonly GoldenAnswer[]): Uint8Array {
  const cases = answers.map(
    ({ inputs, expected, rtol = goldenToleranceDefault, atol = goldenToleranceDefault }): GoldenCase => ({
      ...{ inputs, expected, rtol, atol, sequence: null },
    }),
  );
  const bytes = writeGolden(cases);
  const read = parseGolden(bytes, () => null);
  if (!read.ok) throw new FleetError('internal', `golden cases that do not read: ${read.refusal.detail}`);
  for (const [at, { inputs, expected }] of cases.entries()) {
    const back = read.value[at];
    const differs =
      back === undefined ||
      !compareGolden(inputs, back.inputs, 0, 0).passed ||
      !compareGolden(expected, back.expected, 0, 0).passed;
    if (differs) throw new FleetError('internal', `golden case ${at} reads back otherwise than it was`);
  }
  return bytes;
}
