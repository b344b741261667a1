// Why: golden cases are few: every class, the uncertain and the extreme rows must be among them, and the file must read
// back. Trusts: nothing. Must never: depend on one seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chooseGolden, type GoldenChoice, goldenFile } from '../../registry/learn/golden-making.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseGolden } from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

const choice = (more: Partial<GoldenChoice>): GoldenChoice => ({
  ...{ rows: 1_000, classOf: null, margin: null, extremes: [], count: 20, seed: 1 },
  ...more,
});
const chosen = (more: Partial<GoldenChoice>): number[] => [...chooseGolden(choice(more))];

test('no row stands twice, all are rows, and as many as asked where there are so many', () => {
  fc.assert(
    fc.property(
      fc.record({
        rows: fc.integer({ min: 0, max: 60 }),
        count: fc.integer({ min: 0, max: 70 }),
        seed: fc.integer({ min: 0, max: 0xffff_ffff }),
        classes: fc.integer({ min: 1, max: 9 }),
      }),
      ({ rows, count, seed, classes }) => {
        const classOf = (row: number): number => (row * row) % classes;
        const margin = (row: number): number => 0.1 + (row % 7);
        const extremes = [Float64Array.from({ length: rows }, (_, row) => Math.sin(row))];
        const found = chosen({ rows, count, seed, classOf, margin, extremes });
        assert.equal(found.length, Math.min(rows, count));
        assert.equal(new Set(found).size, found.length);
        assert.deepEqual(
          found,
          [...found].sort((a, b) => a - b),
        );
        assert.ok(found.every((row) => row >= 0 && row < rows));
        const all = new Set(Array.from({ length: rows }, (_, row) => classOf(row)));
        const covered = new Set(found.map(classOf));
        assert.equal(covered.size, Math.min(all.size, Math.max(covered.size, Math.min(count, all.size))));
        assert.deepEqual(chosen({ rows, count, seed, classOf, margin, extremes }), found, 'same seed');
      },
    ),
  );
});

test('every class is there, however rare; of too many the most frequent', () => {
  // 990 of class 0, one each of 1 to 10.
  const classOf = (row: number): number => Math.max(0, row - 989);
  for (const seed of [1, 2, 3]) {
    const classes = new Set(chosen({ classOf, count: 11, seed }).map(classOf));
    assert.equal(classes.size, 11);
    assert.ok(chosen({ classOf, count: 3, seed }).some((row) => classOf(row) === 0));
  }
});

test('the least certain rows and the extremes are among them, and others by chance', () => {
  const margin = (row: number): number => (row === 700 || row === 701 ? 0.001 : 0.5 + row / 10_000);
  const column = Float64Array.from({ length: 1_000 }, (_, row) =>
    row === 123 ? 99 : row === 456 ? -99 : row % 10,
  );
  column[5] = Number.NaN;
  column[6] = Number.POSITIVE_INFINITY;
  const constant = new Float64Array(1_000);
  const found = chosen({ margin, extremes: [constant, column] });
  for (const row of [700, 701, 123, 456]) assert.ok(found.includes(row), String(row));
  assert.ok(!found.includes(6) || found.length > 19);
  // Half of them at random: those of two seeds differ.
  const other = chosen({ margin, extremes: [constant, column], seed: 2 });
  assert.notDeepEqual(other, found);
  assert.ok(other.filter((row) => found.includes(row)).length >= 10);
});

test('a row whose class rounding decides is no case, unless there are no others', () => {
  const margin = (row: number): number => (row < 900 ? 1e-6 : 0.3);
  assert.ok(chosen({ margin, count: 60 }).every((row) => row >= 900));
  assert.equal(chosen({ margin, count: 500 }).length, 100);
  assert.equal(chosen({ margin: () => 0, count: 10 }).length, 10);
  assert.equal(chosen({ margin: () => Number.NaN, count: 10 }).length, 10);
});

test('the file reads back as it was, with tolerances', () => {
  const inputs: Tensor[] = [
    { name: 'values', datatype: 'FP32', shape: [1, 3], data: Float32Array.of(0.1, Number.NaN, -1e30) },
    { name: 'texts', datatype: 'BYTES', shape: [1, 1], data: ['a "quoted" ü'] },
  ];
  const expected: Tensor[] = [
    { name: 'label', datatype: 'INT64', shape: [1], data: BigInt64Array.of(2n ** 60n) },
    { name: 'half', datatype: 'FP16', shape: [1], data: Uint16Array.of(0x3555) },
  ];
  const cases = unwrap(
    parseGolden(
      goldenFile([
        { inputs, expected },
        { inputs, expected, rtol: 0, atol: 1e-6 },
      ]),
      () => null,
    ),
  );
  assert.deepEqual(cases, [
    { inputs, expected, rtol: 1e-3, atol: 1e-3, sequence: null },
    { inputs, expected, rtol: 0, atol: 1e-6, sequence: null },
  ]);
  assert.throws(() => goldenFile([]), /do not read/);
  assert.throws(() => goldenFile([{ inputs, expected: [] }]), /do not read/);
});
