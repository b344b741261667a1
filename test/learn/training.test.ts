// Why: the derivatives are those of the loss, a training repeats itself, ends well, and learns what can be learned.
// Trusts: central differences. Must never: pass a network that only looks trained.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { gradients, lossOf, type Targets } from '../../registry/learn/backward.ts';
import { forward, softmaxRows } from '../../registry/learn/forward.ts';
import { type Matrix, matrix } from '../../registry/learn/matrix.ts';
import { bestClasses, classificationMetrics, regressionMetrics } from '../../registry/learn/metrics.ts';
import type { Network } from '../../registry/learn/model.ts';
import { createOptimizer } from '../../registry/learn/optimizers.ts';
import { createRandom } from '../../registry/learn/random.ts';
import {
  balancedWeights,
  type ExampleSet,
  initialNetwork,
  type Training,
  type TrainingParts,
  trainNetwork,
} from '../../registry/learn/training.ts';
import type { Result } from '../../shared/kernel/result.ts';

const plain: TrainingParts['recipe'] = {
  hidden: [8],
  activation: 'tanh',
  optimizer: 'adam',
  learningRate: 0.01,
  epochs: 30,
  batch: 16,
  decay: 0,
  patience: null,
  seed: 1,
  classWeights: 'none',
};

function made(rows: number, columns: number, draw: (row: number, column: number) => number): Matrix {
  const out = matrix(rows, columns);
  for (let at = 0; at < out.values.length; at += 1)
    out.values[at] = draw(Math.floor(at / columns), at % columns);
  return out;
}

function trained(result: Result<Training>): Training {
  assert.ok(result.ok, result.ok ? '' : `${result.refusal.code}: ${result.refusal.detail}`);
  return result.value;
}

