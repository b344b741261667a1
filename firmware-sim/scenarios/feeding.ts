// Why: what a sensor of a scenario says to an agent, and how well it was answered: rows to requests, answers to
// predictions, predictions to a score. Pure. Trusts: the scenario. Must never: show the model the truth.

import { parseRecipe } from '../../registry/learn/recipe.ts';
import { invariant, unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { InferRequest, InferResponse } from '../../shared/wire/oip-json.ts';
import { elementCount, type Tensor } from '../../shared/wire/tensors.ts';
import type { Cell, Scenario } from './scenario.ts';

export interface Fed {
  /** The last row that the request shows; the first row of the source is 1, as below the head of a table. */
  row: number;
  request: InferRequest;
  /** Of that row; of a forecast, of the row `horizon` later. */
  truth: number | string;
  /** What the scenario's naive rule says; null where it has nothing to go by. */
  naive: Cell;
}

export interface Feed {
  next(): Fed;
}

/** The columns that a model of the scenario's recipe takes, in the order of the columns. */
export interface FedColumns {
  numbers: string[];
  texts: string[];
  window: number | null;
  /** How many rows after the last one the truth stands. */
  ahead: number;
}

export function fedColumns(scenario: Scenario): FedColumns {
  const { target, time, features, window, horizon, task } = unwrap(parseRecipe(scenario.recipe));
  const used = scenario.columns.filter((column) =>
    features === null ? column !== target && column !== time : features.includes(column),
  );
  return {
    numbers: used.filter((column) => !scenario.texts.includes(column)),
    texts: used.filter((column) => scenario.texts.includes(column)),
    window,
    ahead: task === 'forecast' ? horizon : 0,
  };
}

/**
 * Requests for models as `lepton train` makes them: `values` FP32 of shape [1, F], with a window [1, window, F], a
 * missing value NaN; and where the scenario has texts `texts` BYTES of shape [1, C], a missing one empty.
 */
export function createFeed(scenario: Scenario, seed: number): Feed {
  const source = scenario.source(seed);
  const { numbers, texts, window, ahead } = fedColumns(scenario);
  const indexOf = (column: string): number => scenario.columns.indexOf(column);
  const [numberAt, textAt] = [numbers.map(indexOf), texts.map(indexOf)];
  const targetAt = indexOf(unwrap(parseRecipe(scenario.recipe)).target);
  const seenRows = window ?? 1;
  /** The rows of the window, and behind them those that are the future still. */
  const rows: Cell[][] = [];
  let drawn = 0;
  const next = (): Fed => {
    if (rows.length === seenRows + ahead) rows.shift();
    while (rows.length < seenRows + ahead) {
      rows.push(source.next());
      drawn += 1;
    }
    const seen = rows.slice(0, seenRows);
    const [last, future] = [seen.at(-1), rows.at(-1)];
    const truth = future?.[targetAt] ?? null;
    invariant(last !== undefined && truth !== null, `${scenario.name}: a row has no truth`);
    const values = seen.flatMap((row) => numberAt.map((at) => numberOf(row[at] ?? null)));
    const inputs: Tensor[] = [
      {
        name: 'values',
        datatype: 'FP32',
        shape: window === null ? [1, numbers.length] : [1, window, numbers.length],
        data: Float32Array.from(values),
      },
    ];
    if (texts.length > 0)
      inputs.push({
        name: 'texts',
        datatype: 'BYTES',
        shape: [1, texts.length],
        data: textAt.map((at) => String(last[at] ?? '')),
      });
    return { row: drawn - ahead, request: { inputs }, truth, naive: scenario.naive.answer(last) };
  };
  return { next };
}

function numberOf(cell: Cell): number {
  return typeof cell === 'number' ? cell : Number.NaN;
}

export interface Prediction {
  /** A class, a quantity, or of anomalies 1 or 0. */
  value: number | string;
  /** Of an anomaly: above 1 it is one. */
  score: number | null;
}

/**
 * Reads an answer by the types of its outputs: a class is the only element of integers or texts, a quantity or an
 * anomaly's score the only element of floats; where there are several such, the one whose name says so.
 * Refusal: `infer-invalid`.
 */
export function readPrediction(scenario: Scenario, response: InferResponse): Result<Prediction> {
  const single = response.outputs.filter(({ shape }) => elementCount(shape) === 1);
  const floats = single.filter(({ datatype }) => datatype.startsWith('FP'));
  const exact = single.filter(({ datatype }) => !datatype.startsWith('FP'));
  const isClass = scenario.task === 'classification';
  const candidates = isClass ? exact : floats;
  const names = { classification: 'label', regression: 'value', forecast: 'value', anomaly: 'score' };
  const chosen =
    candidates.find(({ name }) => name === names[scenario.task]) ??
    (candidates.length === 1 ? candidates[0] : undefined);
  if (chosen === undefined) {
    const given = response.outputs.map(({ name, datatype, shape }) => `${name} ${datatype} [${shape}]`);
    const wanted = isClass ? 'one class' : 'one number';
    return refuse(
      'infer-invalid',
      `a model of ${scenario.name} answers with ${wanted}; this one with ${given.join(', ')}`,
    );
  }
  const [element] = chosen.data;
  if (isClass) return ok({ value: classOf(element), score: null });
  const number = Number(element);
  if (!Number.isFinite(number))
    return refuse('infer-invalid', `${chosen.name} is no finite number but ${String(element)}`);
  if (scenario.task === 'anomaly') return ok({ value: number > 1 ? 1 : 0, score: number });
  return ok({ value: number, score: null });
}

function classOf(element: number | bigint | string | undefined): number | string {
  return typeof element === 'string' ? element : Number(element);
}

/** Classes and anomalies, against always saying what the naive rule says. */
export interface ClassScore {
  kind: 'classes';
  answers: number;
  right: number;
  accuracy: number | null;
  naiveAccuracy: number | null;
  /** Rows of the class that is looked for, how many were found, and how many others were taken for it. */
  positives: number;
  found: number;
  falseAlarms: number;
}

export interface QuantityScore {
  kind: 'quantities';
  answers: number;
  meanAbsoluteError: number | null;
  /** Over the rows for which the naive rule had something to say. */
  naiveMeanAbsoluteError: number | null;
}

export type Score = ClassScore | QuantityScore;

export interface RunningScore {
  add(fed: Fed, prediction: Prediction): void;
  score(): Score;
}

export function createScore(scenario: Scenario): RunningScore {
  return scenario.positive === null ? quantities() : classes(scenario.positive);
}

const part = (sum: number, of: number): number | null => (of === 0 ? null : sum / of);

/** 1, '1' and "1" are one class: a table of text does not tell them apart. */
const same = (one: Cell, other: Cell): boolean => String(one) === String(other);

function classes(positive: number | string): RunningScore {
  let [answers, right, naiveRight, positives, found, falseAlarms] = [0, 0, 0, 0, 0, 0];
  return {
    add: ({ truth, naive }, { value }) => {
      answers += 1;
      if (same(value, truth)) right += 1;
      if (same(naive, truth)) naiveRight += 1;
      if (same(truth, positive)) {
        positives += 1;
        if (same(value, positive)) found += 1;
      } else if (same(value, positive)) falseAlarms += 1;
    },
    score: () => ({
      kind: 'classes',
      answers,
      right,
      accuracy: part(right, answers),
      naiveAccuracy: part(naiveRight, answers),
      positives,
      found,
      falseAlarms,
    }),
  };
}

function quantities(): RunningScore {
  let [answers, error, naiveAnswers, naiveError] = [0, 0, 0, 0];
  return {
    add: ({ truth, naive }, { value }) => {
      answers += 1;
      error += Math.abs(Number(value) - Number(truth));
      if (naive === null) return;
      naiveAnswers += 1;
      naiveError += Math.abs(Number(naive) - Number(truth));
    },
    score: () => ({
      kind: 'quantities',
      answers,
      meanAbsoluteError: part(error, answers),
      naiveMeanAbsoluteError: part(naiveError, naiveAnswers),
    }),
  };
}

/** `60 answers, 52 right (0.867; naive 0.800); yes: found 8 of 12, 4 false alarms` */
export function scoreText(scenario: Scenario, score: Score): string {
  const { answers } = score;
  if (answers === 0) return 'no answers';
  const count = answers === 1 ? '1 answer' : `${answers} answers`;
  if (score.kind === 'quantities') {
    const naive = decimals(score.naiveMeanAbsoluteError);
    return `${count}, mean absolute error ${decimals(score.meanAbsoluteError)} (naive ${naive})`;
  }
  const { right, accuracy, naiveAccuracy, positives, found, falseAlarms } = score;
  const target = unwrap(parseRecipe(scenario.recipe)).target;
  return (
    `${count}, ${right} right (${decimals(accuracy)}; naive ${decimals(naiveAccuracy)}); ` +
    `${target} ${scenario.positive}: found ${found} of ${positives}, false alarms ${falseAlarms}`
  );
}

function decimals(value: number | null): string {
  return value === null ? '-' : value.toFixed(3);
}
