// Why: from examples to a network: initial weights, mini-batches, early stopping. Pure.
// Trusts: that nothing of the test part is among what it is given.
// Must never: draw on anything but its seed, or call a training that diverged a model.

import { invariant } from '../../shared/kernel/errors.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  addDecay,
  addSlice,
  checkTargets,
  clearGradients,
  createWorkspace,
  sliceLoss,
  type Targets,
} from './backward.ts';
import { outputsOf } from './forward.ts';
import { type Matrix, matrix } from './matrix.ts';
import { bestOf } from './metrics.ts';
import type { Layer, Network } from './model.ts';
import { createOptimizer } from './optimizers.ts';
import { createRandom, type Random } from './random.ts';
import type { Recipe } from './recipe.ts';

export interface ExampleSet {
  x: Matrix;
  y: Targets;
}

export interface Epoch {
  /** From 1. */
  epoch: number;
  epochs: number;
  /** Mean over the epoch's examples, each with the weights as they were at its batch; with decay. */
  loss: number;
  /** After the epoch, without decay. */
  validationLoss: number | null;
  /** Accuracy of classes; of numbers R² over all outputs together. Null also where the targets do not vary. */
  validationScore: number | null;
}

export interface TrainingParts {
  recipe: Pick<
    Recipe,
    | 'hidden'
    | 'activation'
    | 'optimizer'
    | 'learningRate'
    | 'epochs'
    | 'batch'
    | 'decay'
    | 'patience'
    | 'seed'
    | 'classWeights'
  >;
  train: ExampleSet;
  validation: ExampleSet | null;
  /** Null where the targets are numbers. */
  classes: number | null;
  onEpoch?: (epoch: Epoch) => void;
  /** Awaited after every few million multiplications, which take some milliseconds, also within a batch. */
  breathe?: () => Promise<void>;
}

export interface Training {
  network: Network;
  epochsRun: number;
  /** From 1: the epoch after which the network is the one given; with no validation the last. */
  bestEpoch: number;
  history: { loss: number; validationLoss: number | null }[];
}

export interface NetworkShape {
  inputs: number;
  hidden: readonly number[];
  outputs: number;
  activation: Network['activation'];
  output: Network['output'];
}

/**
 * Weights and biases uniform in ±√(6 / (inputs + outputs)) of their layer, ±√(2 / …) for the sigmoid: Glorot, Bengio
 * (2010), as scikit-learn's MLP has it. The same for a seed.
 */
export function initialNetwork({ seed, ...shape }: NetworkShape & { seed: number }): Network {
  return drawNetwork(shape, createRandom(seed));
}

function drawNetwork(shape: NetworkShape, random: Random): Network {
  const { activation, output } = shape;
  const factor = activation === 'sigmoid' ? 2 : 6;
  const layers: Layer[] = [];
  let inputs = shape.inputs;
  for (const outputs of [...shape.hidden, shape.outputs]) {
    const bound = Math.sqrt(factor / (inputs + outputs));
    const weights = new Float64Array(inputs * outputs);
    const bias = new Float64Array(outputs);
    for (const values of [weights, bias])
      for (let at = 0; at < values.length; at += 1) values[at] = bound * (2 * random.uniform() - 1);
    layers.push({ inputs, outputs, weights, bias });
    inputs = outputs;
  }
  return { layers, activation, output };
}

/** n / (classes · n_c), as scikit-learn's `balanced` (King, Zeng 2001). A class without an example weighs 1. */
export function balancedWeights(y: Int32Array, classes: number): Float64Array {
  const counts = new Float64Array(classes);
  for (const index of y) counts[index] = (counts[index] ?? 0) + 1;
  return counts.map((count) => (count === 0 ? 1 : y.length / (classes * count)));
}

/** Multiplications after which the caller may breathe: a few milliseconds. */
const multiplicationsPerBreath = 4_000_000;
/** A loss this many times the first is on its way to infinity. */
const divergedTimes = 1e6;
/** A first batch that fits by luck must not make an ordinary loss look like divergence. */
const firstLossMin = 1e-6;

/**
 * Trains by mini-batches that are reshuffled each epoch; the last of an epoch may be smaller. With a validation part
 * the weights after the epoch of its smallest loss are given, and where `patience` is set, training ends after so many
 * epochs without a smaller one. The same parts give the same bytes, on every platform.
 * Refusals: `data-unfit` for no examples and for inputs or targets that are not finite; `training-diverged`.
 */
