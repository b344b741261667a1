// Why: how wrong a network is on examples, and the way down: the loss and its derivatives. Pure.
// Trusts: its callers for targets that fit the network's outputs.
// Must never: give a derivative of another loss than the one it gives.
// Source: Goodfellow, Bengio, Courville: Deep Learning (2016), §6.5; the losses are those of scikit-learn's MLP.

import { invariant } from '../../shared/kernel/errors.ts';
import { exp, log } from './elementary.ts';
import { createPass, outputsOf, type Pass, runLayers } from './forward.ts';
import type { Matrix } from './matrix.ts';
import { addProduct } from './matrix-product.ts';
import type { Network } from './model.ts';

/** Class indexes, one a row, for a softmax; numbers, rows × outputs, for the identity. */
export type Targets = Int32Array | Matrix;

/** As the layers of the network, in their order. */
export type Gradients = { weights: Float64Array; bias: Float64Array }[];

/** Buffers for a way through a network and back. */
export interface Workspace extends Pass {
  /** Of each layer, as its outputs: the loss derived by the sums before the activation. */
  deltas: Float64Array[];
  gradients: Gradients;
}

export function createWorkspace(network: Network): Workspace {
  const pass = createPass(network);
  return {
    ...pass,
    deltas: pass.outputs.map(({ length }) => new Float64Array(length)),
    gradients: network.layers.map(({ weights, bias }) => ({
      weights: new Float64Array(weights.length),
      bias: new Float64Array(bias.length),
    })),
  };
}

/** Whether the targets are of the kind and the size that the network's output asks for. */
export function checkTargets(network: Network, x: Matrix, y: Targets): void {
  const outputs = outputsOf(network);
  if (y instanceof Int32Array) {
    invariant(network.output === 'softmax', 'class indexes are targets of a softmax');
    invariant(y.length === x.rows, 'there is one class index a row');
    for (const index of y) invariant(index >= 0 && index < outputs, `there is no class ${index}`);
  } else {
    invariant(network.output === 'identity', 'numbers are targets of the identity');
    invariant(y.rows === x.rows && y.columns === outputs, 'there is one target an output');
  }
}

/**
 * The sum over rows of the weighted loss, from the last layer's sums; where `deltas` is given, also its derivatives,
 * each times `scale`. The targets of the first row are those of the row `first`.
 */
export function lossSum(
  last: Float64Array,
  rows: number,
  outputs: number,
  y: Targets,
  first: number,
  classWeights: Float64Array | null,
  deltas: Float64Array | null,
  scale: number,
): number {
  if (y instanceof Int32Array)
    return crossEntropySum(last, rows, outputs, y, first, classWeights, deltas, scale);
  let sum = 0;
  const { values } = y;
  const offset = first * outputs;
  for (let at = 0; at < rows * outputs; at += 1) {
    const difference = (last[at] as number) - (values[offset + at] as number);
    sum += difference * difference;
    if (deltas !== null) deltas[at] = difference * scale;
  }
  return sum / 2;
}

function crossEntropySum(
  last: Float64Array,
  rows: number,
  outputs: number,
  y: Int32Array,
  first: number,
  classWeights: Float64Array | null,
  deltas: Float64Array | null,
  scale: number,
): number {
  let total = 0;
  for (let row = 0; row < rows; row += 1) {
    const from = row * outputs;
    const truth = y[first + row] as number;
    const weight = classWeights === null ? 1 : (classWeights[truth] as number);
    let greatest = last[from] as number;
    for (let at = from + 1; at < from + outputs; at += 1)
      if ((last[at] as number) > greatest) greatest = last[at] as number;
    const right = last[from + truth] as number;
    let sum = 0;
    for (let at = from; at < from + outputs; at += 1) {
      const power = exp((last[at] as number) - greatest);
      sum += power;
      if (deltas !== null) deltas[at] = power;
    }
    // From the logits: the logarithm of a probability that was rounded to 0 would be infinite.
    total += weight * (log(sum) + greatest - right);
    if (deltas === null) continue;
    const factor = weight * scale;
    for (let at = from; at < from + outputs; at += 1) deltas[at] = ((deltas[at] as number) / sum) * factor;
    deltas[from + truth] = (deltas[from + truth] as number) - factor;
  }
  return total;
}

/** In place: times the activation's derivative, written by its value. */
function throughActivation(
  deltas: Float64Array,
  values: Float64Array,
  count: number,
  activation: Network['activation'],
): void {
  for (let at = 0; at < count; at += 1) {
    const value = values[at] as number;
    if (activation === 'relu') {
      if (value <= 0) deltas[at] = 0;
    } else {
      const slope = activation === 'sigmoid' ? value * (1 - value) : 1 - value * value;
      deltas[at] = (deltas[at] as number) * slope;
    }
  }
}

