// Why: each measure is what its definition says. Trusts: examples worked by hand, and definitions too slow to use.
// Must never: compare a measure with itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Matrix, matrix } from '../../registry/learn/matrix.ts';
import {
  bestClasses,
  classesAuc,
  classificationMetrics,
  confusion,
  logLoss,
  regressionMetrics,
  rocAuc,
  skill,
} from '../../registry/learn/metrics.ts';
import { labelRuns, windowMetrics } from '../../registry/learn/window-metrics.ts';

const close = (got: number | null, wanted: number): void =>
  assert.ok(got !== null && Math.abs(got - wanted) < 1e-12, `${got}, not ${wanted}`);

const rowsOf = (rows: number[][]): Matrix => ({
  rows: rows.length,
  columns: rows[0]?.length ?? 0,
  values: Float64Array.from(rows.flat()),
});

test('two classes: eight of ten right, two false alarms of five', () => {
  const truth = Int32Array.of(0, 0, 0, 0, 0, 0, 1, 1, 1, 1);
  const predicted = Int32Array.of(0, 0, 0, 0, 1, 1, 1, 1, 1, 0);
  const metrics = classificationMetrics(truth, predicted, 2);
  assert.deepEqual(metrics.confusion, [
    [4, 2],
    [1, 3],
  ]);
  assert.equal(metrics.accuracy, 0.7);
  const { positive } = metrics;
  close(positive?.precision ?? null, 3 / 5);
  close(positive?.recall ?? null, 3 / 4);
  close(positive?.f1 ?? null, (2 * 0.6 * 0.75) / (0.6 + 0.75));
  assert.equal(positive?.support, 4);
  close(metrics.macro.precision, (4 / 5 + 3 / 5) / 2);
  close(metrics.macro.recall, (4 / 6 + 3 / 4) / 2);
});

test('what has nothing to divide by is 0 and says so', () => {
  // Class 1 is never predicted, class 2 never occurs, class 3 neither.
  const metrics = classificationMetrics(Int32Array.of(0, 1, 0), Int32Array.of(0, 2, 0), 4);
  assert.equal(metrics.positive, null);
  assert.deepEqual(
    metrics.perClass.map(({ precision, recall, f1 }) => [precision, recall, f1]),
    [
      [1, 1, 1],
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 0],
    ],
  );
  assert.deepEqual(
    metrics.perClass.map(({ undefinedMeasures }) => undefinedMeasures),
    [[], ['precision'], ['recall'], ['precision', 'recall', 'f1']],
  );
  close(metrics.macro.f1, 1 / 4);
  assert.throws(() => confusion(Int32Array.of(2), Int32Array.of(0), 2), /none of 2/);
});

test('the area under the curve: by hand, and as the share of pairs in the right order', () => {
  close(rocAuc(Int32Array.of(0, 0, 1, 1), Float64Array.of(0.1, 0.4, 0.35, 0.8)), 0.75);
  close(rocAuc(Int32Array.of(0, 1), Float64Array.of(3, 3)), 0.5);
  assert.equal(rocAuc(Int32Array.of(1, 1), Float64Array.of(1, 2)), null);
  assert.equal(rocAuc(Int32Array.of(0, 0), Float64Array.of(1, 2)), null);
  const pair = fc.tuple(fc.integer({ min: 0, max: 1 }), fc.integer({ min: -4, max: 4 }));
  fc.assert(
    fc.property(fc.array(pair, { minLength: 2, maxLength: 60 }), (pairs) => {
      const positive = pairs.flatMap(([label, score]) => (label === 1 ? [score] : []));
      const negative = pairs.flatMap(([label, score]) => (label === 0 ? [score] : []));
      let right = 0;
      for (const p of positive) for (const n of negative) right += p > n ? 1 : p === n ? 0.5 : 0;
      const got = rocAuc(
        Int32Array.from(pairs, ([label]) => label),
        Float64Array.from(pairs, ([, score]) => score),
      );
      if (positive.length * negative.length === 0) assert.equal(got, null);
      else close(got, right / (positive.length * negative.length));
    }),
  );
});

