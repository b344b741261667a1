// Why: holds what is counted of a request, bin by bin. Trusts: nothing. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTally } from '../../agent/inference/tally.ts';
import { featuresStatsSchema } from '../../shared/wire/feature-stats.ts';
import { profileSchema } from '../../shared/wire/profile.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

const still = (): number => 0;
const floats = (name: string, shape: number[], ...data: number[]): Tensor => ({
  ...{ name, datatype: 'FP32', shape },
  data: Float32Array.from(data),
});
const numeric = (tensor: string, index: number, edges: number[], more: object = {}) => ({
  ...{ kind: 'numeric', role: 'input', tensor, index, edges, counts: Array(edges.length + 1).fill(0) },
  ...more,
});
const profile = (...features: object[]) => profileSchema.parse({ schemaVersion: 1, features });

test('numbers fall into under, bins and over; the last edge belongs to the last bin', () => {
  const tally = createTally(profile(numeric('x', 0, [0, 1, 2])), still);
  for (const value of [-1, 0, 0.5, 1, 2, 3, Number.NaN, Number.POSITIVE_INFINITY])
    tally.count([floats('x', [1, 1], value)], [], 1);
  const window = tally.take(1_000);
  assert.deepEqual(window?.features, [
    { role: 'input', tensor: 'x', index: 0, of: 'value', counts: [1, 2, 2, 2], missing: 1 },
  ]);
  assert.deepEqual([window.rows, window.seenRows, window.windowMs], [8, 8, 1_000]);
  featuresStatsSchema.parse({ ...window, model: 'm', profileSha256: '0'.repeat(64) });
  assert.equal(tally.take(1_000), null, 'the next window begins empty');
});

test('rows of a batch count each, at their place on the last axis; a place that is not there is missing', () => {
  const tally = createTally(profile(numeric('x', 1, [0, 10]), numeric('x', 5, [0, 10])), still);
  tally.count([floats('x', [3, 2], 1, 5, 1, 50, 1, -5)], [], 1);
  const window = tally.take(1);
  assert.deepEqual(
    [window?.rows, window?.features.map(({ counts, missing }) => [counts, missing])],
    [
      3,
      [
        [[1, 1, 1], 0],
        [[0, 0, 0], 1],
      ],
    ],
  );
});

test('a classifier: its class and how sure it is', () => {
  const output = { role: 'output', tensor: 'y', index: 0 };
  const tally = createTally(
    profile(
      { ...output, kind: 'categorical', of: 'argmax', values: [0, 1], counts: [0, 0] },
      { ...output, kind: 'numeric', of: 'max', edges: [0, 0.5, 1], counts: [0, 0, 0, 0] },
    ),
    still,
  );
  for (const row of [
    [0.1, 0.2, 0.7],
    [0.2, 0.45, 0.35],
    [0.9, 0.1, 0],
  ])
    tally.count([], [floats('y', [1, 3], ...row)], 1);
  const [classes, confidence] = tally.take(1)?.features ?? [];
  assert.deepEqual([classes?.counts, classes?.other], [[1, 1], 1]);
  assert.deepEqual(confidence?.counts, [0, 1, 2, 0]);
});

test('strings, booleans, halves and wide integers', () => {
  const tally = createTally(
    profile(
      { kind: 'categorical', role: 'input', tensor: 's', index: 0, values: ['a'], counts: [0] },
      { kind: 'categorical', role: 'input', tensor: 'b', index: 0, values: [0, 1], counts: [0, 0] },
      numeric('h', 0, [0, 2]),
      numeric('i', 0, [0, 2]),
    ),
    still,
  );
  tally.count(
    [
      { name: 's', datatype: 'BYTES', shape: [2, 1], data: ['a', 'z'] },
      { name: 'b', datatype: 'BOOL', shape: [1], data: Uint8Array.of(1) },
      { name: 'h', datatype: 'FP16', shape: [1], data: Uint16Array.of(0x3c00) },
      { name: 'i', datatype: 'INT64', shape: [1], data: BigInt64Array.of(-3n) },
    ],
    [],
    1,
  );
  assert.deepEqual(
    tally.take(1)?.features.map(({ tensor, counts, other }) => [tensor, counts, other]),
    [
      ['s', [1], 1],
      ['b', [0, 1], 0],
      ['h', [0, 1, 0], undefined],
      ['i', [1, 0, 0], undefined],
    ],
  );
});

test('counting that costs too much of the time stops for a while, and says so', () => {
  let nowMs = 0;
  // Each look at the clock takes 1 ms: counting costs as much as running.
  const tally = createTally(profile(numeric('x', 0, [0, 1])), () => (nowMs += 1));
  for (let request = 0; request < 100; request += 1) tally.count([floats('x', [1, 1], 0.5)], [], 1);
  const window = tally.take(1);
  assert.equal(window?.seenRows, 100);
  assert.ok(window.rows >= 5 && window.rows <= 15, `${window.rows} rows`);
});

test('of a large tensor some places are looked at, spread over all', () => {
  const tally = createTally(profile(numeric('x', 0, [0, 1, 2])), still);
  const data = Array.from({ length: 10_000 }, (_, at) => (at < 5_000 ? 0.5 : 1.5));
  tally.count([floats('x', [1, 10_000, 1], ...data)], [], 1);
  assert.deepEqual(tally.take(1)?.features[0]?.counts, [0, 32, 32, 0]);
});
