// Why: the small case of the textbooks: two clouds of points, one hidden layer of five, and as good as it is known to be.
// Trusts: seeds. Must never: choose the seeds for which it goes well.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forward } from '../../registry/learn/forward.ts';
import { type Matrix, matrix } from '../../registry/learn/matrix.ts';
import { bestClasses, classificationMetrics } from '../../registry/learn/metrics.ts';
import { createRandom } from '../../registry/learn/random.ts';
import { trainNetwork } from '../../registry/learn/training.ts';

interface Sample {
  features: [number, number];
  label: number;
}

/** Fifty points of unit variance around (0, 0) and fifty around (2.2, 2.2), in a random order. */
function samplesOf(seed: number): Sample[] {
  const random = createRandom(seed);
  const order = Int32Array.from({ length: 100 }, (_, index) => index);
  random.shuffle(order);
  return Array.from(order, (index) => {
    const label = index < 50 ? 0 : 1;
    const centre = 2.2 * label;
    return { features: [centre + random.normal(), centre + random.normal()], label };
  });
}

function standardised(samples: readonly Sample[], of: readonly Sample[]): { x: Matrix; y: Int32Array } {
  const x = matrix(samples.length, 2);
  for (const column of [0, 1] as const) {
    const values = of.map(({ features }) => features[column]);
    const mean = values.reduce((sum, one) => sum + one, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, one) => sum + (one - mean) ** 2, 0) / values.length);
    for (const [row, { features }] of samples.entries())
      x.values[row * 2 + column] = (features[column] - mean) / deviation;
  }
  return { x, y: Int32Array.from(samples, ({ label }) => label) };
}

const median = (values: number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? 0) + (sorted[sorted.length >> 1] ?? 0)) / 2;
};

/** Batch: all 70, so that an epoch is one iteration. */
async function scoresOf(seed: number): Promise<{ accuracy: number; recall: number; f1: number }> {
  const samples = samplesOf(seed);
  const [seen, unseen] = [samples.slice(0, 70), samples.slice(70)];
  const result = await trainNetwork({
    recipe: {
      hidden: [5],
      activation: 'sigmoid',
      optimizer: 'sgd',
      learningRate: 0.1,
      epochs: 100,
      batch: 70,
      decay: 0,
      patience: null,
      seed,
      classWeights: 'none',
    },
    train: standardised(seen, seen),
    validation: null,
    classes: 2,
  });
  assert.ok(result.ok);
  assert.equal(result.value.epochsRun, 100);
  const { x, y } = standardised(unseen, seen);
  const { accuracy, positive } = classificationMetrics(y, bestClasses(forward(result.value.network, x)), 2);
  return { accuracy, recall: positive?.recall ?? 0, f1: positive?.f1 ?? 0 };
}

test('70 of 100 points, 2-5-2, learning rate 0.1, 100 iterations: medians of twenty seeds on the other 30', async (t) => {
  const scores = await Promise.all(Array.from({ length: 20 }, (_, index) => scoresOf(index + 1)));
  const accuracy = median(scores.map((one) => one.accuracy));
  const recall = median(scores.map((one) => one.recall));
  const f1 = median(scores.map((one) => one.f1));
  t.diagnostic(`accuracy ${accuracy.toFixed(3)}, recall ${recall.toFixed(3)}, F1 ${f1.toFixed(3)}`);
  assert.ok(accuracy >= 0.9, `accuracy ${accuracy}`);
  assert.ok(recall >= 0.85, `recall ${recall}`);
  assert.ok(f1 >= 0.87, `F1 ${f1}`);
});