test('classes: one against the rest, logarithmic loss, the best class', () => {
  const three = rowsOf([
    [0.6, 0.3, 0.1],
    [0.5, 0.4, 0.1],
    [0.1, 0.2, 0.7],
    [0.3, 0.3, 0.4],
  ]);
  // Class 0: 0.6 is above 0.5, 0.1, 0.3. Class 1: 0.4 and 0.3 against 0.3 and 0.2. Class 2: 0.7 above all.
  const truth = Int32Array.of(0, 1, 2, 1);
  close(classesAuc(truth, three), (1 + (1 + 1 + 0.5 + 1) / 4 + 1) / 3);
  assert.deepEqual(bestClasses(three), Int32Array.of(0, 0, 2, 2));
  close(logLoss(truth, three), -(Math.log(0.6) + Math.log(0.4) + Math.log(0.7) + Math.log(0.3)) / 4);
  // A class that does not occur is left out of the mean. Class 0: 0.6 and 0.3 against 0.5 and 0.1, three pairs of four;
  // class 1: 0.4 and 0.2 against 0.3 twice, two of four. Of two classes that of index 1 counts.
  close(classesAuc(Int32Array.of(0, 1, 1, 0), three), (3 / 4 + 2 / 4) / 2);
  const two = rowsOf([
    [0.9, 0.1],
    [0.2, 0.8],
    [0.5, 0.5],
  ]);
  close(classesAuc(Int32Array.of(0, 1, 1), two), 1);
  assert.equal(classesAuc(Int32Array.of(0, 0, 0), two), null);
  // Certain and wrong: 52 bits.
  close(logLoss(Int32Array.of(1), rowsOf([[1, 0]])), 52 * Math.LN2);
  assert.throws(() => logLoss(Int32Array.of(), matrix(0, 2)), /probabilities/);
});

test('errors of numbers', () => {
  const metrics = regressionMetrics(Float64Array.of(3, -0.5, 2, 7), Float64Array.of(2.5, 0, 2, 8));
  close(metrics.mae, 0.5);
  close(metrics.rmse, Math.sqrt(0.375));
  // Deviations from 2.875: 29.1875; errors 1.5.
  close(metrics.r2, 1 - 1.5 / 29.1875);
  const flat = regressionMetrics(Float64Array.of(0.1, 0.1, 0.1), Float64Array.of(0.1, 0.1, 0.4));
  assert.equal(flat.r2, null);
  close(flat.mae, 0.1);
  close(skill(1, 2), 0.75);
  close(skill(2, 1), -3);
  assert.equal(skill(1, 0), null);
});

test('windows: found once, false points in runs', () => {
  const windows = [
    { from: 100, to: 110 },
    { from: 200, to: 210 },
    { from: 300, to: 300 },
    { from: 400, to: 410 },
  ];
  // Found: the first twice, the second at its last time, the third on its only one. The fourth is missed by one.
  // False: 111 and 113 (one run), 150, 399.
  const flagged = [399, 105, 150, 103, 210, 113, 300, 111];
  const metrics = windowMetrics(windows, flagged, 5);
  assert.deepEqual([metrics.windows, metrics.found, metrics.falseAlarms], [4, 3, 3]);
  close(metrics.precision, 0.5);
  close(metrics.recall, 0.75);
  close(metrics.f1, 0.6);
  // A gap that is as long as the limit parts two runs.
  assert.equal(windowMetrics([], [0, 5, 10], 5).falseAlarms, 3);
  assert.equal(windowMetrics([], [0, 5, 10], 5.1).falseAlarms, 1);
  assert.equal(windowMetrics([], [7, 7, 7], 0).falseAlarms, 1);
  const silent = windowMetrics(windows, [], 5);
  assert.deepEqual([silent.precision, silent.recall, silent.f1], [0, 0, 0]);
  assert.equal(windowMetrics([], [], 1).recall, 0);
  // Windows inside one another: each is found, and what the wide one covers is no false alarm.
  const nested = windowMetrics(
    [
      { from: 0, to: 100 },
      { from: 10, to: 20 },
    ],
    [15, 50],
    1,
  );
  assert.deepEqual([nested.found, nested.falseAlarms], [2, 0]);
});

test('windows by definition: each point against each window', () => {
  const time = fc.integer({ min: 0, max: 60 });
  const window = fc.tuple(time, fc.nat(8)).map(([from, length]) => ({ from, to: from + length }));
  fc.assert(
    fc.property(fc.array(window, { maxLength: 5 }), fc.array(time, { maxLength: 30 }), (windows, flagged) => {
      const metrics = windowMetrics(windows, flagged, 3);
      const within = (at: number, { from, to }: { from: number; to: number }) => at >= from && at <= to;
      assert.equal(metrics.found, windows.filter((one) => flagged.some((at) => within(at, one))).length);
      const outside = [...new Set(flagged)]
        .filter((at) => !windows.some((one) => within(at, one)))
        .sort((a, b) => a - b);
      // A point begins a false alarm where none stands within two before it.
      assert.equal(
        metrics.falseAlarms,
        outside.filter((at) => !outside.some((other) => other < at && at - other < 3)).length,
      );
    }),
  );
});

test('labels in rows become windows', () => {
  assert.deepEqual(labelRuns(Int32Array.of(1, 1, 0, 0, 1, 0, 1)), [
    { from: 0, to: 1 },
    { from: 4, to: 4 },
    { from: 6, to: 6 },
  ]);
  assert.deepEqual(labelRuns(Int32Array.of(0, 0)), []);
  assert.deepEqual(labelRuns(Int32Array.of()), []);
});
