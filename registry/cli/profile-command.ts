// Why: `lepton profile`: golden cases and a reference profile for a model that was made elsewhere.
// Trusts: flags and files only after they were parsed. Must never: leave a half-written folder.

import { basename, extname } from 'node:path';
import type { Command } from 'commander';
import type { ModelRuns } from '../../shared/host/model-runs.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { Profile } from '../../shared/wire/profile.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { readAnswers } from '../learn/answers.ts';
import { type Feeding, planFeeding } from '../learn/feeding.ts';
import { chooseGolden, goldenFile } from '../learn/golden-making.ts';
import { layOut } from '../learn/laying.ts';
import { chooseFeatures, createProfileMaker, type ProfileMaker } from '../learn/profile-making.ts';
import { spaced } from '../learn/rows.ts';
import type { Table } from '../learn/table.ts';
import { type DataFile, readDataFile } from './data-file.ts';
import { askedOf, type DataFlags, withDataFlags } from './evaluate-command.ts';
import { positive } from './flags.ts';
import { answersFor, ownRecipe, withModel } from './model-answers.ts';
import { print } from './output.ts';
import { checkFree, writeFolder } from './whole-folder.ts';

interface ProfileFlags extends DataFlags {
  out?: string;
  golden: number;
  rowsMax: number;
  seed: number;
  force?: boolean;
  json?: boolean;
}

/** Rows of the table in the order in which the model sees them. */
function tableFor(runs: ModelRuns, file: DataFile, flags: ProfileFlags): Table {
  if (ownRecipe(runs) === null && flags.target === undefined) return file.table;
  const { recipe } = askedOf(runs, file, flags);
  return unwrap(layOut(file.table, recipe)).table;
}

interface Seen {
  profile: Profile;
  leftOut: number;
  /** Of each row asked about the answered class and how sure it was. */
  classes: number[] | null;
  margins: number[] | null;
}

/** Which of several numbers a row is answered, by the order in which they first come. */
function numbering(): (label: number | string) => number {
  const places = new Map<number | string, number>();
  return (label) => {
    const place = places.get(label) ?? places.size;
    places.set(label, place);
    return place;
  };
}

async function seen(runs: ModelRuns, feeding: Feeding, table: Table, rows: Int32Array): Promise<Seen> {
  let maker: ProfileMaker | null = null;
  let leftOut = 0;
  const place = numbering();
  const classes: number[] = [];
  const margins: number[] = [];
  for await (const batch of answersFor(runs, feeding, table, rows)) {
    if (maker === null) {
      const chosen = chooseFeatures(runs, batch);
      leftOut = chosen.leftOut;
      maker = createProfileMaker({
        inputs: runs.inputs,
        outputs: runs.outputs,
        features: chosen.features,
        rows: rows.length,
      });
    }
    maker.add(batch.inputs, batch.outputs);
    const { label, probabilities } = readAnswers(batch.outputs, batch.rows.length);
    for (const one of label ?? []) classes.push(place(one));
    if (probabilities === null) continue;
    const { columns, values } = probabilities;
    for (let row = 0; row < batch.rows.length; row += 1) {
      const own = values.slice(row * columns, (row + 1) * columns).sort();
      margins.push((own[columns - 1] ?? 0) - (own[columns - 2] ?? 0));
    }
  }
  if (maker === null) throw new FleetError('data-unfit', 'no row of the table can be given to the model');
  const whole = <T>(list: T[]): T[] | null => (list.length === rows.length ? list : null);
  return { profile: maker.finish(), leftOut, classes: whole(classes), margins: whole(margins) };
}

/** Numbers of the rows asked about whose ends are worth a case. */
function extremesOf(table: Table, feeding: Feeding, rows: Int32Array): Float64Array[] {
  const names = feeding.inputs.flatMap(({ columns }) => columns);
  return table.columns.flatMap((column) =>
    column.kind === 'numeric' && names.includes(column.name)
      ? [Float64Array.from(rows, (row) => column.values[row] as number)]
      : [],
  );
}

async function goldenCases(runs: ModelRuns, feeding: Feeding, table: Table, rows: Int32Array) {
  const cases: { inputs: Tensor[]; expected: Tensor[] }[] = [];
  for (const row of rows)
    for await (const { inputs, outputs } of answersFor(runs, feeding, table, Int32Array.of(row)))
      cases.push({ inputs, expected: outputs });
  return cases;
}

async function profile(model: string, data: string, flags: ProfileFlags): Promise<void> {
  const out = flags.out ?? `${basename(model, extname(model))}-profile`;
  checkFree(out, flags.force === true);
  const file = await readDataFile(data);
  const made = await withModel(model, async (runs) => {
    const table = tableFor(runs, file, flags);
    const options = { target: flags.target ?? null, columns: flags.columns ?? null, metadata: runs.metadata };
    const feeding = unwrap(planFeeding(runs.inputs, table, options));
    const rows = spaced(feeding.rows, flags.rowsMax);
    const { classes, margins, ...found } = await seen(runs, feeding, table, rows);
    const chosen = chooseGolden({
      rows: rows.length,
      classOf: classes === null ? null : (row) => classes[row] ?? 0,
      margin: margins === null ? null : (row) => margins[row] ?? 0,
      extremes: extremesOf(table, feeding, rows),
      count: flags.golden,
      seed: flags.seed,
    });
    const cases = await goldenCases(
      runs,
      feeding,
      table,
      chosen.map((place) => rows[place] as number),
    );
    return { ...found, cases, rows: rows.length };
  });
  writeFolder(
    out,
    new Map<string, Uint8Array | string>([
      ['golden.json', goldenFile(made.cases)],
      ['profile.json', `${JSON.stringify(made.profile, null, 1)}\n`],
    ]),
    flags.force === true,
  );
  const document = {
    out,
    rows: made.rows,
    features: made.profile.features.length,
    leftOut: made.leftOut,
    goldenCases: made.cases.length,
  };
  print({ json: flags.json === true }, document, () =>
    [
      `${document.goldenCases} golden cases and a profile of ${document.features} features from ${document.rows} rows in ${out}`,
      ...(document.leftOut === 0
        ? []
        : [`${document.leftOut} features are left out: a device counts no more`]),
      `next: lepton models push ${model} --golden ${out}/golden.json --profile ${out}/profile.json --name NAMESPACE/NAME --version 1.0.0`,
    ].join('\n'),
  );
}

export function addProfileCommand(program: Command): void {
  withDataFlags(
    program
      .command('profile')
      .description('golden cases and a reference profile for any ONNX model, from a table of data')
      .argument('<model.onnx>', 'the model')
      .argument('<data.csv>', 'a table of text whose first line names the columns'),
  )
    .option('--golden <n>', 'golden cases at most', positive, 24)
    .option('--rows-max <n>', 'rows that are looked at, evenly spaced', positive, 20_000)
    .option('--seed <n>', 'of the rows that are drawn', positive, 1)
    .option('--out <folder>', 'default: the model’s name and -profile')
    .option('--force', 'replace the folder where it exists')
    .option('--json', 'one JSON document on stdout')
    .action(profile);
}
