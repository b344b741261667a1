// Why: `lepton samples`: which requests devices keep for a person to look at, the queue of them, and the dataset.
// Trusts: the registry's answers, validated. Must never: leave half of a dataset behind under its name.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { datasetCsv, datasetLines } from '../../shared/wire/sample-csv.ts';
import {
  type SampleReason,
  type SampleRulesView,
  sampleReasons,
  sampleRulesFileSchema,
  sampleRulesViewSchema,
} from '../../shared/wire/sample-rules.ts';
import {
  type SampleEntry,
  type SampleList,
  type SampleReview,
  type SampleRow,
  type SampleShown,
  type SampleState,
  type SampleTensor,
  sampleEntrySchema,
  sampleIdSchema,
  sampleListSchema,
  samplePageSchema,
  sampleShownSchema,
  sampleStates,
} from '../../shared/wire/samples.ts';
import { readYamlFile } from '../policy/yaml-file.ts';
import { connect, type RegistryClient } from './client.ts';
import { modelRelease } from './evidence-commands.ts';
import { connected, type GlobalFlags, modelId, positive } from './flags.ts';
import { asTyped, type Cell, print, table, when } from './output.ts';

interface Model {
  namespace: string;
  name: string;
}

const nameOf = ({ namespace, name }: Model): string => `${namespace}/${name}`;

function oneOf<T extends string>(names: readonly T[]): (text: string) => T {
  return (text) => {
    const found = names.find((name) => name === text);
    if (found === undefined) throw new InvalidArgumentError(`Expected one of ${names.join(', ')}.`);
    return found;
  };
}

function sampleId(text: string): string {
  if (!sampleIdSchema.safeParse(text).success)
    throw new InvalidArgumentError('Expected BATCH.INDEX, as lepton samples list shows it.');
  return text;
}

function rulesText({ model, rules, setBy, setAtMs }: SampleRulesView): string {
  if (rules === null) return `${model}: no samples are kept`;
  return [
    `${model}: set ${when(setAtMs)} by ${setBy ?? '-'}`,
    ...(rules.lowConfidence === undefined ? [] : [`  confidence below ${rules.lowConfidence.below}`]),
    ...(rules.disagreement === undefined ? [] : ['  a candidate answers otherwise']),
    ...(rules.outOfRange === undefined ? [] : ['  an input outside the reference profile']),
    ...(rules.randomShare === undefined ? [] : [`  a random share of ${rules.randomShare}`]),
    `  at most ${rules.perHourMax} an hour of a device, ${rules.bytesMax} bytes each`,
  ].join('\n');
}

async function rules(
  model: Model,
  flags: GlobalFlags & { file?: string; show?: boolean; clear?: boolean },
): Promise<void> {
  const chosen = [flags.file, flags.show, flags.clear].filter((flag) => flag !== undefined).length;
  if (chosen > 1) throw new FleetError('config-invalid', 'give one of --file, --show and --clear');
  const path = `/api/v1/models/${nameOf(model)}/sample-rules`;
  const client = connect(flags);
  const view =
    flags.file === undefined && flags.clear !== true
      ? await client.get(path, sampleRulesViewSchema)
      : await client.send('PUT', path, { rules: rulesIn(flags.file) }, sampleRulesViewSchema);
  print({ json: flags.json === true }, view, () => rulesText(view));
}

function rulesIn(file: string | undefined) {
  if (file === undefined) return null;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new FleetError('disk-io', `cannot read ${file}`, {
      cause,
      hint: 'check the path and its permissions',
    });
  }
  return unwrap(readYamlFile(text, sampleRulesFileSchema, 'sample-rules-invalid')).data.rules;
}

const rowOf = (one: SampleEntry): Cell[] => [
  one.id,
  when(one.timeMs),
  one.release,
  one.device,
  one.reasons.join(', '),
  one.state,
  asTyped(one.label ?? '-'),
  one.reviewer ?? '-',
];
const headOfRows = ['ID', 'TIME', 'RELEASE', 'DEVICE', 'REASONS', 'STATE', 'LABEL', 'REVIEWER'];

interface ListFlags extends GlobalFlags {
  model?: Model;
  reason?: SampleReason;
  state?: SampleState;
  limit: number;
  after?: string;
}

function listText({ samples, next, waiting }: SampleList): string {
  return [
    table(headOfRows, samples.map(rowOf)),
    ...(waiting > 0 ? [`${waiting} wait for a review`] : []),
    ...(next === null ? [] : [`there are more: --after ${next}`]),
  ].join('\n');
}

async function list(flags: ListFlags): Promise<void> {
  const query = new URLSearchParams({ limit: String(flags.limit) });
  if (flags.model !== undefined) query.set('model', nameOf(flags.model));
  if (flags.reason !== undefined) query.set('reason', flags.reason);
  if (flags.state !== undefined) query.set('state', flags.state);
  if (flags.after !== undefined) query.set('cursor', flags.after);
  const view = await connect(flags).get(`/api/v1/samples?${query}`, sampleListSchema);
  print({ json: flags.json === true }, view, () => listText(view));
}

/** Elements in a terminal's width; --json has them all. */
const elementsShown = 16;

function tensorText(role: string, { name, datatype, shape, data }: SampleTensor): string {
  const some = data.slice(0, elementsShown).map((value) => (value === null ? 'masked' : String(value)));
  const left = data.length - some.length;
  return `${role} ${name} ${datatype}[${shape.join(',')}]: ${some.join(' ')}${left > 0 ? ` and ${left} more` : ''}`;
}

