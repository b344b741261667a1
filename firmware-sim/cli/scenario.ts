// Why: `lepton-sim scenario`: the scenarios, and their data and recipes as the files that `lepton train` reads.
// Trusts: known.ts. Must never: mix prose into a table that goes to stdout, or write over a file unasked.

import { print, saidLine } from '../../registry/cli/output.ts';
import { speaker } from '../../shared/host/speech.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { findScenario, scenarios } from '../scenarios/known.ts';
import { recipeYaml, scenarioCsv } from '../scenarios/scenario.ts';
import { writeStdout, writeWholeFile } from './whole-file.ts';

/** A row takes some hundred bytes: more than a gigabyte is a slip of the finger. */
const rowsMax = 10_000_000;

interface FileFlags {
  /** A path; `-` is stdout. */
  out: string;
  force: boolean;
  json: boolean;
}

export interface DataFlags extends FileFlags {
  rows?: number;
  seed: number;
}

export function listScenarios(flags: { json: boolean }): void {
  const listed = scenarios.map((one) => ({
    name: one.name,
    task: one.task,
    title: one.title,
    titleZh: one.titleZh,
    about: one.about,
    naive: one.naive.about,
    columns: one.columns,
    rows: one.rows,
    recipe: one.recipe,
  }));
  const width = Math.max(...listed.map(({ name }) => name.length)) + 2;
  print(flags, listed, () =>
    listed
      .map(({ name, task, title, titleZh }) =>
        saidLine(
          `${name.padEnd(width)}${task.padEnd(16)}${speaker().language === 'zh' ? titleZh : `${title} (${titleZh})`}`,
        ),
      )
      .join('\n'),
  );
}

export async function scenarioData(name: string, flags: DataFlags): Promise<void> {
  const scenario = unwrap(findScenario(name));
  const rows = flags.rows ?? scenario.rows;
  if (rows > rowsMax) throw new FleetError('config-invalid', `--rows: at most ${rowsMax}`);
  const { seed } = flags;
  const wrote = await write(flags, scenarioCsv(scenario, rows, seed));
  if (wrote)
    print(
      flags,
      { scenario: name, rows, seed, file: flags.out },
      () => `${rows} rows of ${name}, seed ${seed}, in ${flags.out}`,
    );
}

export async function scenarioRecipe(name: string, flags: FileFlags): Promise<void> {
  const scenario = unwrap(findScenario(name));
  const wrote = await write(flags, [recipeYaml(scenario)]);
  if (wrote) print(flags, { scenario: name, file: flags.out }, () => `the recipe of ${name} in ${flags.out}`);
}

/** False where it went to stdout, on which nothing else may stand. */
async function write({ out, force, json }: FileFlags, texts: Iterable<string>): Promise<boolean> {
  if (out !== '-') {
    await writeWholeFile(out, texts, force);
    return true;
  }
  if (json)
    throw new FleetError('config-invalid', 'with --out - stdout is the file itself; leave --json out');
  await writeStdout(texts);
  return false;
}
