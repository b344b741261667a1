// Why: the three releases of the demo: a good one, a better one, and one whose weights are wrong under the
// better one's golden cases. Trusts: classifier.ts. Must never: let the third pass by luck: its golden cases
// hold only windows on which the second is sure.

import type { TrainedModel } from '../../registry/learn/model.ts';
import { type GoldenCase, writeGolden } from '../../shared/wire/golden.ts';
import { regimes } from '../sensors/machine.ts';
import {
  accuracyOf,
  classifierModel,
  classify,
  fitClassifier,
  outputNames,
  sampleWindows,
  windowTensor,
  withExchangedAnswers,
} from './classifier.ts';

export interface DemoRelease {
  version: string;
  /** In words, for the story. */
  what: string;
  model: Uint8Array;
  golden: Uint8Array;
  card: string;
  /** On windows that the fit has not seen. */
  accuracy: number;
}

const trainingWindows = 600;
const heldOutWindows = 600;
/** Seeds far from each other: no window is in both. */
const trainingSeed = 1_000;
const heldOutSeed = 900_000;
const goldenPerRegime = 4;
/** A golden answer must not hang on a runtime's last digits: so far ahead of the next one. */
const leadFrom = 0.2;

function goldenCases(classifier: TrainedModel): GoldenCase[] {
  const windows = sampleWindows(heldOutWindows, heldOutSeed);
  return regimes.flatMap((_, regime) =>
    windows
      .map(({ samples }) => ({ samples, probabilities: classify(classifier, samples) }))
      .sort((a, b) => lead(b.probabilities, regime) - lead(a.probabilities, regime))
      .filter(({ probabilities }) => lead(probabilities, regime) >= leadFrom)
      .slice(0, goldenPerRegime)
      .map(({ samples, probabilities }) => ({
        inputs: [windowTensor(samples)],
        expected: [
          {
            name: outputNames.probabilities,
            datatype: 'FP32' as const,
            shape: [1, regimes.length],
            data: Float32Array.from(probabilities),
          },
          {
            name: outputNames.regime,
            datatype: 'INT64' as const,
            shape: [1],
            data: BigInt64Array.of(BigInt(regime)),
          },
        ],
        rtol: 1e-3,
        atol: 1e-3,
        sequence: null,
      })),
  );
}

/** How far the answer is ahead of the next one; negative where it is not the answer. */
function lead(probabilities: readonly number[], regime: number): number {
  const others = probabilities.filter((_, other) => other !== regime);
  return (probabilities[regime] ?? 0) - Math.max(...others);
}

function card(title: string, features: string, accuracy: number): string {
  return [
    `# Machine health: ${title}`,
    '',
    `Tells ${regimes.join(', ')} from half a second of temperature, vibration and current.`,
    `Features, computed in the graph: ${features}.`,
    `A network with one hidden layer, trained on ${trainingWindows} simulated windows; right on ${percent(accuracy)} of ${heldOutWindows} others.`,
    'Simulated data only: of no use on a real machine.',
    '',
  ].join('\n');
}

export function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}

/** Trains and writes all three; about a second of work. */
export async function demoReleases(): Promise<DemoRelease[]> {
  const training = sampleWindows(trainingWindows, trainingSeed);
  const heldOut = sampleWindows(heldOutWindows, heldOutSeed);
  const good = await fitClassifier(training, 'levels');
  const better = await fitClassifier(training, 'shape');
  const wrong = withExchangedAnswers(better);
  const release = (
    version: string,
    what: string,
    made: TrainedModel,
    golden: TrainedModel,
    features: string,
  ) => {
    const accuracy = accuracyOf(made, heldOut);
    return {
      version,
      what,
      model: classifierModel(made),
      golden: writeGolden(goldenCases(golden)),
      card: card(what, features, accuracy),
      accuracy,
    };
  };
  const shape = 'mean, deviation, minimum and maximum of each channel';
  return [
    release('1.0.0', 'looks at the level of each sensor', good, good, 'mean of each channel'),
    release('2.0.0', 'looks at the shape of the vibration too', better, better, shape),
    release('3.0.0', 'exported with two answers exchanged', wrong, better, shape),
  ];
}