function shownText(one: SampleShown): string {
  return [
    table(headOfRows, [rowOf(one)]),
    `request ${one.requestId ?? '-'}   confidence ${one.confidence?.toFixed(4) ?? '-'}`,
    ...(one.candidate === undefined
      ? []
      : [`${one.candidate} answered with an agreement of ${one.agreement?.toFixed(4) ?? '-'}`]),
    ...(one.comment === null ? [] : [`comment: ${one.comment.replace(/\s+/g, ' ')}`]),
    ...one.inputs.map((tensor) => tensorText('input', tensor)),
    ...one.outputs.map((tensor) => tensorText('output', tensor)),
  ].join('\n');
}

async function review(
  id: string,
  flags: GlobalFlags & { accept?: string; reject?: boolean; comment?: string },
): Promise<void> {
  const { accept, reject, comment } = flags;
  if ((accept === undefined) === (reject !== true))
    throw new FleetError('config-invalid', 'give --accept LABEL or --reject');
  const words = comment === undefined ? {} : { comment };
  const wanted: SampleReview =
    accept === undefined ? { decision: 'reject', ...words } : { decision: 'accept', label: accept, ...words };
  const entry = await connect(flags).send('POST', `/api/v1/samples/${id}/review`, wanted, sampleEntrySchema);
  print({ json: flags.json === true }, entry, () => table(headOfRows, [rowOf(entry)]));
}

async function accepted(
  client: RegistryClient,
  model: string,
  release: string | undefined,
): Promise<{ rows: SampleRow[]; erased: number }> {
  const all: { rows: SampleRow[]; erased: number } = { rows: [], erased: 0 };
  const query = new URLSearchParams(release === undefined ? {} : { release: modelRelease(model, release) });
  for (;;) {
    const page = await client.get(`/api/v1/models/${model}/samples/dataset?${query}`, samplePageSchema);
    all.rows.push(...page.rows);
    all.erased += page.erased;
    if (page.next === null) return all;
    query.set('cursor', page.next);
  }
}

interface ExportFlags extends GlobalFlags {
  release?: string;
  format: 'csv' | 'ndjson';
  out: string;
}

async function exportRows(model: Model, flags: ExportFlags): Promise<void> {
  const { rows, erased } = await accepted(connect(flags), nameOf(model), flags.release);
  const text = flags.format === 'csv' ? unwrap(datasetCsv(rows)) : datasetLines(rows);
  try {
    // Inputs of people's requests: not for everybody on this machine.
    writeFileSync(`${flags.out}.new`, text, { mode: 0o600 });
    renameSync(`${flags.out}.new`, flags.out);
  } catch (cause) {
    throw new FleetError('disk-io', `cannot write ${flags.out}`, { cause });
  }
  const told = { model: nameOf(model), file: flags.out, format: flags.format, samples: rows.length, erased };
  print({ json: flags.json === true }, told, () =>
    [
      `${rows.length} accepted samples in ${flags.out}`,
      ...(erased > 0 ? [`${erased} more were accepted and erased since`] : []),
    ].join('\n'),
  );
}

export function addSampleCommands(program: Command): void {
  const samples = program
    .command('samples')
    .description('requests that devices keep for a person to look at');

  connected(samples.command('rules'))
    .description('of which requests of a model devices keep samples; shows them where nothing else is given')
    .argument('<ns/name>', 'the model', modelId)
    .option('-f, --file <file>', 'YAML or JSON: apiVersion: lepton/v1, kind: SampleRules, rules')
    .option('--show', 'the rules in force')
    .option('--clear', 'no samples any more')
    .action(rules);

  connected(samples.command('list'))
    .description('what came, newest first')
    .option('--model <ns/name>', 'of this model', modelId)
    .option('--reason <reason>', sampleReasons.join(', '), oneOf(sampleReasons))
    .option('--state <state>', sampleStates.join(', '), oneOf(sampleStates))
    .option('--limit <n>', 'at most so many, up to 200', positive, 50)
    .option('--after <id>', 'go on after this one', sampleId)
    .action(list);

  connected(samples.command('show'))
    .description('one sample with its inputs and outputs')
    .argument('<id>', 'BATCH.INDEX', sampleId)
    .action(async (id: string, flags: GlobalFlags) => {
      const shown = await connect(flags).get(`/api/v1/samples/${id}`, sampleShownSchema);
      print({ json: flags.json === true }, shown, () => shownText(shown));
    });

  connected(samples.command('review'))
    .description(
      'say what was right, or that the sample is of no use; a later review takes the place of this one',
    )
    .argument('<id>', 'BATCH.INDEX', sampleId)
    .option('--accept <label>', 'what was right')
    .option('--reject', 'of no use')
    .option('--comment <text>', 'for those who come later')
    .action(review);

  connected(samples.command('export'))
    .description('accepted samples as a dataset for training: inputs, and what was right as target')
    .argument('<ns/name>', 'the model', modelId)
    .requiredOption('-o, --out <file>', 'where to; it replaces what is there')
    .option(
      '--format <format>',
      'csv (one row of numbers each) or ndjson',
      oneOf(['csv', 'ndjson']),
      'ndjson',
    )
    .option('--release <version>', 'answered by this release; by all where absent')
    .action(exportRows);
}
