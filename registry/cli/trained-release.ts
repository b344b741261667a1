// Why: the files of a trained model's folder: the model, what devices must reproduce, what it was made of and worth.
// Trusts: a finished training. Must never: ship a graph that answers otherwise than the network that was tested.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../shared/host/clock.ts';
import { openModelRuns } from '../../shared/host/model-runs.ts';
import { hasRuntime } from '../../shared/host/model-trial.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { type CardFacts, cardText } from '../learn/card.ts';
import { writeTrained } from '../learn/conversion.ts';
import { chooseGolden, goldenFile } from '../learn/golden-making.ts';
import type { Answers, Examples } from '../learn/model.ts';
import { inputTensors, outputTensors } from '../learn/model-tensors.ts';
import { answersOf, examplesAt, type Training } from '../learn/pipeline.ts';
import type { ReadingReport } from '../learn/reading/report.ts';
import { profileOf } from '../learn/trained-profile.ts';
import { yamlText } from '../policy/yaml-file.ts';
import { note } from './output.ts';
import { programVersion } from './version.ts';

export interface ReleaseFacts extends Omit<CardFacts, 'modelBytes' | 'goldenCases'> {
  goldenMax: number;
  /** How the file was read, as it stands in `metrics.json`. */
  reading: ReadingReport;
}

/** Rows whose answers are compared between the network and its graph. */
const comparedMax = 1_000;
/** Single precision against double, over a few layers. */
const tolerance = 1e-4;

/** What the file says of itself, so that `lepton evaluate` finds its columns and its test part again. */
function metadataOf({ recipe, laid }: Training, facts: ReleaseFacts): Record<string, string> {
  const { numeric, categories } = laid.chosen;
  const columns = { numeric: numeric.map(({ name }) => name), texts: categories.map(({ name }) => name) };
  return {
    'lepton.recipe': JSON.stringify(recipe),
    'lepton.data.sha256': facts.dataSha256,
    task: recipe.task,
    target: recipe.target,
    columns: JSON.stringify(columns),
    window: String(recipe.window ?? 1),
    horizon: String(recipe.task === 'forecast' ? recipe.horizon : 0),
    ...(laid.labels === null ? {} : { labels: JSON.stringify(laid.labels) }),
  };
}

