// Why: the very numbers that a training begins with, in files that other programs read: the comparison with scikit-learn.
// Trusts: its arguments: a name of realTasks, the data folder, a folder to write to. Must never: be part of the product.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { truthAt } from '../../registry/learn/laying.ts';
import { answersOf, examplesAt, makeReady, trainOn } from '../../registry/learn/pipeline.ts';
import { prepare } from '../../registry/learn/preparation.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { realTasks, recipeFor, scoreOf, tableFor } from './real-data.ts';

const [, , name = '', data = '', folder = ''] = process.argv;
const task = realTasks.find((one) => one.name === name);
if (task === undefined) throw new Error(`no task ${name}`);
const recipe = recipeFor(task);
const table = await tableFor(task, data);
const ready = unwrap(makeReady(table, recipe));
const { laid, train, targets } = ready;
const rows = laid.split.test;
const test = prepare(ready.preparation, examplesAt(laid, recipe, rows));
const truth = truthAt(laid, recipe, rows);
// What a value head adds to the network's number: its answer to an output of 0.
const base = new Float64Array(rows.length);
if (targets.head.kind === 'value') {
  const zero = { ...targets.head, scale: 0 };
  const { preparation } = ready;
  const network = {
    ...{ activation: recipe.activation, output: 'identity' as const },
    layers: [
      {
        inputs: test.columns,
        outputs: 1,
        weights: new Float64Array(test.columns),
        bias: new Float64Array(1),
      },
    ],
  };
  const answers = answersOf({ preparation, network, head: zero }, examplesAt(laid, recipe, rows));
  if (answers.kind === 'value') base.set(answers.values);
}
const write = (file: string, values: Float64Array): void =>
  writeFileSync(join(folder, file), Buffer.from(values.buffer, values.byteOffset, values.byteLength));
write('x-train.f64', train.x.values);
write('y-train.f64', train.y instanceof Int32Array ? Float64Array.from(train.y) : train.y.values);
write('x-test.f64', test.values);
write('truth.f64', truth);
write('base.f64', base);
/** As many seeds as scikit-learn is given; the first is the recipe's own. */
const scores: number[] = [];
let baseline = 0;
for (let seed = 1; seed <= 5; seed += 1) {
  const { metrics } = unwrap(await trainOn(table, { ...recipe, seed }));
  scores.push(scoreOf(metrics).score);
  baseline = scoreOf(metrics).naive;
}
writeFileSync(
  join(folder, 'about.json'),
  JSON.stringify({
    name,
    recipe,
    columns: train.x.columns,
    scale: targets.head.kind === 'value' ? targets.head.scale : 1,
    ours: { scores, naive: baseline },
  }),
);
