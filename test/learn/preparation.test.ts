// Why: what a network is given, against windows worked out by hand. Trusts: arithmetic on paper.
// Must never: take its expectations from the code under test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { writeTrained } from '../../registry/learn/conversion.ts';
import type { Matrix } from '../../registry/learn/matrix.ts';
import type { Examples, Head, Network, NumericCleaning, TrainedModel } from '../../registry/learn/model.ts';
import { answer, fitPreparation, prepare } from '../../registry/learn/preparation.ts';
import type { Recipe } from '../../registry/learn/recipe.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { plainForward, runFile } from './made-models.ts';

const open: Omit<NumericCleaning, 'name'> = {
  sentinels: [],
  low: Number.NEGATIVE_INFINITY,
  high: Number.POSITIVE_INFINITY,
  fill: 0,
};

/** Windows that end at each row where one fits. */
function examplesOf(columns: Record<string, number[]>, window = 1): Examples {
  const numeric = Object.entries(columns).map(([name, values]) => ({
    ...{ kind: 'numeric' as const, name },
    values: Float64Array.from(values),
  }));
  const rows = numeric[0]?.values.length ?? 0;
  const at = Int32Array.from({ length: rows - window + 1 }, (_, example) => example + window - 1);
  return { numeric, categories: [], at, window };
}

const recipeOf = (change: Partial<Recipe>) => ({
  ...{ window: null, windowFeatures: ['lags' as const], bands: 1, normalise: 'standard' as const },
  ...change,
});

const rowsOf = ({ rows, columns, values }: Matrix): number[][] =>
  Array.from({ length: rows }, (_, row) => Array.from(values.subarray(row * columns, (row + 1) * columns)));

/** Fitted with center 0 and scale 1, to see the features themselves. */
function featuresOf(examples: Examples, change: Partial<Recipe>) {
  const numeric = examples.numeric.map(({ name }) => ({ name, ...open }));
  const fitted = fitPreparation({ examples, numeric, categories: [], recipe: recipeOf(change) });
  const { center, scale } = fitted;
  const preparation = { ...fitted, center: center.map(() => 0), scale: scale.map(() => 1) };
  return { names: fitted.names, rows: rowsOf(prepare(preparation, examples)), fitted };
}

function expectNear(actual: readonly number[], expected: readonly number[], off = 1e-12): void {
  assert.equal(actual.length, expected.length);
  for (const [at, right] of expected.entries())
    assert.ok(
      Math.abs((actual[at] ?? Number.NaN) - right) <= off,
      `${at}: ${actual[at]} instead of ${right}`,
    );
}

test('features of a window of four, by hand, column by column in a fixed order', () => {
  const examples = examplesOf({ a: [1, 2, 3, 6, 3], b: [5, 5, 5, 5, 1] }, 4);
  const { names, rows } = featuresOf(examples, {
    window: 4,
    windowFeatures: ['bands', 'maximum', 'minimum', 'deviation', 'mean', 'lags'],
    bands: 2,
  });
  const ofOne = (column: string): string[] => [
    ...[`${column}[t-3]`, `${column}[t-2]`, `${column}[t-1]`, `${column}[t]`],
    ...[`${column}.mean`, `${column}.deviation`, `${column}.minimum`, `${column}.maximum`],
    ...[`${column}.band1`, `${column}.band2`],
  ];
  assert.deepEqual(names, [...ofOne('a'), ...ofOne('b')]);
  // Of 1 2 3 6 less 3: −2 −1 0 3. X1 = (−2 − 0) + i(3 + 1) = −2 + 4i, |X1|² = 20; X2 = −2 + 1 + 0 − 3 = −4, 16.
  const first = [1, 2, 3, 6, 3, Math.sqrt(14 / 4), 1, 6, Math.log(1 + 20 / 16), Math.log(1 + 16 / 16)];
  expectNear(rows[0] ?? [], [...first, 5, 5, 5, 5, 5, 0, 5, 5, 0, 0]);
  // Of 5 5 5 1 less 4: 1 1 1 −3. X1 = (1 − 1) + i(−3 − 1), 16; X2 = 1 − 1 + 1 + 3 = 4, 16.
  const last = [5, 5, 5, 1, 4, Math.sqrt(12 / 4), 1, 5, Math.log(2), Math.log(2)];
  expectNear(rows[1]?.slice(10) ?? [], last);
});

test('changes are the earlier values of a window, each less the last one', () => {
  const { names, rows } = featuresOf(examplesOf({ a: [1, 2, 3, 6, 3] }, 4), {
    ...{ window: 4, windowFeatures: ['changes'], bands: 1 },
  });
  assert.deepEqual(names, ['a[t-3]-[t]', 'a[t-2]-[t]', 'a[t-1]-[t]']);
  assert.deepEqual(rows, [
    [-5, -4, -3],
    [-1, 0, 3],
  ]);
});

