// Why: from a table and a recipe to a trained model and what it is worth on rows that it never saw.
// Trusts: a table that was read; the seed for all chance. Must never: fit anything on the test part.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type CleaningReport, cleanValue, fitCleaning } from './cleaning.ts';
import { type Metrics, measure } from './evaluation.ts';
import { featureColumns } from './features.ts';
import { forward } from './forward.ts';
import { type Laid, layOut, truthAt } from './laying.ts';
import { type Matrix, matrix } from './matrix.ts';
import type {
  Answers,
  Examples,
  Head,
  Layer,
  Network,
  NumericCleaning,
  Preparation,
  TrainedModel,
} from './model.ts';
import { answer, fitPreparation, prepare } from './preparation.ts';
import type { Recipe } from './recipe.ts';
import { ahead } from './rows.ts';
import type { Table } from './table.ts';
import { type Epoch, type ExampleSet, trainNetwork } from './training.ts';

export interface TrainingHooks {
  onEpoch?: (epoch: Epoch) => void;
  /** Awaited between batches, so that the program stays responsive. */
  breathe?: () => Promise<void>;
}

/** The test part with what the model says of it. */
export interface Tested {
  examples: Examples;
  truth: Float64Array;
  answers: Answers;
}

export interface Training {
  recipe: Recipe;
  laid: Laid;
  cleaning: CleaningReport;
  model: TrainedModel;
  epochsRun: number;
  bestEpoch: number;
  history: { loss: number; validationLoss: number | null }[];
  trainRows: number;
  tested: Tested;
  metrics: Metrics;
}

/** Of the scores of the training part, the one above which an anomaly begins: one row in two hundred was beyond it. */
const anomalyQuantile = 0.995;

function quantileOf(values: Float64Array, share: number): number {
  const sorted = values.slice().sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length))] ?? 0;
}

/** In single precision, as the file holds them: what is measured is what is shipped. */
function rounded(network: Network): Network {
  const layers = network.layers.map(
    (layer): Layer => ({
      ...layer,
      weights: layer.weights.map(Math.fround),
      bias: layer.bias.map(Math.fround),
    }),
  );
  return { ...network, layers };
}

export interface Targets {
  head: Head;
  /** Of examples: classes, or the numbers that the network is to give. */
  of(rows: Int32Array, prepared: Matrix): Int32Array | Matrix;
}

function targetsOf(laid: Laid, recipe: Recipe, numeric: readonly NumericCleaning[]): Targets {
  const { chosen, labels, split } = laid;
  if (labels !== null)
    return { head: { kind: 'classes', labels }, of: (rows) => Int32Array.from(truthAt(laid, recipe, rows)) };
  if (recipe.task === 'anomaly')
    return { head: { kind: 'anomaly', threshold: 1 }, of: (_rows, prepared) => prepared };
  const { target } = chosen;
  const carried =
    recipe.task === 'forecast' && target.kind === 'numeric' ? chosen.numeric.indexOf(target) : -1;
  const column = chosen.numeric[carried];
  const cleaning = numeric[carried];
  const last = (row: number): number =>
    column === undefined || cleaning === undefined
      ? 0
      : cleanValue(cleaning, Math.fround(column.values[row] as number));
  const differences = (rows: Int32Array): Float64Array =>
    truthAt(laid, recipe, rows).map((value, at) => value - last(rows[at] as number));
  const known = differences(split.train);
  const center = Math.fround(known.reduce((sum, value) => sum + value, 0) / known.length);
  const spread = Math.sqrt(known.reduce((sum, value) => sum + (value - center) ** 2, 0) / known.length);
  const scale = Math.fround(spread) || 1;
  return {
    head: { kind: 'value', center, scale, carries: column === undefined ? null : carried },
    of: (rows) => {
      const made = matrix(rows.length, 1);
      made.values.set(differences(rows).map((value) => (value - center) / scale));
      return made;
    },
  };
}

/** What a device would be given, and the true answers, of these rows. */
export function examplesAt(laid: Laid, recipe: Recipe, at: Int32Array): Examples {
  const { numeric, categories } = laid.chosen;
  return { numeric, categories, at, window: recipe.window ?? 1 };
}

/** What a trained model says of examples, as its ONNX file would. */
export const answersOf = (model: TrainedModel, examples: Examples): Answers =>
  answer(model, prepare(model.preparation, examples), examples, forward);

/** Rows of before the test part that anything is measured against: the naive guesses of a forecast need them. */
function measured(
  laid: Laid,
  recipe: Recipe,
  at: Int32Array,
  truth: Float64Array,
  answers: Answers,
): Result<Metrics> {
  return measure({
    task: recipe.task,
    truth,
    answers,
    labels: laid.labels,
    series: laid.truth,
    at,
    reach: ahead(recipe.task, recipe.horizon),
    stepMs: laid.stepMs,
    trainedOn: truthAt(laid, recipe, laid.split.train),
  });
}

/** Everything that a training begins with. */
export interface Ready {
  recipe: Recipe;
  laid: Laid;
  cleaning: { numeric: NumericCleaning[]; report: CleaningReport };
  preparation: Preparation;
  targets: Targets;
  /** Rows that are trained on: of anomalies those that are none. */
  rows: { train: Int32Array; validation: Int32Array };
  train: ExampleSet;
  validation: ExampleSet | null;
}

