// Why: fits the demo's small classifiers on simulated windows and writes them as ONNX models.
// Trusts: the simulated machine for truth. Must never: draw real randomness; the same code gives the same model.
//
// Training as a feature of the product comes later; this is the little that a demonstration needs: softmax
// regression on standardised features by plain gradient descent.

import { writeModel } from '../../shared/onnx/writer.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { channels, createMachine, type MachineWindow, regimes, windowSamples } from '../sensors/machine.ts';
import { windowFeatures } from '../sensors/window-features.ts';

/** `levels`: the mean of each channel. `shape`: RMS and peak besides. */
export type FeatureSet = 'levels' | 'shape';

export interface Classifier {
  features: FeatureSet;
  /** On raw features, `[feature][regime]`. */
  weights: number[][];
  bias: number[];
}

/** Windows of many machines in every state of wear, each after its housing has settled. */
export function sampleWindows(count: number, seed: number): MachineWindow[] {
  return Array.from({ length: count }, (_, at) => {
    const machine = createMachine({ seed: seed + at, wear: (at + 0.5) / count });
    for (let settle = 0; settle < 4; settle += 1) machine.window();
    return machine.window();
  });
}

function featuresOf(samples: Float32Array, set: FeatureSet): number[] {
  const { level, rms, peak } = windowFeatures(samples);
  return set === 'levels' ? level : [...level, ...rms, ...peak];
}

function softmax(logits: readonly number[]): number[] {
  const highest = Math.max(...logits);
  const raised = logits.map((logit) => Math.exp(logit - highest));
  const sum = raised.reduce((total, value) => total + value, 0);
  return raised.map((value) => value / sum);
}

function logitsOf(row: readonly number[], weights: readonly number[][], bias: readonly number[]): number[] {
  return bias.map((offset, regime) =>
    row.reduce((sum, value, feature) => sum + value * (weights[feature]?.[regime] ?? 0), offset),
  );
}

const steps = 600;
const stepSize = 0.8;
/** Keeps the weights small where classes can be told apart completely. */
const decay = 1e-4;

