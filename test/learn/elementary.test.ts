// Why: chance and elementary functions are the same everywhere, and right. Trusts: published vectors, and `Math` to the
// last bits. Must never: pass because both sides come from one place.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { exp, log, logistic, tanh } from '../../registry/learn/elementary.ts';
import { matrix } from '../../registry/learn/matrix.ts';
import { addProduct } from '../../registry/learn/matrix-product.ts';
import { createRandom } from '../../registry/learn/random.ts';

/** Units in the last place between two numbers, relative for normal numbers. */
const apart = (got: number, wanted: number): number =>
  got === wanted ? 0 : Math.abs(got - wanted) / Math.max(Math.abs(wanted) * 2 ** -52, 5e-324);

test('exp and log agree with the platform to two units in the last place', () => {
  fc.assert(
    fc.property(fc.double({ min: -740, max: 709.7, noNaN: true }), (x) => apart(exp(x), Math.exp(x)) <= 2),
    { numRuns: 2_000 },
  );
  fc.assert(
    fc.property(
      fc.double({ min: 5e-324, max: Number.MAX_VALUE, noNaN: true }),
      (x) => apart(log(x), Math.log(x)) <= 2,
    ),
    { numRuns: 2_000 },
  );
  // Around 1, where the logarithm is small.
  fc.assert(
    fc.property(fc.double({ min: 0.5, max: 2, noNaN: true }), (x) => apart(log(x), Math.log(x)) <= 2),
    { numRuns: 2_000 },
  );
  fc.assert(
    fc.property(
      fc.double({ min: -800, max: 800, noNaN: true }),
      (x) =>
        Math.abs(tanh(x) - Math.tanh(x)) < 1e-15 && Math.abs(logistic(x) - 1 / (1 + Math.exp(-x))) < 1e-15,
    ),
    { numRuns: 2_000 },
  );
});

test('exp and log at their ends', () => {
  const table: [number, number][] = [
    [exp(0), 1],
    [exp(Number.NEGATIVE_INFINITY), 0],
    [exp(Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY],
    [exp(710), Number.POSITIVE_INFINITY],
    [exp(-746), 0],
    [exp(Number.NaN), Number.NaN],
    [log(1), 0],
    [log(0), Number.NEGATIVE_INFINITY],
    [log(-1), Number.NaN],
    [log(Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY],
    [log(Number.NaN), Number.NaN],
  ];
  for (const [index, [got, wanted]] of table.entries())
    assert.ok(Object.is(got, wanted), `row ${index}: ${got}`);
  assert.ok(apart(exp(709.78), Math.exp(709.78)) <= 2);
  assert.ok(apart(log(5e-324), Math.log(5e-324)) <= 2);
});

test('the generator is xoshiro128**, seeded by SplitMix64', () => {
  // The vector of the reference implementation, version 1.1, from the state 1, 2, 3, 4.
  const known = createRandom([1, 2, 3, 4]);
  assert.deepEqual(
    Array.from({ length: 10 }, () => known.next()),
    [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804],
  );
  // SplitMix64 from 0 begins with e220a8397b1dcdaf, 6e789e6aa1b965f4: the same state, low words first.
  const seeded = createRandom(0);
  const stated = createRandom([0x7b1dcdaf, 0xe220a839, 0xa1b965f4, 0x6e789e6a]);
  for (let step = 0; step < 100; step += 1) assert.equal(seeded.next(), stated.next());
});

test('uniform, normal and shuffled numbers have the moments that they should have', () => {
  const random = createRandom(7);
  const moments = (draw: () => number): [number, number] => {
    const values = Array.from({ length: 50_000 }, draw);
    const mean = values.reduce((sum, one) => sum + one, 0) / values.length;
    return [mean, values.reduce((sum, one) => sum + (one - mean) ** 2, 0) / values.length];
  };
  const [uniformMean, uniformVariance] = moments(random.uniform);
  assert.ok(Math.abs(uniformMean - 0.5) < 0.01 && Math.abs(uniformVariance - 1 / 12) < 0.003);
  const [normalMean, normalVariance] = moments(random.normal);
  assert.ok(Math.abs(normalMean) < 0.02 && Math.abs(normalVariance - 1) < 0.03);
  // Each of the six orders of three, a sixth of the time.
  const orders = new Map<string, number>();
  for (let turn = 0; turn < 12_000; turn += 1) {
    const values = Int32Array.of(0, 1, 2);
    random.shuffle(values);
    orders.set(values.join(), (orders.get(values.join()) ?? 0) + 1);
  }
  assert.equal(orders.size, 6);
  for (const count of orders.values()) assert.ok(Math.abs(count - 2_000) < 200, `${count}`);
});

test('a product in tiles is the product by definition, to the bit, read straight or transposed', () => {
  const size = fc.integer({ min: 1, max: 11 });
  fc.assert(
    fc.property(
      size,
      size,
      size,
      fc.boolean(),
      fc.boolean(),
      fc.nat(3),
      (rows, columns, inner, ta, tb, from) => {
        const random = createRandom(rows + 31 * columns + 977 * inner);
        const [a, b] = [new Float64Array(from + rows * inner), matrix(inner, columns).values];
        for (const values of [a, b])
          for (let at = 0; at < values.length; at += 1) values[at] = random.normal();
        const [aRow, aStep] = ta ? [1, rows] : [inner, 1];
        const [bStep, bColumn] = tb ? [1, inner] : [columns, 1];
        const out = new Float64Array(rows * columns).map(() => random.normal());
        const wanted = out.slice();
        for (let row = 0; row < rows; row += 1)
          for (let column = 0; column < columns; column += 1)
            for (let i = 0; i < inner; i += 1)
              wanted[row * columns + column] =
                (wanted[row * columns + column] as number) +
                (a[from + row * aRow + i * aStep] as number) * (b[i * bStep + column * bColumn] as number);
        addProduct(out, rows, columns, inner, a, from, aRow, aStep, b, bStep, bColumn);
        assert.deepEqual(out, wanted);
      },
    ),
  );
});