/** Numbers that training holds at once: 800 MB of them. */
const preparedMax = 100_000_000;
/** Weights with what an optimizer keeps of each: some 40 bytes. */
const weightsMax = 20_000_000;

/** Why this cannot be held; null where it can. Texts make few columns beside windows, and are left out here. */
function tooLarge(
  { window, windowFeatures, bands, hidden }: Recipe,
  numeric: number,
  rows: number,
): string | null {
  const width =
    window === null ? numeric : numeric * featureColumns({ window, features: windowFeatures, bands }).length;
  if (width * rows > preparedMax)
    return `${rows} rows of ${width} features are ${width * rows} numbers, at most ${preparedMax} are held; use fewer --features, a shorter --window or fewer --window-features`;
  const widths = [width, ...hidden, 1];
  const weights = widths.slice(1).reduce((sum, outputs, at) => sum + (widths[at] ?? 0) * outputs, 0);
  return weights <= weightsMax
    ? null
    : `a network of ${widths.join('-')} has ${weights} weights, at most ${weightsMax} are trained here; use fewer --hidden units or features`;
}

/** A detector learns what is usual: windows with a row that is labelled as an anomaly are kept from it. */
function usualRows(laid: Laid, { task, window }: Recipe): (rows: Int32Array) => Int32Array {
  if (task !== 'anomaly') return (rows) => rows;
  let since = Number.POSITIVE_INFINITY;
  /** Rows since the last anomaly, itself not counted. */
  const usualFor = Float64Array.from(laid.truth, (label) => {
    since = label === 1 ? 0 : since + 1;
    return since;
  });
  return (rows) => rows.filter((row) => (usualFor[row] as number) >= (window ?? 1));
}

/** Lays a table out and fits all that is not the network. Refusals: those of `layOut`. */
export function makeReady(table: Table, recipe: Recipe): Result<Ready> {
  const laying = layOut(table, recipe);
  if (!laying.ok) return laying;
  const laid = laying.value;
  const { chosen, split, dropped, sentinels } = laid;
  const { numeric: columns, categories: texts } = chosen;
  const { numeric, categories, report } = fitCleaning({
    columns,
    categories: texts,
    rows: split.fitted,
    sentinels,
    rules: recipe,
  });
  const usual = usualRows(laid, recipe);
  const rows = { train: usual(split.train), validation: usual(split.validation) };
  const large = tooLarge(recipe, columns.length, split.train.length + split.validation.length);
  if (large !== null) return refuse('data-too-large', large);
  if (rows.train.length === 0)
    return refuse('data-unfit', 'every row of the training part is labelled as an anomaly');
  const preparation = fitPreparation({
    examples: examplesAt(laid, recipe, rows.train),
    numeric,
    categories,
    recipe,
  });
  const targets = targetsOf(laid, recipe, numeric);
  const setOf = (some: Int32Array): ExampleSet => {
    const x = prepare(preparation, examplesAt(laid, recipe, some));
    return { x, y: targets.of(some, x) };
  };
  return ok({
    ...{ recipe, laid, preparation, targets, rows },
    cleaning: {
      numeric,
      report: { ...report, duplicates: dropped.duplicates, rowsWithoutTarget: dropped.withoutTarget },
    },
    train: setOf(rows.train),
    validation: rows.validation.length === 0 ? null : setOf(rows.validation),
  });
}

/** Refusals: those of `makeReady`, `data-unfit`, `training-diverged`. */
export async function trainOn(
  table: Table,
  recipe: Recipe,
  hooks: TrainingHooks = {},
): Promise<Result<Training>> {
  const ready = makeReady(table, recipe);
  if (!ready.ok) return ready;
  const { laid, preparation, targets, rows, train, validation, cleaning } = ready.value;
  const classes = laid.labels?.length ?? null;
  const trained = await trainNetwork({ recipe, train, validation, classes, ...hooks });
  if (!trained.ok) return trained;
  const network = rounded(trained.value.network);
  const known = examplesAt(laid, recipe, Int32Array.from([...rows.train, ...rows.validation]));
  const model: TrainedModel = {
    preparation,
    network,
    head: withThreshold(targets.head, network, preparation, known),
  };
  const examples = examplesAt(laid, recipe, laid.split.test);
  const truth = truthAt(laid, recipe, laid.split.test);
  const answers = answersOf(model, examples);
  const metrics = measured(laid, recipe, laid.split.test, truth, answers);
  if (!metrics.ok) return metrics;
  const { epochsRun, bestEpoch, history } = trained.value;
  return ok({
    ...{ recipe, laid, model, epochsRun, bestEpoch, history },
    cleaning: cleaning.report,
    trainRows: rows.train.length,
    tested: { examples, truth, answers },
    metrics: metrics.value,
  });
}

/** The score above which an anomaly begins, from the rows that are none. */
function withThreshold(head: Head, network: Network, preparation: Preparation, known: Examples): Head {
  if (head.kind !== 'anomaly') return head;
  const answers = answersOf({ preparation, network, head }, known);
  if (answers.kind !== 'anomaly') return head;
  return { kind: 'anomaly', threshold: Math.fround(quantileOf(answers.scores, anomalyQuantile)) || 1 };
}