export function fitClassifier(windows: readonly MachineWindow[], set: FeatureSet): Classifier {
  const raw = windows.map(({ samples }) => featuresOf(samples, set));
  const truth = windows.map(({ regime }) => regimes.indexOf(regime));
  const width = raw[0]?.length ?? 0;
  const means = Array.from({ length: width }, (_, feature) => mean(raw.map((row) => row[feature] ?? 0)));
  const spreads = means.map(
    (middle, feature) => Math.sqrt(mean(raw.map((row) => ((row[feature] ?? 0) - middle) ** 2))) || 1,
  );
  const rows = raw.map((row) => row.map((value, at) => (value - (means[at] ?? 0)) / (spreads[at] ?? 1)));
  const weights = Array.from({ length: width }, () => regimes.map(() => 0));
  const bias = regimes.map(() => 0);
  for (let step = 0; step < steps; step += 1) {
    const slope = Array.from({ length: width }, () => regimes.map(() => 0));
    const biasSlope = regimes.map(() => 0);
    for (const [at, row] of rows.entries()) {
      for (const [regime, probability] of softmax(logitsOf(row, weights, bias)).entries()) {
        const error = (probability - (truth[at] === regime ? 1 : 0)) / rows.length;
        biasSlope[regime] = (biasSlope[regime] ?? 0) + error;
        for (const [feature, sums] of slope.entries())
          sums[regime] = (sums[regime] ?? 0) + error * (row[feature] ?? 0);
      }
    }
    for (const regime of regimes.keys()) {
      bias[regime] = (bias[regime] ?? 0) - stepSize * (biasSlope[regime] ?? 0);
      for (const [feature, row] of weights.entries())
        row[regime] = (row[regime] ?? 0) * (1 - decay) - stepSize * (slope[feature]?.[regime] ?? 0);
    }
  }
  // The standardisation is folded in, so that the graph takes features as they are.
  const folded = weights.map((row, feature) => row.map((weight) => weight / (spreads[feature] ?? 1)));
  const shifted = bias.map((offset, regime) =>
    folded.reduce((rest, row, feature) => rest - (row[regime] ?? 0) * (means[feature] ?? 0), offset),
  );
  return { features: set, weights: folded, bias: shifted };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Probability of each regime. */
export function classify(classifier: Classifier, samples: Float32Array): number[] {
  return softmax(logitsOf(featuresOf(samples, classifier.features), classifier.weights, classifier.bias));
}

/** Fraction of the windows whose most probable regime is the true one. */
export function accuracyOf(classifier: Classifier, windows: readonly MachineWindow[]): number {
  const right = windows.filter(({ samples, regime }) => {
    const probabilities = classify(classifier, samples);
    return probabilities.indexOf(Math.max(...probabilities)) === regimes.indexOf(regime);
  });
  return right.length / windows.length;
}

/** The same features with the answers of two regimes exchanged: what a mistaken export looks like. */
export function withExchangedAnswers(classifier: Classifier): Classifier {
  const turned = (row: readonly number[]): number[] => [...row].reverse();
  return { ...classifier, weights: classifier.weights.map(turned), bias: turned(classifier.bias) };
}

export const inputName = 'window';
export const outputNames = { probabilities: 'probabilities', regime: 'regime' } as const;

/**
 * The model: `window` FP32 [n, 64, 3] of raw samples to `probabilities` FP32 [n, 3] and `regime` INT64 [n],
 * its features computed in the graph, so that no application can compute them differently.
 */
export function classifierModel(classifier: Classifier): Uint8Array {
  const perWindow = { axes: { ints: [1] }, keepdims: { int: 0 } };
  const shaped = classifier.features === 'shape';
  const shapeNodes = [
    { operator: 'ReduceMean', inputs: ['window'], outputs: ['middle'], attributes: { axes: { ints: [1] } } },
    { operator: 'Sub', inputs: ['window', 'middle'], outputs: ['off'] },
    { operator: 'Mul', inputs: ['off', 'off'], outputs: ['square'] },
    { operator: 'ReduceMean', inputs: ['square'], outputs: ['variance'], attributes: perWindow },
    { operator: 'Sqrt', inputs: ['variance'], outputs: ['rms'] },
    { operator: 'Abs', inputs: ['off'], outputs: ['distance'] },
    { operator: 'ReduceMax', inputs: ['distance'], outputs: ['peak'], attributes: perWindow },
    {
      operator: 'Concat',
      inputs: ['level', 'rms', 'peak'],
      outputs: ['features'],
      attributes: { axis: { int: 1 } },
    },
  ];
  return writeModel({
    name: 'machine-health',
    inputs: [{ name: inputName, datatype: 'FP32', shape: ['n', windowSamples, channels.length] }],
    outputs: [
      { name: outputNames.probabilities, datatype: 'FP32', shape: ['n', regimes.length] },
      { name: outputNames.regime, datatype: 'INT64', shape: ['n'] },
    ],
    nodes: [
      { operator: 'ReduceMean', inputs: ['window'], outputs: ['level'], attributes: perWindow },
      ...(shaped ? shapeNodes : []),
      { operator: 'Gemm', inputs: [shaped ? 'features' : 'level', 'weights', 'bias'], outputs: ['logits'] },
      {
        operator: 'Softmax',
        inputs: ['logits'],
        outputs: [outputNames.probabilities],
        attributes: { axis: { int: -1 } },
      },
      {
        operator: 'ArgMax',
        inputs: [outputNames.probabilities],
        outputs: [outputNames.regime],
        attributes: { axis: { int: 1 }, keepdims: { int: 0 } },
      },
    ],
    initializers: [
      {
        name: 'weights',
        datatype: 'FP32',
        shape: [classifier.weights.length, regimes.length],
        data: Float32Array.from(classifier.weights.flat()),
      },
      { name: 'bias', datatype: 'FP32', shape: [regimes.length], data: Float32Array.from(classifier.bias) },
    ],
    metadata: { channels: channels.join(','), regimes: regimes.join(',') },
  });
}

/** One window as the model's input. */
export function windowTensor(samples: Float32Array): Tensor {
  return { name: inputName, datatype: 'FP32', shape: [1, windowSamples, channels.length], data: samples };
}