const bytesOf = (network: Network): string =>
  network.layers
    .flatMap(({ weights, bias }) => [weights, bias])
    .map((values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex'))
    .join();

/** The greatest relative error of a derivative against its central difference, over all weights and biases. */
function gradientError(
  network: Network,
  x: Matrix,
  y: Targets,
  decay: number,
  weights?: Float64Array,
): number {
  const options = { decay, ...(weights === undefined ? {} : { classWeights: weights }) };
  const { gradients: exact, loss: whole } = gradients(network, x, y, options);
  /** Written again here, from the loss alone. */
  const loss = (): number =>
    lossOf(network, x, y, weights) +
    (decay / 2 / x.rows) *
      network.layers.reduce((sum, layer) => sum + layer.weights.reduce((all, one) => all + one * one, 0), 0);
  let worst = Math.abs(whole - loss()) / loss();
  const step = 1e-5;
  for (const [index, layer] of network.layers.entries())
    for (const part of ['weights', 'bias'] as const)
      for (let at = 0; at < layer[part].length; at += 1) {
        const value = layer[part][at] as number;
        layer[part][at] = value + step;
        const above = loss();
        layer[part][at] = value - step;
        const difference = (above - loss()) / (2 * step);
        layer[part][at] = value;
        const derivative = exact[index]?.[part][at] ?? Number.NaN;
        // Below a thousandth the difference itself is known to nine digits only: compared absolutely there.
        const error = Math.abs(derivative - difference) / Math.max(1e-3, Math.abs(derivative));
        if (!(error <= worst)) worst = error;
      }
  return worst;
}

/** The smallest distance of a unit of a hidden layer from the kink of relu, over the rows. */
function kinkDistance(network: Network, x: Matrix): number {
  let nearest = Number.POSITIVE_INFINITY;
  for (let depth = 1; depth < network.layers.length; depth += 1) {
    const sums = forward({ ...network, layers: network.layers.slice(0, depth), output: 'identity' }, x);
    for (const sum of sums.values) nearest = Math.min(nearest, Math.abs(sum));
  }
  return nearest;
}

test('gradients: every derivative agrees with the central difference of the loss', () => {
  let checked = 0;
  const parts = fc.record({
    inputs: fc.integer({ min: 1, max: 6 }),
    hidden: fc.array(fc.integer({ min: 1, max: 7 }), { maxLength: 3 }),
    outputs: fc.integer({ min: 2, max: 5 }),
    rows: fc.integer({ min: 1, max: 9 }),
    activation: fc.constantFrom('relu' as const, 'sigmoid' as const, 'tanh' as const),
    output: fc.constantFrom('softmax' as const, 'identity' as const),
    weighted: fc.boolean(),
    decay: fc.constantFrom(0, 0.5),
    seed: fc.nat(1_000_000),
  });
  fc.assert(
    fc.property(parts, ({ rows, weighted, decay, ...shape }) => {
      const random = createRandom(shape.seed);
      const network = initialNetwork(shape);
      const x = made(rows, shape.inputs, () => random.normal());
      // Where relu bends it has no derivative.
      fc.pre(shape.activation !== 'relu' || kinkDistance(network, x) > 1e-3);
      const classes = Int32Array.from({ length: rows }, () => Math.floor(random.uniform() * shape.outputs));
      const y = shape.output === 'softmax' ? classes : made(rows, shape.outputs, () => random.normal());
      const weights = new Float64Array(shape.outputs).map(() => 0.2 + 3 * random.uniform());
      const error = gradientError(network, x, y, decay, weighted ? weights : undefined);
      assert.ok(error < 1e-5, `relative error ${error}`);
      checked += 1;
    }),
    { numRuns: 200 },
  );
  assert.ok(checked >= 200);
});

test('gradients: a batch of many slices is the mean of its examples, and cutting a forward run changes no bit', () => {
  const random = createRandom(3);
  const network = initialNetwork({
    ...{ inputs: 5, hidden: [13, 7], outputs: 3, activation: 'relu', output: 'softmax', seed: 9 },
  });
  const x = made(701, 5, () => random.normal());
  const y = Int32Array.from({ length: 701 }, () => Math.floor(random.uniform() * 3));
  const all = gradients(network, x, y);
  let loss = 0;
  const means = all.gradients.map(({ weights }) => new Float64Array(weights.length));
  for (let row = 0; row < 701; row += 1) {
    const one = gradients(
      network,
      { rows: 1, columns: 5, values: x.values.slice(row * 5, row * 5 + 5) },
      y.slice(row, row + 1),
    );
    loss += one.loss / 701;
    for (const [index, mean] of means.entries())
      for (let at = 0; at < mean.length; at += 1)
        mean[at] = (mean[at] as number) + (one.gradients[index]?.weights[at] ?? Number.NaN) / 701;
  }
  assert.ok(Math.abs(all.loss - loss) < 1e-12);
  for (const [index, mean] of means.entries())
    for (const [at, value] of mean.entries())
      assert.ok(Math.abs((all.gradients[index]?.weights[at] ?? Number.NaN) - value) < 1e-12);
  const plainOutput: Network = { ...network, output: 'identity' };
  const numbers = made(701, 3, () => random.normal());
  const errors = forward(plainOutput, x).values.map((one, at) => (one - (numbers.values[at] ?? 0)) ** 2);
  const half = errors.reduce((sum, one) => sum + one, 0) / x.rows / 2;
  assert.ok(Math.abs(lossOf(plainOutput, x, numbers) - half) < 1e-12);
  const whole = forward(network, x);
  for (const [from, to] of [
    [0, 1],
    [3, 700],
    [256, 701],
  ] as const)
    assert.deepEqual(forward(network, x, from, to).values, whole.values.slice(from * 3, to * 3));
});

test('a softmax of great logits stays a distribution, and its loss finite', () => {
  const network: Network = {
    layers: [{ inputs: 1, outputs: 2, weights: Float64Array.of(5_000, -5_000), bias: Float64Array.of(0, 0) }],
    activation: 'relu',
    output: 'softmax',
  };
  const x = made(2, 1, (row) => (row === 0 ? 1 : -1));
  assert.deepEqual(forward(network, x).values, Float64Array.of(1, 0, 0, 1));
  assert.equal(lossOf(network, x, Int32Array.of(1, 1)), 5_000);
  const three = Float64Array.of(1_000, 1_002, 1_001, -900, -902, -901, 2_000, 1, -1);
  softmaxRows(three, 3, 3);
  assert.deepEqual(three.slice(6), Float64Array.of(1, 0, 0));
  const [a, b, c] = [1, Math.exp(-1), Math.exp(-2)].map((one) => one / (1 + Math.exp(-1) + Math.exp(-2)));
  for (const [at, wanted] of [c, a, b, a, c, b].entries())
    assert.ok(Math.abs((three[at] ?? Number.NaN) - (wanted ?? 0)) < 1e-15);
});

test('optimizers: the first two steps by hand', () => {
  const after = (kind: 'sgd' | 'adam', slopes: number[]): number => {
    const layer = { inputs: 1, outputs: 1, weights: Float64Array.of(0), bias: Float64Array.of(0) };
    const step = createOptimizer(kind, { layers: [layer], activation: 'relu', output: 'identity' }, 0.1);
    for (const slope of slopes) step([{ weights: Float64Array.of(slope), bias: Float64Array.of(-slope) }]);
    assert.equal(layer.bias[0], -(layer.weights[0] ?? 0));
    return layer.weights[0] ?? Number.NaN;
  };
  const near = (got: number, wanted: number) => assert.ok(Math.abs(got - wanted) < 1e-7, `${got}`);
  // Velocities −0.1 and −0.19; each step goes 0.9 of its velocity and the slope once more.
  near(after('sgd', [1]), -0.19);
  near(after('sgd', [1, 1]), -0.19 - 0.271);
  // Means of the slopes 0.1 and −0.01, undone of their start by 0.1 and 0.19; the squares are 1 both times.
  near(after('adam', [1]), -0.1);
  near(after('adam', [1, -1]), -0.1 + (0.1 * 0.01) / 0.19);
});

test('examples are shuffled: classes in order do not leave the last one preferred', async () => {
  const train: ExampleSet = {
    x: made(1_000, 1, () => 1),
    y: Int32Array.from({ length: 1_000 }, (_, row) => (row < 500 ? 0 : 1)),
  };
  const recipe = { ...plain, hidden: [], optimizer: 'sgd' as const, learningRate: 0.05, epochs: 3 };
  const { network } = trained(await trainNetwork({ recipe, train, validation: null, classes: 2 }));
  const chance = forward(network, train.x, 0, 1).values[1] ?? Number.NaN;
  assert.ok(Math.abs(chance - 0.5) < 0.25, `${chance}`);
});

test('losses by hand: cross entropy of even chances, half the squared error summed over outputs, weights', () => {
  const flat = (outputs: number, output: Network['output']): Network => ({
    layers: [{ inputs: 1, outputs, weights: new Float64Array(outputs), bias: new Float64Array(outputs) }],
    activation: 'relu',
    output,
  });
  const x = made(2, 1, () => 1);
  const near = (got: number, wanted: number) => assert.ok(Math.abs(got - wanted) < 1e-12, `${got}`);
  near(lossOf(flat(4, 'softmax'), x, Int32Array.of(0, 3)), Math.log(4));
  near(lossOf(flat(4, 'softmax'), x, Int32Array.of(0, 3), Float64Array.of(1, 1, 1, 5)), 3 * Math.log(4));
  const y: Matrix = { rows: 2, columns: 2, values: Float64Array.of(1, 2, 3, 4) };
  near(lossOf(flat(2, 'identity'), x, y), (1 + 4 + 9 + 16) / 2 / 2);
  assert.deepEqual(balancedWeights(Int32Array.of(0, 0, 0, 1), 2), Float64Array.of(4 / 6, 2));
});

test('initial weights fill the bounds of Glorot', () => {
  for (const [activation, factor] of [
    ['relu', 6],
    ['tanh', 6],
    ['sigmoid', 2],
  ] as const) {
    const network = initialNetwork({ ...shapeOf(activation), seed: 4 });
    const bound = Math.sqrt(factor / 70);
    const weights = network.layers[0]?.weights ?? new Float64Array();
    const greatest = weights.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
    assert.ok(greatest <= bound && greatest > 0.98 * bound, `${greatest} of ${bound}`);
    assert.equal(bytesOf(network), bytesOf(initialNetwork({ ...shapeOf(activation), seed: 4 })));
    assert.notEqual(bytesOf(network), bytesOf(initialNetwork({ ...shapeOf(activation), seed: 5 })));
  }
  function shapeOf(activation: Network['activation']) {
    return { inputs: 40, hidden: [30], outputs: 2, activation, output: 'softmax' as const };
  }
});

/** y = sin x on −π … π. */
function sine(rows: number, seed: number): ExampleSet & { y: Matrix } {
  const random = createRandom(seed);
  const x = made(rows, 1, () => Math.PI * (2 * random.uniform() - 1));
  return { x, y: made(rows, 1, (row) => Math.sin(x.values[row] as number)) };
}

test('regression: a sine is learned', async () => {
  const [train, held] = [sine(400, 1), sine(200, 2)];
  const recipe = { ...plain, hidden: [16], epochs: 60, batch: 20 };
  for (const optimizer of ['adam', 'sgd'] as const) {
    const { network } = trained(
      await trainNetwork({ recipe: { ...recipe, optimizer }, train, validation: null, classes: null }),
    );
    const { r2 } = regressionMetrics(held.y.values, forward(network, held.x).values);
    assert.ok(r2 !== null && r2 > 0.95, `${optimizer}: ${r2}`);
  }
});

test('classes: exclusive or is learned, and not without a hidden layer', async () => {
  const x: Matrix = { rows: 4, columns: 2, values: Float64Array.of(0, 0, 0, 1, 1, 0, 1, 1) };
  const y = Int32Array.of(0, 1, 1, 0);
  for (const activation of ['sigmoid', 'tanh', 'relu'] as const) {
    const right = async (hidden: number[]): Promise<number> => {
      const recipe = { ...plain, activation, hidden, epochs: 400, batch: 4, learningRate: 0.05 };
      const { network } = trained(
        await trainNetwork({ recipe, train: { x, y }, validation: null, classes: 2 }),
      );
      return classificationMetrics(y, bestClasses(forward(network, x)), 2).accuracy;
    };
    assert.equal(await right([8]), 1, activation);
    assert.ok((await right([])) < 1);
  }
});

test('a training repeats itself to the bit, whoever breathes in between; another seed gives another', async () => {
  const train = sine(150, 4);
  const validation = sine(40, 5);
  const recipe = { ...plain, activation: 'relu' as const, epochs: 5, batch: 7, hidden: [9, 5] };
  const run = async (seed: number, breathe?: () => Promise<void>) =>
    trained(
      await trainNetwork({
        ...{ recipe: { ...recipe, seed }, train, validation, classes: null },
        ...(breathe === undefined ? {} : { breathe }),
      }),
    );
  const [first, second] = [await run(1), await run(1, () => new Promise((done) => setImmediate(done)))];
  assert.equal(bytesOf(first.network), bytesOf(second.network));
  assert.deepEqual(first.history, second.history);
  assert.notEqual(bytesOf(first.network), bytesOf((await run(2)).network));
});

test('a long batch lets the caller breathe', async () => {
  const train = sine(4_000, 4);
  let breaths = 0;
  const breathe = async () => {
    breaths += 1;
  };
  const recipe = { ...plain, hidden: [200, 50], epochs: 1, batch: 4_000 };
  trained(await trainNetwork({ recipe, train, validation: null, classes: null, breathe }));
  assert.ok(breaths >= 10, `${breaths}`);
});

test('early stopping ends after `patience` epochs and gives the weights of the best one back', async () => {
  // Few examples whose labels are noise: what is learned of them is wrong of others.
  const random = createRandom(12);
  const noise = (rows: number): ExampleSet => ({
    x: made(rows, 4, () => random.normal()),
    y: Int32Array.from({ length: rows }, () => (random.uniform() < 0.5 ? 1 : 0)),
  });
  const [train, validation] = [noise(40), noise(200)];
  const recipe = { ...plain, hidden: [32], epochs: 200, patience: 6, batch: 10 };
  const scores: (number | null)[] = [];
  const result = trained(
    await trainNetwork({
      ...{ recipe, train, validation, classes: 2 },
      onEpoch: ({ validationScore }) => scores.push(validationScore),
    }),
  );
  const losses = result.history.map(({ validationLoss }) => validationLoss ?? Number.NaN);
  assert.ok(result.epochsRun < 200 && result.epochsRun === result.bestEpoch + 6);
  assert.equal(losses.indexOf(Math.min(...losses)), result.bestEpoch - 1);
  assert.equal(lossOf(result.network, validation.x, validation.y), losses[result.bestEpoch - 1]);
  assert.ok((losses.at(-1) ?? 0) > (losses[result.bestEpoch - 1] ?? 0));
  const predicted = bestClasses(forward(result.network, validation.x));
  assert.ok(validation.y instanceof Int32Array);
  assert.equal(scores[result.bestEpoch - 1], classificationMetrics(validation.y, predicted, 2).accuracy);
  const whole = trained(
    await trainNetwork({
      ...{ recipe: { ...recipe, epochs: 30, patience: null }, train, validation, classes: 2 },
    }),
  );
  assert.equal(whole.epochsRun, 30);
  assert.equal(whole.bestEpoch, result.bestEpoch);
});

test('the validation score of numbers is R²', async () => {
  const [train, validation] = [sine(100, 1), sine(50, 2)];
  const recipe = { ...plain, epochs: 1 };
  const scores: (number | null)[] = [];
  const { network } = trained(
    await trainNetwork({
      ...{ recipe, train, validation, classes: null },
      onEpoch: ({ validationScore }) => scores.push(validationScore),
    }),
  );
  const { r2 } = regressionMetrics(validation.y.values, forward(network, validation.x).values);
  const [score = null] = scores;
  assert.ok(score !== null && r2 !== null && Math.abs(score - r2) < 1e-12, `${score}, not ${r2}`);
});

test('a training that diverges is refused, and so is what cannot be trained on', async () => {
  const train = sine(60, 1);
  const code = async (parts: Partial<TrainingParts>): Promise<string> => {
    const result = await trainNetwork({ recipe: plain, train, validation: null, classes: null, ...parts });
    return result.ok ? 'trained' : `${result.refusal.code}: ${result.refusal.detail}`;
  };
  const fierce = { ...plain, optimizer: 'sgd' as const, activation: 'relu' as const, learningRate: 100 };
  assert.match(
    await code({ recipe: fierce }),
    /^training-diverged: epoch 1: the loss is \S+; the first was 0\.\d+/,
  );
  // One step only, after which no loss of a batch would tell.
  const single = { ...fierce, learningRate: 1e308, epochs: 1, batch: 60 };
  const far = { x: train.x, y: made(60, 1, () => 1e10) };
  assert.match(await code({ recipe: single, train: far }), /^training-diverged/);
  assert.equal(await code({}), 'trained');
  const holed = { ...train, x: made(60, 1, (row) => (row === 41 ? Number.NaN : row)) };
  assert.match(await code({ train: holed }), /^data-unfit: input of the training part, column 1, example 42/);
  const infinite = { x: train.x, y: made(60, 1, () => Number.POSITIVE_INFINITY) };
  assert.match(await code({ validation: infinite }), /^data-unfit: target of the validation part/);
  assert.match(await code({ train: { x: matrix(0, 1), y: matrix(0, 1) } }), /^data-unfit: the training part/);
});

test('balanced weights find more of a rare class', async () => {
  const random = createRandom(21);
  const rare = (rows: number) => {
    const y = Int32Array.from({ length: rows }, () => (random.uniform() < 0.04 ? 1 : 0));
    return { x: made(rows, 2, (row) => random.normal() + 1.2 * (y[row] ?? 0)), y };
  };
  const [train, held] = [rare(1_500), rare(1_500)];
  const recall = async (classWeights: 'none' | 'balanced'): Promise<number> => {
    const { network } = trained(
      await trainNetwork({ recipe: { ...plain, classWeights }, train, validation: null, classes: 2 }),
    );
    return classificationMetrics(held.y, bestClasses(forward(network, held.x)), 2).positive?.recall ?? 0;
  };
  const [without, balanced] = [await recall('none'), await recall('balanced')];
  assert.ok(balanced > without + 0.3, `${without} → ${balanced}`);
});

test('decay keeps weights small', async () => {
  const train = sine(200, 1);
  const norm = async (decay: number): Promise<number> => {
    const { network } = trained(
      await trainNetwork({ recipe: { ...plain, decay }, train, validation: null, classes: null }),
    );
    return network.layers.reduce((sum, { weights }) => sum + weights.reduce((all, w) => all + w * w, 0), 0);
  };
  assert.ok((await norm(1)) < 0.5 * (await norm(0)));
});
