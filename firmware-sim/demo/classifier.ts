// Why: trains the demo's classifiers on simulated windows with the product's own trainer, as `lepton train` does.
// Trusts: the simulated machine for truth. Must never: draw real randomness; the same code gives the same model.

import { fitCleaning } from '../../registry/learn/cleaning.ts';
import { writeTrained } from '../../registry/learn/conversion.ts';
import { forward } from '../../registry/learn/forward.ts';
import type { Answers, Examples, Network, TrainedModel } from '../../registry/learn/model.ts';
import { inputTensors } from '../../registry/learn/model-tensors.ts';
import { answer, fitPreparation, prepare } from '../../registry/learn/preparation.ts';
import { parseRecipe } from '../../registry/learn/recipe.ts';
import { trainNetwork } from '../../registry/learn/training.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { channels, createMachine, type MachineWindow, regimes, windowSamples } from '../sensors/machine.ts';

/** `levels`: the mean of each channel. `shape`: deviation and extremes besides. */
export type FeatureSet = 'levels' | 'shape';

/** Windows of many machines in every state of wear, each after its housing has settled. */
export function sampleWindows(count: number, seed: number): MachineWindow[] {
  return Array.from({ length: count }, (_, at) => {
    const machine = createMachine({ seed: seed + at, wear: (at + 0.5) / count });
    for (let settle = 0; settle < 4; settle += 1) machine.window();
    return machine.window();
  });
}

/** Windows one after the other as columns; an example is the whole of one. */
function examplesOf(windows: readonly Float32Array[]): Examples {
  const numeric = channels.map((name, channel) => {
    const values = new Float64Array(windows.length * windowSamples);
    for (const [at, samples] of windows.entries())
      for (let row = 0; row < windowSamples; row += 1)
        values[at * windowSamples + row] = samples[row * channels.length + channel] ?? 0;
    return { kind: 'numeric' as const, name, values };
  });
  const at = Int32Array.from(windows, (_, window) => (window + 1) * windowSamples - 1);
  return { numeric, categories: [], at, window: windowSamples };
}

const recipeOf = (set: FeatureSet) =>
  unwrap(
    parseRecipe({
      ...{ target: 'regime', task: 'classification', window: windowSamples },
      windowFeatures: set === 'levels' ? ['mean'] : ['mean', 'deviation', 'minimum', 'maximum'],
      ...{
        hidden: [8],
        activation: 'tanh',
        learningRate: 0.01,
        epochs: 60,
        batch: 32,
        patience: null,
        seed: 1,
      },
    }),
  );

/** Answers with the regime's place among `regimes`. */
export async function fitClassifier(
  windows: readonly MachineWindow[],
  set: FeatureSet,
): Promise<TrainedModel> {
  const recipe = recipeOf(set);
  const examples = examplesOf(windows.map(({ samples }) => samples));
  const { numeric } = fitCleaning({
    ...{ columns: examples.numeric, categories: [], sentinels: new Map(), rules: recipe },
    rows: Int32Array.from({ length: windows.length * windowSamples }, (_, row) => row),
  });
  const preparation = fitPreparation({ examples, numeric, categories: [], recipe });
  const train = {
    x: prepare(preparation, examples),
    y: Int32Array.from(windows, ({ regime }) => regimes.indexOf(regime)),
  };
  const { network } = unwrap(
    await trainNetwork({ recipe, train, validation: null, classes: regimes.length }),
  );
  return { preparation, network, head: { kind: 'classes', labels: regimes.map((_, place) => place) } };
}

function answersTo(
  model: TrainedModel,
  windows: readonly Float32Array[],
): Extract<Answers, { kind: 'classes' }> {
  const examples = examplesOf(windows);
  const answers = answer(model, prepare(model.preparation, examples), examples, forward);
  if (answers.kind !== 'classes') throw new TypeError('a classifier answers with classes');
  return answers;
}

/** Probability of each regime. */
export function classify(model: TrainedModel, samples: Float32Array): number[] {
  return [...answersTo(model, [samples]).probabilities.values];
}

/** Fraction of the windows whose most probable regime is the true one. */
export function accuracyOf(model: TrainedModel, windows: readonly MachineWindow[]): number {
  const { best } = answersTo(
    model,
    windows.map(({ samples }) => samples),
  );
  return windows.filter(({ regime }, at) => best[at] === regimes.indexOf(regime)).length / windows.length;
}

/** The same network with the answers of two regimes exchanged: what a mistaken export looks like. */
export function withExchangedAnswers(model: TrainedModel): TrainedModel {
  const layers = model.network.layers.map((layer, at) => {
    if (at < model.network.layers.length - 1) return layer;
    const { inputs, outputs, weights, bias } = layer;
    const turned = weights.map((_, place) => {
      const row = Math.floor(place / outputs);
      return weights[row * outputs + outputs - 1 - (place % outputs)] as number;
    });
    return { inputs, outputs, weights: turned, bias: bias.slice().reverse() };
  });
  const network: Network = { ...model.network, layers };
  return { ...model, network };
}

export const outputNames = { probabilities: 'probabilities', regime: 'label' } as const;

/**
 * The model: `values` FP32 [n, 64, 3] of raw samples to `probabilities` FP32 [n, 3] and `label` INT64 [n], its features
 * computed in the graph, so that no application can compute them differently.
 */
export function classifierModel(model: TrainedModel): Uint8Array {
  return writeTrained(model, {
    name: 'machine-health',
    documentation: 'Whether a machine is healthy, worn or failing; simulated.',
    metadata: { channels: channels.join(','), regimes: regimes.join(',') },
  });
}

/** One window as the model's input. */
export function windowTensor(samples: Float32Array): Tensor {
  const [tensor] = inputTensors(examplesOf([samples]));
  if (tensor === undefined) throw new TypeError('a window has channels');
  return tensor;
}
