// Why: the case of the textbooks, small enough to be looked at: two clouds of points and a network of five.
// Trusts: the seed. Must never: choose the seeds that please.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClassificationMetrics } from '../../registry/learn/evaluation.ts';
import { trainOn } from '../../registry/learn/pipeline.ts';
import { createRandom } from '../../registry/learn/random.ts';
import { parseRecipe } from '../../registry/learn/recipe.ts';
import type { Table } from '../../registry/learn/table.ts';
import { unwrap } from '../../shared/kernel/errors.ts';

/** 100 points of unit variance, half around (0, 0) and half around (2.2, 2.2). */
export function clouds(seed: number): Table {
  const random = createRandom(seed);
  const values = [new Float64Array(100), new Float64Array(100)];
  const target = new Float64Array(100);
  for (let row = 0; row < 100; row += 1) {
    target[row] = row % 2;
    for (const column of values) column[row] = random.normal() + (row % 2) * 2.2;
  }
  const columns = [...values, target].map((column, at) => ({
    kind: 'numeric' as const,
    name: ['a', 'b', 'class'][at] ?? '',
    values: column,
  }));
  return { rows: 100, columns };
}

const median = (values: number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? 0) + (sorted[sorted.length >> 1] ?? 0)) / 2;
};

test('2-5-2 on 70 of 100 points, learning rate 0.1, 100 iterations: median of 20 seeds on the other 30', async () => {
  const results: ClassificationMetrics[] = [];
  for (let seed = 1; seed <= 20; seed += 1) {
    const recipe = unwrap(
      parseRecipe({
        target: 'class',
        task: 'classification',
        hidden: [5],
        optimizer: 'sgd',
        learningRate: 0.1,
        epochs: 100,
        batch: 70,
        patience: null,
        seed,
      }),
    );
    const { metrics, trainRows } = unwrap(await trainOn(clouds(seed), recipe));
    assert.ok(metrics.task === 'classification');
    assert.equal(trainRows, 70);
    assert.equal(metrics.rows, 30);
    results.push(metrics);
  }
  const of = (name: 'accuracy' | 'recall' | 'f1'): number => median(results.map((one) => one[name]));
  assert.ok(of('accuracy') >= 0.9, `accuracy ${of('accuracy')}`);
  assert.ok(of('recall') >= 0.85, `recall ${of('recall')}`);
  assert.ok(of('f1') >= 0.87, `F1 ${of('f1')}`);
});
