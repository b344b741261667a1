// Why: answers of any model beside the truth of a table, with classes brought into one order. Pure.
// Trusts: answers that were found by form (answers.ts). Must never: match a label with a class silently where it guesses.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type FoundAnswers, labelsOfColumns } from './answers.ts';
import { bestClasses } from './metrics.ts';
import type { Answers } from './model.ts';
import type { Recipe } from './recipe.ts';

type Labels = readonly (number | string)[];

export interface Compared {
  answers: Answers;
  /** Of classes the place among `labels`, −1 where the model does not know the class. */
  truth: Float64Array;
  labels: number[] | string[] | null;
  /** What had to be guessed, for people. */
  assumed: string | null;
}

const sorted = (labels: Iterable<number | string>): (number | string)[] =>
  [...new Set(labels)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));

function asLabels(labels: Labels): number[] | string[] {
  const texts = labels.filter((label) => typeof label === 'string');
  return texts.length > 0 ? labels.map(String) : labels.map(Number);
}

/** Of numbers where the truth is texts: scikit-learn numbers them in their order. */
function numbered(known: Labels, answered: Labels): { known: Labels; assumed: string | null } {
  const areTexts = known.some((label) => typeof label === 'string');
  if (!areTexts || answered.some((label) => typeof label === 'string')) return { known, assumed: null };
  const order = sorted(known);
  return {
    known: known.map((label) => order.indexOf(label)),
    assumed: `the model answers with numbers: ${order.map((label, at) => `${at} is taken for ${label}`).join(', ')}`,
  };
}

/** Which label each column of probabilities stands for, as far as it can be known. */
function columnLabels(found: FoundAnswers, known: Labels, own: Labels | null): (number | string)[] | null {
  const { probabilities, label } = found;
  if (own !== null) return [...own];
  if (probabilities === null) return null;
  const seen = label === null ? null : labelsOfColumns(label, probabilities);
  const order = sorted(known);
  if (seen === null) return label === null && order.length === probabilities.columns ? order : null;
  // A column that was never the greatest: where all others stand in their order, it is the one that is missing there.
  return seen.every((one, at) => one === null || one === order[at]) && order.length === seen.length
    ? order
    : seen.some((one) => one === null)
      ? null
      : seen.flatMap((one) => (one === null ? [] : [one]));
}

function classes(
  found: FoundAnswers,
  truth: Float64Array,
  truthLabels: Labels,
  own: Labels | null,
): Result<Compared> {
  const { probabilities, label } = found;
  const { known, assumed } = numbered(truthLabels, own ?? label ?? []);
  const columns = columnLabels(found, known, own);
  const labels = columns ?? sorted([...(label ?? []), ...known]);
  const placeOf = new Map(labels.map((one, at) => [one, at]));
  const places = truth.map((value) => placeOf.get(known[value] ?? '') ?? -1);
  const best =
    label !== null
      ? Int32Array.from<number | string>(label, (one) => placeOf.get(one) ?? -1)
      : probabilities === null
        ? null
        : bestClasses(probabilities);
  if (best === null) return refuse('data-unfit', 'the model gives neither a class nor probabilities');
  const usable =
    columns === null || probabilities === null
      ? { rows: truth.length, columns: 0, values: new Float64Array(0) }
      : probabilities;
  return ok({
    answers: { kind: 'classes', probabilities: usable, best },
    truth: places,
    labels: asLabels(labels),
    assumed,
  });
}

/**
 * `truthLabels`: of classification what the places in `truth` stand for; `own`: the labels that a model of ours names.
 * Refusal: `data-unfit` where the model gives nothing of the kind.
 */
export function compareWith(
  task: Recipe['task'],
  found: FoundAnswers,
  truth: Float64Array,
  truthLabels: Labels | null,
  own: Labels | null,
): Result<Compared> {
  const plain = { truth, labels: null, assumed: null };
  if (task === 'classification') return classes(found, truth, truthLabels ?? [], own);
  if (task === 'anomaly') {
    const { score, anomaly } = found;
    if (score !== null) return ok({ ...plain, answers: { kind: 'anomaly', scores: score } });
    if (anomaly === null)
      return refuse('data-unfit', 'the model gives no score and no verdict of an anomaly');
    return ok({
      ...plain,
      answers: { kind: 'anomaly', scores: Float64Array.from(anomaly, (one) => (one ? 2 : 0)) },
    });
  }
  const { value, label } = found;
  if (value !== null) return ok({ ...plain, answers: { kind: 'value', values: value } });
  if (label !== null && typeof label[0] === 'number')
    return ok({ ...plain, answers: { kind: 'value', values: Float64Array.from(label, Number) } });
  return refuse('data-unfit', 'the model gives no number for a row');
}
