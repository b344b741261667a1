// Why: which rows train and which test: none of both, none that looks over the cut, however many there are.
// Trusts: tables made here. Must never: look at a model.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeReady } from '../../registry/learn/pipeline.ts';
import { parseRecipe } from '../../registry/learn/recipe.ts';
import { splitRows } from '../../registry/learn/rows.ts';
import type { Table } from '../../registry/learn/table.ts';
import { unwrap } from '../../shared/kernel/errors.ts';

const recipeOf = (changes: object) =>
  unwrap(parseRecipe({ target: 'y', task: 'classification', ...changes }));

test('a million rows of two classes are drawn, each once and each class in its share', () => {
  const rows = 1_000_000;
  const truth = Float64Array.from({ length: rows }, (_, row) => (row % 10 === 0 ? 1 : 0));
  const recipe = recipeOf({});
  const split = unwrap(splitRows({ recipe, rows, byTime: false, truth, classes: Int32Array.from(truth) }));
  const seen = new Uint8Array(rows);
  for (const part of [split.train, split.validation, split.test])
    for (const row of part) seen[row] = (seen[row] ?? 0) + 1;
  assert.ok(seen.every((count) => count === 1));
  assert.equal(split.test.length, 300_000);
  assert.equal(split.test.filter((row) => truth[row] === 1).length, 30_000);
  assert.equal(split.fitted.length, 700_000);
});

test('by time no example of one part looks into the next, nor at a row before the first', () => {
  const rows = 500;
  const recipe = recipeOf({ task: 'forecast', window: 12, horizon: 7, split: 0.6 });
  const truth = Float64Array.from({ length: rows }, (_, row) => row);
  const {
    train,
    validation,
    test: tested,
  } = unwrap(splitRows({ recipe, rows, byTime: true, truth, classes: null }));
  const begun = Math.floor(300 * 0.9);
  assert.deepEqual([train[0], train.at(-1)], [11, begun - 8]);
  assert.deepEqual([validation[0], validation.at(-1)], [begun, 292]);
  assert.deepEqual([tested[0], tested.at(-1)], [300, 492]);
});

test('a detector is trained on no window that holds an anomaly', () => {
  const label = new Float64Array(200);
  label.fill(1, 50, 53);
  const values = Float64Array.from({ length: 200 }, (_, row) => Math.sin(row));
  const table: Table = {
    rows: 200,
    columns: [
      { kind: 'numeric', name: 'x', values },
      { kind: 'numeric', name: 'y', values: label },
    ],
  };
  const recipe = recipeOf({ task: 'anomaly', window: 5, patience: null });
  const { rows } = unwrap(makeReady(table, recipe));
  const expected = Array.from({ length: 140 }, (_, row) => row).filter(
    (row) => row >= 4 && (row < 50 || row > 56),
  );
  assert.deepEqual([...rows.train], expected);
});