test('a pure sine lands in its band, with a quarter of its squared amplitude', () => {
  const window = 32;
  for (let periods = 1; periods < window / 2; periods += 1) {
    const wave = Array.from(
      { length: window },
      (_, at) => 7 + 3 * Math.sin((2 * Math.PI * periods * at) / window + 0.4),
    );
    const { rows } = featuresOf(examplesOf({ wave }, window), {
      window,
      windowFeatures: ['bands'],
      bands: 4,
    });
    // Frequencies 1–4, 5–8, 9–12 and 13–16.
    const expected = [0, 0, 0, 0];
    expected[Math.ceil(periods / 4) - 1] = Math.log(1 + 9 / 4);
    // As exact as a wave that was rounded to single precision.
    expectNear(rows[0] ?? [], expected, 1e-6);
  }
});

test('the energies of all bands are those of the window (Parseval)', () => {
  const any = fc.array(fc.integer({ min: -1_000, max: 1_000 }), { minLength: 3, maxLength: 40 });
  fc.assert(
    fc.property(any, fc.integer({ min: 1, max: 9 }), (values, bands) => {
      const window = values.length;
      const { rows } = featuresOf(examplesOf({ x: values }, window), {
        ...{ window, bands, windowFeatures: ['deviation', 'bands'] },
      });
      const [deviation = 0, ...logs] = rows[0] ?? [];
      const energy = logs.reduce((sum, log) => sum + Math.expm1(log), 0);
      // Every frequency stands twice in the full transform but the highest of an even window.
      const alternating = values.reduce((sum, value, at) => sum + (at % 2 === 0 ? value : -value), 0);
      const highest = window % 2 === 0 ? (alternating / window) ** 2 : 0;
      const whole = 2 * energy - highest;
      assert.ok(
        Math.abs(whole - deviation ** 2) <= 1e-9 * (1 + deviation ** 2),
        `${whole} ${deviation ** 2}`,
      );
    }),
    { seed: 11, numRuns: 200 },
  );
});

test('cleaning: a sentinel and NaN are filled, then clipped; numbers are those of single precision', () => {
  const examples = examplesOf({ a: [Number.NaN, -999.9, 50, -50, 0.1, 3] });
  const numeric = [{ name: 'a', sentinels: [-999.9], low: -10, high: 10, fill: 12 }];
  const fitted = fitPreparation({ examples, numeric, categories: [], recipe: recipeOf({}) });
  const plain = { ...fitted, center: new Float64Array(1), scale: Float64Array.of(1) };
  assert.deepEqual(rowsOf(prepare(plain, examples)).flat(), [10, 10, 10, -10, Math.fround(0.1), 3]);
});

test('texts: one column each; an unknown and a missing one is none of them', () => {
  const examples: Examples = {
    numeric: [{ kind: 'numeric', name: 'x', values: Float64Array.of(4, 4, 4, 4) }],
    // Here in another order than in the cleaning.
    categories: [
      {
        kind: 'category',
        name: 'place',
        categories: ['yard', 'hall', 'roof'],
        codes: Int32Array.of(1, -1, 2, 0),
      },
    ],
    at: Int32Array.of(3, 0, 1, 2),
    window: 1,
  };
  const preparation = fitPreparation({
    examples,
    numeric: [{ name: 'x', ...open }],
    categories: [{ name: 'place', categories: ['hall', 'yard'] }],
    recipe: recipeOf({ normalise: 'min-max' }),
  });
  assert.deepEqual(preparation.names, ['x', 'place=hall', 'place=yard']);
  assert.deepEqual(rowsOf(prepare(preparation, examples)), [
    [0, 0, 1],
    [0, 1, 0],
    [0, 0, 0],
    [0, 0, 0],
  ]);
});

test('normalisation by hand; what does not vary is 0 and keeps its scale', () => {
  const examples = examplesOf({
    a: [2, 4, 4, 10],
    same: [0.1, 0.1, 0.1, 0.1],
    far: [1e9, 1e9, 1e9 + 64, 1e9],
  });
  const numeric = examples.numeric.map(({ name }) => ({ name, ...open }));
  const fit = (normalise: Recipe['normalise']) =>
    fitPreparation({ examples, numeric, categories: [], recipe: recipeOf({ normalise }) });
  const expected = {
    standard: { center: 5, scale: 1 / 3 },
    'min-max': { center: 2, scale: 1 / 8 },
    // Quartiles 3.5 and 5.5 by linear interpolation.
    robust: { center: 4, scale: 1 / 2 },
  };
  for (const normalise of ['standard', 'min-max', 'robust'] as const) {
    const preparation = fit(normalise);
    const { center, scale } = preparation;
    const right = expected[normalise];
    assert.equal(center[0], Math.fround(right.center), normalise);
    assert.equal(scale[0], Math.fround(right.scale), normalise);
    assert.deepEqual([center[1], scale[1]], [Math.fround(0.1), 1], normalise);
    assert.deepEqual(
      rowsOf(prepare(preparation, examples)).map((row) => row[1]),
      [0, 0, 0, 0],
    );
  }
  // A difference that single precision still holds is one.
  assert.equal(fit('min-max').scale[2], 1 / 64);
});

