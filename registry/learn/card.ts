// Why: the model card: what a release was made of, how good it is and where it is not, for whoever decides to install it.
// Trusts: what the training measured. Must never: claim what was not measured, or leave out what speaks against it.
// Source: Mitchell et al., Model Cards for Model Reporting (2019), for what a card has to say.

import type { Metrics } from './evaluation.ts';
import type { Training } from './pipeline.ts';

export interface CardFacts {
  /** Name of the file, without its folder. */
  dataFile: string;
  dataBytes: number;
  dataSha256: string;
  licence: string | null;
  /** Lines about reading, cleaning and what was left out. */
  cleaning: readonly string[];
  modelBytes: number;
  goldenCases: number;
  cpuSeconds: number;
  /** Null: this machine's processor does not count it, or does not let us read it. */
  joules: number | null;
}

const number = (value: number | null): string =>
  value === null ? '-' : String(Number(value.toPrecision(4)));
/** Nothing in a file of data may end a table, or be taken for markup. */
const cell = (text: string | number): string =>
  String(text)
    .replace(/[\r\n]+/g, ' ')
    .replace(/([\\|`*_<>[\]])/g, '\\$1');

function table(head: string[], rows: (string | number)[][]): string[] {
  return [
    `| ${head.join(' | ')} |`,
    `|${head.map(() => '---').join('|')}|`,
    ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
  ];
}

/** Lines that say what a model is worth, with its naive rival. */
export function metricsText(metrics: Metrics): string[] {
  if (metrics.task === 'classification') {
    const { positive, baseline } = metrics;
    const of = positive === null ? 'mean over the classes' : `class ${positive}`;
    return [
      `accuracy ${number(metrics.accuracy)} (${baseline.name}: ${number(baseline.accuracy)}), ROC AUC ${number(metrics.rocAuc)}`,
      `precision ${number(metrics.precision)}, recall ${number(metrics.recall)}, F1 ${number(metrics.f1)} (${of})`,
      ...(metrics.unknownClass === 0
        ? []
        : [`${metrics.unknownClass} rows are of a class that was not trained; counted as wrong`]),
    ];
  }
  if (metrics.task === 'anomaly') {
    const { windows } = metrics;
    return [
      `ROC AUC ${number(metrics.rocAuc)} (${metrics.baseline.name}: 0.5); of single rows precision ${number(metrics.precision)}, recall ${number(metrics.recall)}, F1 ${number(metrics.f1)}`,
      `${windows.found} of ${windows.windows} labelled windows found, ${windows.falseAlarms} false alarms: precision ${number(windows.precision)}, recall ${number(windows.recall)}, F1 ${number(windows.f1)}`,
    ];
  }
  const [best] = metrics.baselines;
  return [
    `R² ${number(metrics.r2)}, RMSE ${number(metrics.rmse)}, MAE ${number(metrics.mae)}`,
    ...(best === undefined
      ? []
      : [`skill ${number(metrics.skill)} over ${best.name} (RMSE ${number(best.rmse)})`]),
  ];
}

function byClass(metrics: Metrics): string[] {
  if (metrics.task === 'classification')
    return table(
      ['class', 'rows', 'precision', 'recall', 'F1'],
      metrics.classes.map(({ label, support, precision, recall, f1 }) => [
        String(label),
        support,
        number(precision),
        number(recall),
        number(f1),
      ]),
    );
  if (metrics.task === 'anomaly') return [];
  return table(
    ['naive guess', 'R²', 'RMSE', 'MAE'],
    metrics.baselines.map(({ name, r2, rmse, mae }) => [name, number(r2), number(rmse), number(mae)]),
  );
}

/** What a reader should not expect of this model. */
function limits({ recipe, laid, metrics }: Training): string[] {
  const { split, gaps } = laid;
  const lines = [
    split.byTime
      ? 'Tested on the last part of the data: what came after it, and seasons that the data does not hold, were not tested.'
      : 'Trained and tested on rows drawn from one file: other sources may differ.',
  ];
  if (gaps !== null && gaps > 0 && recipe.window !== null)
    lines.push(`Of the steps in time ${gaps} are longer than usual; windows reach over them.`);
  if (metrics.task === 'classification' && metrics.accuracy <= metrics.baseline.accuracy)
    lines.push('On the test part it is not more often right than the most frequent class.');
  if ((metrics.task === 'regression' || metrics.task === 'forecast') && (metrics.skill ?? 0) <= 0)
    lines.push('On the test part it is not better than the best naive guess.');
  if (metrics.task === 'anomaly' && metrics.windows.windows < 5)
    lines.push(`Only ${metrics.windows.windows} labelled windows were there to test on.`);
  const small =
    metrics.task === 'classification' ? metrics.classes.filter(({ support }) => support < 30) : [];
  if (small.length > 0)
    lines.push(
      `Few rows were there to test: ${small.map(({ label, support }) => `${label} (${support})`).join(', ')}.`,
    );
  return lines;
}

const list = (lines: readonly string[]): string[] => lines.map((line) => `- ${line}`);

/** YAML, in JSON's spelling: what a region's policy reads (registry/policy/card-fields.ts). */
function frontMatter(
  { recipe }: Training,
  { licence, dataFile, dataBytes, dataSha256 }: CardFacts,
): string[] {
  const fields = {
    ...(licence === null ? {} : { licence }),
    ...{ task: recipe.task, target: recipe.target },
    data: { file: dataFile, bytes: dataBytes, sha256: dataSha256 },
  };
  return [
    '---',
    ...Object.entries(fields).map(([name, value]) => `${name}: ${JSON.stringify(value)}`),
    '---',
  ];
}

/** Markdown with front matter. */
export function cardText(training: Training, facts: CardFacts): string {
  const { recipe, laid, model, metrics } = training;
  const { preparation, network } = model;
  const parameters = network.layers.reduce((sum, { weights, bias }) => sum + weights.length + bias.length, 0);
  const inputs = [...preparation.numeric, ...preparation.categories].map(({ name }) => cell(name));
  const { split } = laid;
  const energy =
    facts.joules === null
      ? `${number(facts.cpuSeconds)} s of processor time; joules are not counted on the machine that trained it`
      : `${number(facts.joules)} J (measured for the whole machine), ${number(facts.cpuSeconds)} s of processor time`;
  return [
    ...frontMatter(training, facts),
    '',
    `# ${cell(recipe.target)}: ${recipe.task}`,
    '',
    `A network of ${[preparation.names.length, ...network.layers.map(({ outputs }) => outputs)].join('-')} (${recipe.activation}, ${parameters} parameters, ${facts.modelBytes} bytes as ONNX). It takes raw values: cleaning, features and normalisation are in the file.`,
    '',
    '## Data',
    ...list([
      `${cell(facts.dataFile)}, ${facts.dataBytes} bytes, SHA-256 ${facts.dataSha256}`,
      `Licence: ${facts.licence === null ? 'not given (--licence)' : cell(facts.licence)}`,
      `${laid.rows} rows: ${split.train.length} trained, ${split.validation.length} decided when to end, ${split.test.length} tested; ${split.byTime ? 'split by time' : `drawn by the seed ${recipe.seed}`}`,
      `Inputs: ${inputs.join(', ')}${recipe.window === null ? '' : `; windows of ${recipe.window} rows`}`,
    ]),
    '',
    '## Cleaning',
    ...list(facts.cleaning.map(cell)),
    '',
    '## On the test part',
    ...list(metricsText(metrics)),
    '',
    ...byClass(metrics),
    '',
    '## Limits',
    ...list(limits(training)),
    '',
    '## Training',
    ...list([
      `${training.epochsRun} epochs, the weights of epoch ${training.bestEpoch}; ${recipe.optimizer}, learning rate ${recipe.learningRate}, batches of ${recipe.batch}, seed ${recipe.seed}`,
      `Energy: ${energy}`,
      `${facts.goldenCases} golden cases, drawn to cover the classes and the edges`,
    ]),
    '',
  ].join('\n');
}