export async function trainNetwork(parts: TrainingParts): Promise<Result<Training>> {
  const { recipe, train, validation, classes } = parts;
  const unfit =
    unfitOf(train, 'training') ?? (validation === null ? null : unfitOf(validation, 'validation'));
  if (unfit !== null) return { ok: false, refusal: unfit };
  const random = createRandom(recipe.seed);
  const network = drawNetwork(shapeOf(recipe, train, classes), random);
  for (const part of [train, ...(validation === null ? [] : [validation])]) {
    invariant(part.x.columns === train.x.columns, 'both parts have the same columns');
    checkTargets(network, part.x, part.y);
  }
  const run = createRun(network, parts);
  const order = Int32Array.from({ length: train.x.rows }, (_, row) => row);
  const history: Training['history'] = [];
  let best = { epoch: 0, loss: Number.POSITIVE_INFINITY, layers: network.layers.map(copyLayer) };
  for (let epoch = 1; epoch <= recipe.epochs; epoch += 1) {
    random.shuffle(order);
    const loss = await run.epoch(order);
    if (loss === null) return diverged(epoch, run.lastLoss(), run.firstLoss());
    const measured = validation === null ? null : await run.validate(validation);
    // The last step of an epoch shows in no loss of it.
    if (!isFiniteNetwork(network)) return diverged(epoch, Number.NaN, run.firstLoss());
    if (measured !== null && !Number.isFinite(measured.loss))
      return diverged(epoch, measured.loss, run.firstLoss());
    const validationLoss = measured?.loss ?? null;
    history.push({ loss, validationLoss });
    if (validationLoss === null || validationLoss < best.loss) {
      copyWeights(network.layers, best.layers);
      best = { ...best, epoch, loss: validationLoss ?? best.loss };
    }
    const validationScore = measured?.score ?? null;
    parts.onEpoch?.({ epoch, epochs: recipe.epochs, loss, validationLoss, validationScore });
    if (validation !== null && recipe.patience !== null && epoch - best.epoch >= recipe.patience) break;
  }
  const trained = { ...network, layers: best.layers };
  return ok({ network: trained, epochsRun: history.length, bestEpoch: best.epoch, history });
}

function shapeOf(
  recipe: TrainingParts['recipe'],
  { x, y }: ExampleSet,
  classes: number | null,
): NetworkShape {
  const { hidden, activation } = recipe;
  if (y instanceof Int32Array) {
    invariant(classes !== null, 'class indexes need the number of classes');
    return { inputs: x.columns, hidden, outputs: classes, activation, output: 'softmax' };
  }
  invariant(classes === null, 'numbers as targets have no classes');
  return { inputs: x.columns, hidden, outputs: y.columns, activation, output: 'identity' };
}

function diverged(epoch: number, loss: number, firstLoss: number): Result<never> {
  return refuse('training-diverged', `epoch ${epoch}: the loss is ${loss}; the first was ${firstLoss}`);
}

/** Why a part cannot be used, or null. */
function unfitOf({ x, y }: ExampleSet, part: string): Refusal | null {
  const unfit = (detail: string): Refusal => ({ code: 'data-unfit', detail });
  if (x.rows === 0) return unfit(`the ${part} part has no examples`);
  const numbers = y instanceof Int32Array ? [x] : [x, y];
  for (const one of numbers) {
    const at = one.values.findIndex((value) => !Number.isFinite(value));
    if (at < 0) continue;
    const place = `column ${(at % one.columns) + 1}, example ${Math.floor(at / one.columns) + 1}`;
    return unfit(`${one === x ? 'input' : 'target'} of the ${part} part, ${place}: ${one.values[at]}`);
  }
  return null;
}

interface Run {
  /** Mean loss; null as soon as a batch's has diverged. */
  epoch(order: Int32Array): Promise<number | null>;
  validate(part: ExampleSet): Promise<{ loss: number; score: number | null }>;
  /** Of the first batch of all, and of the last one. */
  firstLoss(): number;
  lastLoss(): number;
}