const identity = (size: number): Network => ({
  layers: [
    {
      inputs: size,
      outputs: size,
      weights: Float64Array.from({ length: size * size }, (_, at) => (at % (size + 1) === 0 ? 2 : 0)),
      bias: new Float64Array(size),
    },
  ],
  activation: 'relu',
  output: 'identity',
});

test('rounding is not taken for a signal, by the trainer or by the file', async () => {
  // Windows of whole periods: mean, deviation and bands are the same in all of them but for rounding. No power of two,
  // so that there is some.
  const period = 7;
  const wave = Array.from(
    { length: 400 },
    (_, at) => 250 + 2_000 * Math.sin((2 * Math.PI * (at % period)) / period),
  );
  const still = wave.map(() => 0.3);
  const examples = examplesOf({ wave, still }, 14);
  const { fitted } = featuresOf(examples, {
    ...{ window: 14, bands: 7, windowFeatures: ['mean', 'deviation', 'bands'] },
  });
  assert.deepEqual(
    [...fitted.scale],
    fitted.names.map(() => 1),
  );
  const model: TrainedModel = {
    preparation: fitted,
    network: identity(fitted.names.length),
    head: { kind: 'anomaly', threshold: 1 },
  };
  // Twice the prepared values less those: the score is their mean square.
  const { score } = await runFile(
    writeTrained(model, { name: 'still', documentation: '', metadata: {} }),
    examples,
  );
  assert.ok(score !== undefined);
  assert.ok(Math.max(...(score.data as Float32Array)) < 1e-6);
});

test('answers: the first of equal classes; a value that carries; a score by its threshold', () => {
  const examples = examplesOf({ a: [1, 2, 4], b: [10, Number.NaN, 30] }, 2);
  const numeric = ['a', 'b'].map((name) => ({ name, ...open, fill: 7 }));
  const fitted = fitPreparation({ examples, numeric, categories: [], recipe: recipeOf({ window: 2 }) });
  const preparation = { ...fitted, center: fitted.center.map(() => 0), scale: fitted.scale.map(() => 1) };
  const prepared = prepare(preparation, examples);
  assert.deepEqual(rowsOf(prepared), [
    [1, 2, 10, 7],
    [2, 4, 7, 30],
  ]);
  const give = (columns: number, values: number[]) => (): Matrix => ({
    ...{ rows: 2, columns, values: Float64Array.from(values) },
  });
  const ask = (head: Head, outputs: () => Matrix) =>
    answer({ preparation, network: identity(4), head }, prepared, examples, outputs);
  const classes = ask({ kind: 'classes', labels: [5, 6, 7] }, give(3, [0.2, 0.4, 0.4, 0.6, 0.2, 0.2]));
  assert.ok(classes.kind === 'classes');
  assert.deepEqual([...classes.best], [1, 0]);
  const carried = ask({ kind: 'value', center: 0.5, scale: 2, carries: 1 }, give(1, [3, -1]));
  assert.ok(carried.kind === 'value');
  assert.deepEqual([...carried.values], [3 * 2 + 0.5 + 7, -1 * 2 + 0.5 + 30]);
  const scored = ask({ kind: 'anomaly', threshold: 0.5 }, give(4, [1, 2, 10, 9, 0, 4, 7, 30]));
  assert.ok(scored.kind === 'anomaly');
  assert.deepEqual([...scored.scores], [2, 2]);
  assert.deepEqual(rowsOf(plainForward(identity(4), prepared))[0], [2, 4, 20, 14]);
});

test('fitting sees the rows of its examples alone', () => {
  const all = examplesOf({ a: [1, 2, 3, 4, 5, 6, 1e9, -1e9] }, 3);
  const train = { ...all, at: all.at.slice(0, 4) };
  const numeric = [{ name: 'a', ...open }];
  const recipe = recipeOf({ window: 3, windowFeatures: ['lags', 'mean', 'deviation', 'bands'] });
  const short = examplesOf({ a: [1, 2, 3, 4, 5, 6] }, 3);
  assert.deepEqual(
    fitPreparation({ examples: train, numeric, categories: [], recipe }),
    fitPreparation({ examples: short, numeric, categories: [], recipe }),
  );
});

test('examples that leave their table, or fit no column, are a bug of the caller', () => {
  const examples = examplesOf({ a: [1, 2, 3] }, 2);
  const parts = { numeric: [{ name: 'a', ...open }], categories: [], recipe: recipeOf({ window: 2 }) };
  const wrong = [
    { ...parts, examples: { ...examples, at: Int32Array.of(0) } },
    { ...parts, examples: { ...examples, at: Int32Array.of(3) } },
    { ...parts, examples: { ...examples, window: 1 } },
    { ...parts, examples, numeric: [{ name: 'b', ...open }] },
    { ...parts, examples, numeric: [{ name: 'a', ...open, fill: Number.NaN }] },
    { ...parts, examples, numeric: [] },
  ];
  for (const one of wrong)
    assert.throws(
      () => fitPreparation(one),
      (error) => error instanceof FleetError && error.code === 'internal',
    );
});
