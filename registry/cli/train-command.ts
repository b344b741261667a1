// Why: `lepton train`: from a table of data to a folder that `lepton models push` takes.
// Trusts: flags and files only after they were parsed. Must never: leave a half-written folder, or a result whose recipe
// is not beside it.

import { readFileSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { systemPower } from '../../shared/host/power.ts';
import { progress } from '../../shared/host/terminal.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { metricsText } from '../learn/card.ts';
import { taskOf } from '../learn/choosing.ts';
import { cleaningText } from '../learn/cleaning.ts';
import { layingText } from '../learn/laying.ts';
import { type Training, trainOn } from '../learn/pipeline.ts';
import { parseRecipe, type Recipe, recipeSchema, tasks, windowFeatures } from '../learn/recipe.ts';
import type { Table } from '../learn/table.ts';
import { readYamlFile } from '../policy/yaml-file.ts';
import { type DataFile, readDataFile } from './data-file.ts';
import { positive } from './flags.ts';
import { print } from './output.ts';
import { releaseFiles } from './trained-release.ts';
import { checkFree, writeFolder } from './whole-folder.ts';

interface TrainFlags {
  target?: string;
  task?: Recipe['task'];
  features?: string[];
  time?: string;
  window?: number;
  horizon?: number;
  windowFeatures?: Recipe['windowFeatures'];
  bands?: number;
  hidden?: number[];
  activation?: Recipe['activation'];
  optimizer?: Recipe['optimizer'];
  learningRate?: number;
  epochs?: number;
  batch?: number;
  decay?: number;
  patience?: number | 'none';
  classWeights?: Recipe['classWeights'];
  split?: number;
  seed?: number;
  normalise?: Recipe['normalise'];
  duplicates?: Recipe['duplicates'];
  missing?: Recipe['missing'];
  outliers?: Recipe['outliers'];
  sentinels?: Recipe['sentinels'];
  recipe?: string;
  out?: string;
  licence?: string;
  golden: number;
  force?: boolean;
  json?: boolean;
}

function amount(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError('Expected a number of at least 0.');
  return value;
}

/** `a,b` and several flags add up; a name with a comma in it stands in a recipe file. */
const names = (text: string, before: string[] = []): string[] => [
  ...before,
  ...text.split(',').map((one) => one.trim()),
];
const layers = (text: string, before: number[] = []): number[] => [
  ...before,
  ...text.split(',').map(positive),
];
const patience = (text: string): number | 'none' => (text === 'none' ? text : positive(text));

function sentinels(text: string): Recipe['sentinels'] {
  if (text === 'auto' || text === 'none') return text;
  const values = text.split(',').map(Number);
  if (values.some((value) => !Number.isFinite(value)))
    throw new InvalidArgumentError('Expected auto, none, or numbers such as -200,-999.');
  return values;
}

function features(text: string): Recipe['windowFeatures'] {
  const parsed = z.array(z.enum(windowFeatures)).min(1).safeParse(names(text));
  if (!parsed.success) throw new InvalidArgumentError(`Expected some of ${windowFeatures.join(',')}.`);
  return parsed.data;
}

/** Keys of a recipe as they stand in a file; what is missing is filled in later. */
const recipeFileSchema = z.object(recipeSchema.shape).partial().strict();

function recipeFile(path: string | undefined): Partial<Recipe> {
  if (path === undefined) return {};
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new FleetError('config-invalid', `cannot read the recipe ${path}`, { cause });
  }
  const read = readYamlFile(text, z.record(z.string(), z.unknown()), 'config-invalid');
  if (!read.ok) throw new FleetError(read.refusal.code, `${path}: ${read.refusal.detail}`);
  // Judged as it was written, so that nothing is filled in twice.
  const known = readYamlFile(text, recipeFileSchema, 'config-invalid');
  if (!known.ok) throw new FleetError(known.refusal.code, `${path}: ${known.refusal.detail}`);
  const given = new Set(Object.keys(read.value.data));
  return Object.fromEntries(Object.entries(known.value.data).filter(([key]) => given.has(key)));
}

const recipeKeys = Object.keys(recipeSchema.shape) as (keyof Recipe)[];

/** Flags go before the file; where nobody names the task, the target says it. */
function recipeOf(flags: TrainFlags, table: Table): Recipe {
  const body: Record<string, unknown> = { ...recipeFile(flags.recipe) };
  for (const key of recipeKeys) {
    const value = (flags as Partial<Record<keyof Recipe, unknown>>)[key];
    if (value !== undefined) body[key] = key === 'patience' && value === 'none' ? null : value;
  }
  if (typeof body['target'] !== 'string')
    throw new FleetError('config-invalid', 'which column is predicted? give --target COLUMN');
  const isAhead = body['horizon'] !== undefined;
  body['task'] ??= unwrap(taskOf(table, body['target'], isAhead));
  // So many past rows are seen where nobody says how many.
  if (body['task'] === 'forecast') body['window'] ??= 24;
  return unwrap(parseRecipe(body));
}

/** What the validation part is scored by; of anomalies how well what is usual is repeated. */
const scoreName = { classification: 'accuracy', regression: 'R²', forecast: 'R²', anomaly: 'R²' } as const;

