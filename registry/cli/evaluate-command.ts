// Why: `lepton evaluate`: what any ONNX model is worth on a table, beside a naive guess, by the same measures as training.
// Trusts: flags and files only after they were parsed. Must never: count rows that the model was trained on without
// saying so.

import { type Command, Option } from 'commander';
import type { ModelRuns } from '../../shared/host/model-runs.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { metricsText } from '../learn/card.ts';
import { taskOf } from '../learn/choosing.ts';
import { type Metrics, measure } from '../learn/evaluation.ts';
import { planFeeding } from '../learn/feeding.ts';
import { compareWith } from '../learn/foreign-answers.ts';
import { allExamples, layOut, truthAt } from '../learn/laying.ts';
import { parseRecipe, type Recipe, tasks } from '../learn/recipe.ts';
import { ahead } from '../learn/rows.ts';
import { type DataFile, readDataFile } from './data-file.ts';
import { answersFor, collected, ownRecipe, withModel } from './model-answers.ts';
import { print } from './output.ts';

export interface DataFlags {
  target?: string;
  task?: Recipe['task'];
  time?: string;
  columns?: string[];
}

interface EvaluateFlags extends DataFlags {
  rows?: 'all' | 'test';
  json?: boolean;
}

export interface Asked {
  recipe: Recipe;
  /** Only the rows on which it was tested are asked about. */
  isTest: boolean;
  isOwn: boolean;
}

/** How the model was made, or as much of it as another's model needs. */
export function askedOf(runs: ModelRuns, file: DataFile, flags: EvaluateFlags): Asked {
  const own = ownRecipe(runs);
  if (own !== null) {
    const isSameFile = own.dataSha256 === file.sha256;
    if (flags.rows === 'test' && !isSameFile)
      throw new FleetError(
        'input-invalid',
        'the model was trained on another file: this one has no test part',
        {
          hint: 'evaluate on all rows by --rows all',
        },
      );
    const { target = own.recipe.target, time = own.recipe.time } = flags;
    const recipe = { ...own.recipe, target, time };
    return { recipe, isTest: flags.rows === undefined ? isSameFile : flags.rows === 'test', isOwn: true };
  }
  if (flags.target === undefined)
    throw new FleetError('config-invalid', 'the model does not say what it predicts; give --target COLUMN');
  if (flags.rows === 'test')
    throw new FleetError('input-invalid', 'the model does not say which rows it was tested on', {
      hint: 'leave --rows out',
    });
  const task = flags.task ?? unwrap(taskOf(file.table, flags.target, false));
  const rules = { duplicates: 'keep', sentinels: 'none', patience: null } as const;
  return {
    recipe: unwrap(parseRecipe({ target: flags.target, task, time: flags.time ?? null, ...rules })),
    isTest: false,
    isOwn: false,
  };
}

export interface Evaluated {
  task: Recipe['task'];
  rows: number;
  /** `test`: the part that the model was tested on when it was made. */
  of: 'test' | 'all';
  metrics: Metrics;
  assumed: string | null;
}

async function evaluated(modelPath: string, dataPath: string, flags: EvaluateFlags): Promise<Evaluated> {
  const file = await readDataFile(dataPath);
  return withModel(modelPath, async (runs) => {
    const { recipe, isTest } = askedOf(runs, file, flags);
    const laid = unwrap(layOut(file.table, recipe));
    const feeding = unwrap(
      planFeeding(runs.inputs, laid.table, {
        target: recipe.target,
        columns: flags.columns ?? null,
        metadata: runs.metadata,
      }),
    );
    const usable = new Set(feeding.rows);
    const rows = (isTest ? laid.split.test : allExamples(laid, recipe)).filter((row) => usable.has(row));
    const found = await collected(answersFor(runs, feeding, laid.table, rows));
    const own = runs.metadata['labels'] === undefined ? null : ownLabels(runs.metadata['labels']);
    const compared = unwrap(compareWith(recipe.task, found, truthAt(laid, recipe, rows), laid.labels, own));
    const metrics = unwrap(
      measure({
        task: recipe.task,
        ...{ truth: compared.truth, answers: compared.answers, labels: compared.labels },
        ...{ series: laid.truth, at: rows, reach: ahead(recipe.task, recipe.horizon), stepMs: laid.stepMs },
        trainedOn:
          isTest && recipe.task !== 'classification'
            ? truthAt(laid, recipe, laid.split.train)
            : new Float64Array(0),
      }),
    );
    return {
      task: recipe.task,
      rows: rows.length,
      of: isTest ? 'test' : 'all',
      metrics,
      assumed: compared.assumed,
    };
  });
}

function ownLabels(text: string): (number | string)[] | null {
  try {
    const body: unknown = JSON.parse(text);
    return Array.isArray(body) && body.every((one) => typeof one === 'number' || typeof one === 'string')
      ? body
      : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

async function evaluate(model: string, data: string, flags: EvaluateFlags): Promise<void> {
  const result = await evaluated(model, data, flags);
  print({ json: flags.json === true }, result, () =>
    [
      `${result.task} on ${result.rows} rows${result.of === 'test' ? ', the part that it was tested on when it was made' : ''}:`,
      ...(result.assumed === null ? [] : [`  ${result.assumed}`]),
      ...metricsText(result.metrics).map((line) => `  ${line}`),
    ].join('\n'),
  );
}

/** Flags by which any model finds its columns. */
export function withDataFlags(command: Command): Command {
  return command
    .option('--target <column>', 'what it predicts (default: what the model says)')
    .addOption(new Option('--task <task>', 'default: what the target asks for').choices([...tasks]))
    .option('--time <column>', 'orders the rows (default: the only column of times)')
    .option(
      '--columns <a,b>',
      'columns that the input takes, in order (default: by name, else all numbers)',
      (text: string) => text.split(',').map((one) => one.trim()),
    );
}

export function addEvaluateCommand(program: Command): void {
  withDataFlags(
    program
      .command('evaluate')
      .description('what any ONNX model is worth on a table of data, beside a guess that needs no model')
      .argument('<model.onnx>', 'the model')
      .argument('<data.csv>', 'a table of text whose first line names the columns'),
  )
    .addOption(
      new Option(
        '--rows <which>',
        'default: of the file that it was trained on the test part, of another all',
      ).choices(['all', 'test']),
    )
    .option('--json', 'one JSON document on stdout')
    .action(evaluate);
}