/** All buffers are made here, once. */
function createRun(network: Network, { recipe, train, breathe, classes }: TrainingParts): Run {
  const space = createWorkspace(network);
  const step = createOptimizer(recipe.optimizer, network, recipe.learningRate);
  const slice: ExampleSet = {
    x: matrix(space.rowsMax, train.x.columns),
    y: train.y instanceof Int32Array ? new Int32Array(space.rowsMax) : matrix(space.rowsMax, train.y.columns),
  };
  const classWeights =
    recipe.classWeights === 'balanced' && train.y instanceof Int32Array
      ? balancedWeights(train.y, classes ?? 0)
      : null;
  const perRow = network.layers.reduce((sum, { weights }) => sum + weights.length, 1);
  let [first, last] = [Number.NaN, Number.NaN];
  let sinceBreath = 0;
  async function breatheAfter(multiplications: number): Promise<void> {
    sinceBreath += multiplications;
    if (sinceBreath < multiplicationsPerBreath) return;
    sinceBreath = 0;
    await breathe?.();
  }

  async function batchLoss(order: Int32Array, from: number, to: number): Promise<number> {
    clearGradients(space.gradients);
    let sum = 0;
    for (let at = from; at < to; at += space.rowsMax) {
      const rows = Math.min(space.rowsMax, to - at);
      gather(train, order, at, rows, slice);
      sum += addSlice(network, slice.x, slice.y, 0, rows, space, classWeights, 1 / (to - from));
      await breatheAfter(3 * rows * perRow);
    }
    return sum / (to - from) + addDecay(network, space.gradients, recipe.decay, to - from);
  }

  async function epoch(order: Int32Array): Promise<number | null> {
    let sum = 0;
    for (let from = 0; from < order.length; from += recipe.batch) {
      const to = Math.min(order.length, from + recipe.batch);
      last = await batchLoss(order, from, to);
      if (Number.isNaN(first)) first = last;
      if (!Number.isFinite(last) || last > divergedTimes * Math.max(first, firstLossMin)) return null;
      step(space.gradients);
      sum += last * (to - from);
    }
    return sum / order.length;
  }

  async function validate({ x, y }: ExampleSet): Promise<{ loss: number; score: number | null }> {
    let loss = 0;
    let right = 0;
    for (let at = 0; at < x.rows; at += space.rowsMax) {
      const rows = Math.min(space.rowsMax, x.rows - at);
      const outputs = outputsOf(network);
      loss += sliceLoss(network, x, y, at, space, classWeights);
      const logits = space.outputs.at(-1);
      if (y instanceof Int32Array && logits !== undefined)
        for (let row = 0; row < rows; row += 1)
          if (bestOf(logits, row * outputs, outputs) === y[at + row]) right += 1;
      await breatheAfter(rows * perRow);
    }
    loss /= x.rows;
    if (y instanceof Int32Array) return { loss, score: right / x.rows };
    const spread = varianceOf(y);
    return { loss, score: spread === 0 ? null : 1 - (2 * loss) / spread };
  }

  return { epoch, validate, firstLoss: () => first, lastLoss: () => last };
}

/** Copies examples into the first rows of a slice, so that the kernels read one row after another. */
function gather(from: ExampleSet, order: Int32Array, at: number, rows: number, into: ExampleSet): void {
  gatherRows(from.x, order, at, rows, into.x);
  if (from.y instanceof Int32Array) {
    if (into.y instanceof Int32Array)
      for (let row = 0; row < rows; row += 1) into.y[row] = from.y[order[at + row] as number] as number;
  } else if (!(into.y instanceof Int32Array)) gatherRows(from.y, order, at, rows, into.y);
}

function gatherRows(from: Matrix, order: Int32Array, at: number, rows: number, into: Matrix): void {
  const { columns } = from;
  for (let row = 0; row < rows; row += 1) {
    const source = (order[at + row] as number) * columns;
    const target = row * columns;
    for (let column = 0; column < columns; column += 1)
      into.values[target + column] = from.values[source + column] as number;
  }
}

/** Mean over the outputs of each one's variance. */
function varianceOf({ rows, columns, values }: Matrix): number {
  let sum = 0;
  for (let column = 0; column < columns; column += 1) {
    let mean = 0;
    for (let at = column; at < values.length; at += columns) mean += (values[at] as number) / rows;
    for (let at = column; at < values.length; at += columns) sum += ((values[at] as number) - mean) ** 2;
  }
  return sum / (rows * columns);
}

const copyLayer = (layer: Layer): Layer => ({
  ...layer,
  weights: layer.weights.slice(),
  bias: layer.bias.slice(),
});

function copyWeights(from: readonly Layer[], into: readonly Layer[]): void {
  for (const [index, { weights, bias }] of from.entries()) {
    into[index]?.weights.set(weights);
    into[index]?.bias.set(bias);
  }
}

const isFiniteNetwork = ({ layers }: Network): boolean =>
  layers.every(({ weights, bias }) => weights.every(Number.isFinite) && bias.every(Number.isFinite));
