// Why: what a model, ours or anybody's, answers to the rows of a table: asked in a process of its own, batch by batch.
// Trusts: nothing that the model says before it is checked. Must never: leave its process behind.

import { systemClock } from '../../shared/host/clock.ts';
import { type ModelRuns, openModelRuns } from '../../shared/host/model-runs.ts';
import { hasRuntime } from '../../shared/host/model-trial.ts';
import { progress } from '../../shared/host/terminal.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { type FoundAnswers, readAnswers } from '../learn/answers.ts';
import { type Feeding, feed } from '../learn/feeding.ts';
import { parseRecipe, type Recipe } from '../learn/recipe.ts';
import type { Table } from '../learn/table.ts';

const rowsAtOnce = 512;

/** Opens the model, hands it to the work, and ends its process whatever becomes of that. */
export async function withModel<T>(modelPath: string, work: (runs: ModelRuns) => Promise<T>): Promise<T> {
  if (!hasRuntime())
    throw new FleetError(
      'not-implemented',
      'ONNX Runtime is not installed here, and no model runs without it',
      {
        hint: 'install onnxruntime-node',
      },
    );
  const runs = unwrap(await openModelRuns({ modelPath, clock: systemClock }));
  try {
    return await work(runs);
  } finally {
    await runs.close();
  }
}

/** The recipe by which `lepton train` made the model, and the file that it was made of; null: another's model. */
export function ownRecipe({ metadata }: ModelRuns): { recipe: Recipe; dataSha256: string | null } | null {
  const text = metadata['lepton.recipe'];
  if (text === undefined) return null;
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  const recipe = parseRecipe(body);
  return recipe.ok ? { recipe: recipe.value, dataSha256: metadata['lepton.data.sha256'] ?? null } : null;
}

export interface Batch {
  rows: Int32Array;
  inputs: Tensor[];
  outputs: Tensor[];
}

/** Asks about these rows, in order, with progress. Faults: what the model refuses. */
export async function* answersFor(
  runs: ModelRuns,
  feeding: Feeding,
  table: Table,
  rows: Int32Array,
): AsyncGenerator<Batch> {
  const bar = progress('ask', rows.length);
  const most = feeding.batch ?? rowsAtOnce;
  try {
    for (let from = 0; from < rows.length; from += most) {
      const some = rows.subarray(from, from + most);
      const inputs = feed(feeding, table, some);
      const outputs = unwrap(await runs.run(inputs));
      yield { rows: some, inputs, outputs };
      bar.advance(some.length);
    }
  } finally {
    bar.stop();
  }
}

function joined(parts: readonly (Float64Array | null)[]): Float64Array | null {
  const given = parts.filter((part) => part !== null);
  if (given.length === 0 || given.length !== parts.length) return null;
  const all = new Float64Array(given.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of given) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The answers of all batches as one. */
export async function collected(batches: AsyncIterable<Batch>): Promise<FoundAnswers & { rows: Int32Array }> {
  const found: FoundAnswers[] = [];
  const rows: number[] = [];
  for await (const batch of batches) {
    found.push(readAnswers(batch.outputs, batch.rows.length));
    rows.push(...batch.rows);
  }
  const shares = found.map(({ probabilities }) => probabilities);
  const values = joined(shares.map((one) => one?.values ?? null));
  const columns = shares[0]?.columns ?? 0;
  const labels = found.flatMap(({ label }): (number | string)[] => label ?? []);
  const anomaly = found.flatMap((one) => one.anomaly ?? []);
  const texts = labels.filter((label) => typeof label === 'string');
  return {
    rows: Int32Array.from(rows),
    label: labels.length === 0 ? null : texts.length > 0 ? texts : labels.map(Number),
    probabilities:
      values === null
        ? null
        : { rows: rows.length, columns, values, areShares: shares.every((one) => one?.areShares === true) },
    value: joined(found.map(({ value }) => value)),
    score: joined(found.map(({ score }) => score)),
    anomaly: anomaly.length === 0 ? null : anomaly,
    others: found[0]?.others ?? [],
  };
}
