// Why: what a network answers to rows of numbers. Pure. Trusts: its callers for finite inputs and a network whose
// layers fit together. Must never: let the answer to one row depend on the rows beside it.

import { invariant } from '../../shared/kernel/errors.ts';
import { exp, logistic, tanh } from './elementary.ts';
import { type Matrix, matrix } from './matrix.ts';
import { addProduct } from './matrix-product.ts';
import type { Network } from './model.ts';

/** Rows that are worked on at once: their activations stay in the cache, however large a batch is. */
const sliceValuesMax = 32_768;

/** Buffers for the outputs of every layer, of up to `rowsMax` rows. They are written over by each pass. */
export interface Pass {
  rowsMax: number;
  /** Of each layer, `rowsMax` × its outputs: activations, and of the last layer the sums before its output function. */
  outputs: Float64Array[];
}

export function createPass(network: Network): Pass {
  const widest = network.layers.reduce((most, layer) => Math.max(most, layer.inputs, layer.outputs), 1);
  const rowsMax = Math.min(256, Math.max(8, Math.floor(sliceValuesMax / widest)));
  return { rowsMax, outputs: network.layers.map(({ outputs }) => new Float64Array(rowsMax * outputs)) };
}

/** In place. */
function activate(values: Float64Array, count: number, activation: Network['activation']): void {
  if (activation === 'relu') {
    // A NaN stays one: a training that diverges must not look well.
    for (let at = 0; at < count; at += 1) values[at] = Math.max(0, values[at] as number);
  } else if (activation === 'sigmoid') {
    for (let at = 0; at < count; at += 1) values[at] = logistic(values[at] as number);
  } else {
    for (let at = 0; at < count; at += 1) values[at] = tanh(values[at] as number);
  }
}

/**
 * Fills the pass for `rows` rows of `x`, which begin at the value `from`, and gives the sums of the last layer: logits
 * of a softmax, or the outputs themselves.
 */
export function runLayers(
  network: Network,
  x: Float64Array,
  from: number,
  rows: number,
  pass: Pass,
): Float64Array {
  let input = x;
  let inputFrom = from;
  for (let index = 0; index < network.layers.length; index += 1) {
    const layer = network.layers[index];
    const output = pass.outputs[index];
    invariant(layer !== undefined && output !== undefined, 'a pass has a buffer for each layer');
    const { inputs, outputs, weights, bias } = layer;
    for (let row = 0; row < rows; row += 1) output.set(bias, row * outputs);
    addProduct(output, rows, outputs, inputs, input, inputFrom, inputs, 1, weights, outputs, 1);
    if (index + 1 < network.layers.length) activate(output, rows * outputs, network.activation);
    input = output;
    inputFrom = 0;
  }
  return input;
}

/** In place, each row by itself; the greatest logit is taken off first, so that no exponential overflows. */
export function softmaxRows(values: Float64Array, rows: number, columns: number): void {
  for (let row = 0; row < rows; row += 1) {
    const from = row * columns;
    let greatest = values[from] as number;
    for (let at = from + 1; at < from + columns; at += 1)
      if ((values[at] as number) > greatest) greatest = values[at] as number;
    let sum = 0;
    for (let at = from; at < from + columns; at += 1) {
      const power = exp((values[at] as number) - greatest);
      values[at] = power;
      sum += power;
    }
    for (let at = from; at < from + columns; at += 1) values[at] = (values[at] as number) / sum;
  }
}

export function outputsOf(network: Network): number {
  return network.layers.at(-1)?.outputs ?? 0;
}

/**
 * Answers to the rows `from` … `to` − 1 of `x`: (to − from) × outputs; class probabilities of a softmax. The bits of a
 * row's answer do not depend on which rows are asked with it, so a long run may be cut anywhere.
 */
export function forward(network: Network, x: Matrix, from = 0, to = x.rows): Matrix {
  invariant(network.layers[0]?.inputs === x.columns, 'a network takes as many columns as its first layer');
  const outputs = outputsOf(network);
  const answers = matrix(to - from, outputs);
  const pass = createPass(network);
  for (let row = from; row < to; row += pass.rowsMax) {
    const rows = Math.min(pass.rowsMax, to - row);
    const last = runLayers(network, x.values, row * x.columns, rows, pass);
    if (network.output === 'softmax') softmaxRows(last, rows, outputs);
    answers.values.set(last.subarray(0, rows * outputs), (row - from) * outputs);
  }
  return answers;
}