/** Adds to the gradients what the rows of the workspace say, whose last deltas are filled. */
function backward(network: Network, x: Float64Array, from: number, rows: number, space: Workspace): void {
  for (let index = network.layers.length - 1; index >= 0; index -= 1) {
    const layer = network.layers[index];
    const delta = space.deltas[index];
    const gradient = space.gradients[index];
    invariant(layer !== undefined && delta !== undefined && gradient !== undefined, 'a layer has buffers');
    const { inputs, outputs, weights } = layer;
    const below = space.outputs[index - 1];
    const { bias } = gradient;
    for (let row = 0; row < rows; row += 1)
      for (let at = 0; at < outputs; at += 1)
        bias[at] = (bias[at] as number) + (delta[row * outputs + at] as number);
    addProduct(
      gradient.weights,
      inputs,
      outputs,
      rows,
      below ?? x,
      below === undefined ? from : 0,
      1,
      inputs,
      delta,
      outputs,
      1,
    );
    const deltaBelow = space.deltas[index - 1];
    if (below === undefined || deltaBelow === undefined) continue;
    deltaBelow.fill(0, 0, rows * inputs);
    addProduct(deltaBelow, rows, inputs, outputs, delta, 0, outputs, 1, weights, 1, outputs);
    throughActivation(deltaBelow, below, rows * inputs, network.activation);
  }
}

/**
 * One slice of a batch: rows `first` … `first + rows − 1` of `x`. Adds its gradients, each times `scale`, to those of
 * the workspace and gives its sum of losses.
 */
export function addSlice(
  network: Network,
  x: Matrix,
  y: Targets,
  first: number,
  rows: number,
  space: Workspace,
  classWeights: Float64Array | null,
  scale: number,
): number {
  const from = first * x.columns;
  const last = runLayers(network, x.values, from, rows, space);
  const deltas = space.deltas.at(-1) ?? null;
  const sum = lossSum(last, rows, outputsOf(network), y, first, classWeights, deltas, scale);
  backward(network, x.values, from, rows, space);
  return sum;
}

export function clearGradients(gradients: Gradients): void {
  for (const { weights, bias } of gradients) {
    weights.fill(0);
    bias.fill(0);
  }
}

/** Adds the derivatives of `decay` / 2 · ‖W‖² / `examples` and gives that number. Biases do not decay. */
export function addDecay(network: Network, gradients: Gradients, decay: number, examples: number): number {
  if (decay === 0) return 0;
  const factor = decay / examples;
  let squares = 0;
  for (let index = 0; index < gradients.length; index += 1) {
    const weights = network.layers[index]?.weights;
    const into = gradients[index]?.weights;
    invariant(weights !== undefined && into !== undefined, 'gradients are as the layers');
    for (let at = 0; at < weights.length; at += 1) {
      const weight = weights[at] as number;
      squares += weight * weight;
      into[at] = (into[at] as number) + factor * weight;
    }
  }
  return (squares * factor) / 2;
}

/**
 * Mean over the examples, without decay: cross entropy, an example of class c weighing `classWeights[c]`; or half the
 * squared error, summed over the outputs: the slopes are scikit-learn's then, and so is what weight decay weighs.
 */
export function lossOf(network: Network, x: Matrix, y: Targets, classWeights?: Float64Array): number {
  checkTargets(network, x, y);
  const pass = createPass(network);
  let sum = 0;
  for (let first = 0; first < x.rows; first += pass.rowsMax)
    sum += sliceLoss(network, x, y, first, pass, classWeights ?? null);
  return sum / x.rows;
}

/** The sum of losses of the rows from `first` on that fill the pass, or that are left. */
export function sliceLoss(
  network: Network,
  x: Matrix,
  y: Targets,
  first: number,
  pass: Pass,
  classWeights: Float64Array | null,
): number {
  const rows = Math.min(pass.rowsMax, x.rows - first);
  const last = runLayers(network, x.values, first * x.columns, rows, pass);
  return lossSum(last, rows, outputsOf(network), y, first, classWeights, null, 1);
}

/** Loss with decay, and its derivatives, over all examples as one batch. */
export function gradients(
  network: Network,
  x: Matrix,
  y: Targets,
  { decay = 0, classWeights }: { decay?: number; classWeights?: Float64Array } = {},
): { loss: number; gradients: Gradients } {
  checkTargets(network, x, y);
  const space = createWorkspace(network);
  let sum = 0;
  for (let first = 0; first < x.rows; first += space.rowsMax) {
    const rows = Math.min(space.rowsMax, x.rows - first);
    sum += addSlice(network, x, y, first, rows, space, classWeights ?? null, 1 / x.rows);
  }
  const loss = sum / x.rows + addDecay(network, space.gradients, decay, x.rows);
  return { loss, gradients: space.gradients };
}
