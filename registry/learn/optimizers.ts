// Why: from derivatives to the next weights. Pure. Trusts: gradients as the network's layers.
// Must never: allocate in a step.

import { invariant } from '../../shared/kernel/errors.ts';
import type { Gradients } from './backward.ts';
import type { Network } from './model.ts';
import type { Recipe } from './recipe.ts';

/** Changes the network's weights in place. */
export type Step = (gradients: Gradients) => void;

const momentum = 0.9;
const [firstDecay, secondDecay, epsilon] = [0.9, 0.999, 1e-8];

/** Nesterov's momentum as Sutskever et al. (2013) write it, and scikit-learn computes it. */
function descend(
  values: Float64Array,
  gradient: Float64Array,
  velocity: Float64Array,
  learningRate: number,
): void {
  for (let at = 0; at < values.length; at += 1) {
    const down = learningRate * (gradient[at] as number);
    const speed = momentum * (velocity[at] as number) - down;
    velocity[at] = speed;
    values[at] = (values[at] as number) + momentum * speed - down;
  }
}

function descendAdaptively(
  values: Float64Array,
  gradient: Float64Array,
  first: Float64Array,
  second: Float64Array,
  rate: number,
): void {
  for (let at = 0; at < values.length; at += 1) {
    const slope = gradient[at] as number;
    const mean = firstDecay * (first[at] as number) + (1 - firstDecay) * slope;
    const square = secondDecay * (second[at] as number) + (1 - secondDecay) * slope * slope;
    first[at] = mean;
    second[at] = square;
    values[at] = (values[at] as number) - (rate * mean) / (Math.sqrt(square) + epsilon);
  }
}

/**
 * `sgd`: stochastic gradient descent with Nesterov's momentum 0.9. `adam`: Kingma, Ba (2015), algorithm 1 in the order
 * of its §2, with β 0.9 and 0.999, ε 1e-8. Both as scikit-learn's, at a constant learning rate.
 */
export function createOptimizer(kind: Recipe['optimizer'], network: Network, learningRate: number): Step {
  const values = network.layers.flatMap(({ weights, bias }) => [weights, bias]);
  const first = values.map(({ length }) => new Float64Array(length));
  const second = kind === 'adam' ? values.map(({ length }) => new Float64Array(length)) : [];
  // β^t, multiplied up: a power of `Math` may differ in its last bit from platform to platform.
  let [firstPower, secondPower] = [1, 1];
  return (gradients) => {
    firstPower *= firstDecay;
    secondPower *= secondDecay;
    const rate = (learningRate * Math.sqrt(1 - secondPower)) / (1 - firstPower);
    for (let index = 0; index < values.length; index += 1) {
      const layer = gradients[index >> 1];
      const gradient = index % 2 === 0 ? layer?.weights : layer?.bias;
      const [into, mean, square] = [values[index], first[index], second[index]];
      invariant(
        gradient !== undefined && into !== undefined && mean !== undefined,
        'gradients are as layers',
      );
      if (square === undefined) descend(into, gradient, mean, learningRate);
      else descendAdaptively(into, gradient, mean, square, rate);
    }
  };
}