async function training(file: DataFile, recipe: Recipe): Promise<Training> {
  const bar = progress('train', recipe.epochs);
  try {
    const trained = await trainOn(file.table, recipe, {
      onEpoch: ({ loss, validationScore }) =>
        bar.advance(
          1,
          `loss ${loss.toPrecision(3)}${validationScore === null ? '' : `, validation ${scoreName[recipe.task]} ${validationScore.toPrecision(3)}`}`,
        ),
    });
    return unwrap(trained);
  } finally {
    bar.stop();
  }
}

async function train(path: string, flags: TrainFlags): Promise<void> {
  const out = flags.out ?? `${basename(path, extname(path))}-model`;
  checkFree(out, flags.force === true);
  const power = systemPower();
  power.joules();
  const startedCpu = process.cpuUsage();
  const file = await readDataFile(path);
  const recipe = recipeOf(flags, file.table);
  const trained = await training(file, recipe);
  const used = process.cpuUsage(startedCpu);
  const cleaning = [
    ...cleaningText(file.report, trained.cleaning, basename(path)),
    ...layingText(trained.laid),
  ];
  const files = await releaseFiles(trained, {
    dataFile: basename(path),
    dataBytes: file.bytes,
    dataSha256: file.sha256,
    licence: flags.licence ?? null,
    cleaning,
    goldenMax: flags.golden,
    cpuSeconds: (used.user + used.system) / 1e6,
    joules: power.joules(),
    reading: file.report,
  });
  writeFolder(out, files, flags.force === true);
  const document = {
    out,
    task: recipe.task,
    rows: { trained: trained.trainRows, tested: trained.metrics.rows },
    epochs: trained.epochsRun,
    metrics: trained.metrics,
    files: [...files.keys()],
  };
  print({ json: flags.json === true }, document, () =>
    [
      ...cleaning,
      `trained on ${trained.trainRows} rows in ${trained.epochsRun} epochs, tested on ${trained.metrics.rows} others:`,
      ...metricsText(trained.metrics).map((line) => `  ${line}`),
      `wrote ${out}: ${[...files.keys()].join(', ')}`,
      `next: lepton models push ${out} --name NAMESPACE/NAME --version 1.0.0`,
    ].join('\n'),
  );
}

const among = (flags: string, about: string, values: readonly string[]): Option =>
  new Option(flags, about).choices([...values]);

export function addTrainCommand(program: Command): void {
  program
    .command('train')
    .description('from a table of data (CSV) to a folder that `lepton models push` takes')
    .argument('<data.csv>', 'a table of text whose first line names the columns')
    .option('--target <column>', 'what is predicted; of anomalies the column of labels 0 and 1')
    .addOption(among('--task <task>', 'default: what the target asks for', tasks))
    .option('--features <a,b>', 'columns to learn from (default: all that can be)', names)
    .option('--time <column>', 'orders and splits the rows (default: the only column of times)')
    .option('--window <rows>', 'the model sees so many rows at once', positive)
    .option('--horizon <rows>', 'predict so many rows ahead', positive)
    .option('--window-features <list>', `of ${windowFeatures.join(',')}`, features)
    .option('--bands <n>', 'bands of the spectrum', positive)
    .option('--hidden <units>', 'a hidden layer (repeat, or 64,32)', layers)
    .addOption(among('--activation <name>', 'between layers (default: relu)', ['relu', 'sigmoid', 'tanh']))
    .addOption(among('--optimizer <name>', 'default: adam', ['sgd', 'adam']))
    .option('--learning-rate <x>', 'default: 0.001', amount)
    .option('--epochs <n>', 'at most so many passes over the data (default: 50)', positive)
    .option('--batch <n>', 'rows in one step (default: 64)', positive)
    .option('--decay <x>', 'weight decay, L2 (default: 0.0001)', amount)
    .option('--patience <n|none>', 'epochs without progress before it ends (default: 10)', patience)
    .addOption(
      among('--class-weights <how>', 'balanced: rare classes count as much as frequent ones', [
        'none',
        'balanced',
      ]),
    )
    .option('--split <share>', 'share that is trained on; the rest is tested on (default: 0.7)', amount)
    .option('--seed <n>', 'of all chance (default: 1)', amount)
    .addOption(among('--normalise <how>', 'default: standard', ['standard', 'min-max', 'robust']))
    .addOption(among('--duplicates <rule>', 'default: drop', ['drop', 'keep']))
    .addOption(
      among('--missing <rule>', 'what fills a missing number (default: median)', [
        'median',
        'mean',
        'most-frequent',
      ]),
    )
    .addOption(among('--outliers <rule>', 'default: keep', ['keep', 'clip']))
    .option('--sentinels <auto|none|list>', 'numbers that stand for a missing one (default: auto)', sentinels)
    .option('--recipe <file>', 'YAML with the same keys; flags go first')
    .option('--licence <text>', 'of the data, for the model card')
    .option('--golden <n>', 'golden cases at most', positive, 24)
    .option('--out <folder>', 'default: the file’s name and -model')
    .option('--force', 'replace the folder where it exists')
    .option('--json', 'one JSON document on stdout')
    .action(train);
}