/** The graph in the runtime itself, on rows that were not trained on. */
async function checkGraph(
  bytes: Uint8Array,
  examples: Examples,
  answers: Answers,
  training: Training,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-train-'));
  try {
    const modelPath = join(folder, 'model.onnx');
    writeFileSync(modelPath, bytes);
    const runs = unwrap(await openModelRuns({ modelPath, clock: systemClock }));
    try {
      const got = unwrap(await runs.run(inputTensors(examples)));
      const difference = differenceOf(outputTensors(answers, training.model.head), got);
      if (difference !== null)
        // Both are tested to be one: what is left is numbers so far out that single precision has no digits for them.
        throw new FleetError(
          'data-unfit',
          `in single precision, as devices compute, the model answers otherwise: ${difference}`,
          {
            hint: 'clip what is far out (--outliers clip), or normalise otherwise (--normalise)',
          },
        );
    } finally {
      await runs.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Of the numbers; labels follow from them. */
function differenceOf(expected: readonly Tensor[], got: readonly Tensor[]): string | null {
  for (const want of expected) {
    const have = got.find(({ name }) => name === want.name);
    if (have === undefined) return `there is no output ${want.name}`;
    if (!(want.data instanceof Float32Array) || !(have.data instanceof Float32Array)) continue;
    for (const [at, value] of want.data.entries()) {
      const other = have.data[at] ?? Number.NaN;
      if (!(Math.abs(other - value) <= tolerance * (1 + Math.abs(value))))
        return `${want.name}[${at}] is ${other}, not ${value}`;
    }
  }
  return null;
}

/** How two releases are compared on live inputs. */
function compareOf({ model, recipe }: Training): Record<string, unknown> {
  const { head } = model;
  if (head.kind === 'classes') return { output: 'probabilities', by: 'argmax' };
  if (head.kind === 'anomaly') return { output: 'anomaly', by: 'exact' };
  return {
    output: 'prediction',
    by: 'absolute',
    tolerance: Number((head.scale * (recipe.task === 'forecast' ? 0.5 : 0.1)).toPrecision(3)),
  };
}

function manifestText(training: Training): string {
  const { window } = training.recipe;
  return yamlText(
    {
      compare: compareOf(training),
      session: { threads: 1, maxBatch: 64 },
      ...(window === null ? {} : { stream: { input: 'values', window, hop: 1, axis: -2 } }),
    },
    'What `lepton models push` adds to the manifest; limits such as {latencyP95Ms: 20} may stand here too.',
  );
}

function goldenRows(training: Training, count: number): Int32Array {
  const { answers, examples } = training.tested;
  return chooseGolden({
    rows: examples.at.length,
    classOf: answers.kind === 'classes' ? (row) => answers.best[row] ?? 0 : null,
    margin: marginOf(answers),
    extremes: examples.numeric
      .slice(0, 16)
      .map(({ values }) => Float64Array.from(examples.at, (row) => values[row] as number)),
    count,
    seed: training.recipe.seed,
  });
}

/** How far a row is from the edge between two answers. */
function marginOf(answers: Answers): ((row: number) => number) | null {
  if (answers.kind === 'value') return null;
  if (answers.kind === 'anomaly') return (row) => Math.abs((answers.scores[row] ?? 0) - 1);
  const { columns, values } = answers.probabilities;
  return (row) => {
    const sorted = values.slice(row * columns, (row + 1) * columns).sort();
    return (sorted[columns - 1] ?? 0) - (sorted[columns - 2] ?? 0);
  };
}

/** By name. Fault: `data-unfit` where the graph, in single precision, does not do what was tested. */
export async function releaseFiles(
  training: Training,
  facts: ReleaseFacts,
): Promise<Map<string, Uint8Array | string>> {
  const { recipe, laid, tested, model } = training;
  const bytes = writeTrained(model, {
    name: recipe.target,
    documentation: `${recipe.task} of ${recipe.target}, trained by lepton ${programVersion} on ${facts.dataFile}`,
    metadata: metadataOf(training, facts),
  });
  const some = (at: Int32Array): { examples: Examples; answers: Answers } => {
    const examples = examplesAt(laid, recipe, at);
    return { examples, answers: answersOf(model, examples) };
  };
  if (!hasRuntime()) note('ONNX Runtime is not installed here: the file was not compared with the network\n');
  else {
    const compared = some(tested.examples.at.subarray(0, comparedMax));
    await checkGraph(bytes, compared.examples, compared.answers, training);
  }
  const golden = [...goldenRows(training, facts.goldenMax)].map((row) => {
    const { examples, answers } = some(tested.examples.at.subarray(row, row + 1));
    return { inputs: inputTensors(examples), expected: outputTensors(answers, model.head) };
  });
  const card = { ...facts, modelBytes: bytes.length, goldenCases: golden.length };
  const { metrics, cleaning, history, epochsRun, bestEpoch } = training;
  const json = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`;
  return new Map<string, Uint8Array | string>([
    ['model.onnx', bytes],
    ['golden.json', goldenFile(golden)],
    ['profile.json', json(profileOf(training))],
    [
      'metrics.json',
      json({ schemaVersion: 1, metrics, reading: facts.reading, cleaning, epochsRun, bestEpoch, history }),
    ],
    ['card.md', cardText(training, card)],
    ['manifest.yaml', manifestText(training)],
    ['recipe.yaml', yamlText(recipe, 'lepton train DATA.csv --recipe recipe.yaml makes this model again.')],
  ]);
}
