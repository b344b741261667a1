// Why: a newcomer gets a scenario's table and recipe as files, whole, and keeps the files that were there.
// Trusts: the compiled program. Must never: write outside of its own folder.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { findScenario, scenarios } from '../../firmware-sim/scenarios/known.ts';
import { recipeYaml, scenarioCsv } from '../../firmware-sim/scenarios/scenario.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type Finished, run, until } from '../support/processes.ts';
import { programs } from '../support/programs.ts';

const folder = mkdtempSync(join(tmpdir(), 'lepton-scenario-'));
after(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const sim = (...flags: string[]): Promise<Finished> => run('sim', flags, { timeoutMs: 60_000 });
const energy = unwrap(findScenario('energy'));

test('list: a line for each, in English and Chinese; with --json all that is known of it', async () => {
  const text = await sim('scenario', 'list');
  assert.deepEqual([text.code, text.stderr], [0, '']);
  assert.equal(text.stdout.trim().split('\n').length, scenarios.length);
  assert.match(text.stdout, /^energy +forecast +Load of a transformer a day ahead \(变压器日前负荷预测\)$/m);
  const json = await sim('scenario', 'list', '--json');
  const listed = JSON.parse(json.stdout) as { name: string; recipe: unknown }[];
  assert.deepEqual(
    listed.map(({ name, recipe }) => [name, recipe]),
    scenarios.map(({ name, recipe }) => [name, recipe]),
  );
});

test('data and recipe as files: what the library makes, and nothing else in the folder', async () => {
  const data = await sim('scenario', 'data', 'energy', '--rows', '2000', '--seed', '5', '--out', at('a.csv'));
  assert.deepEqual([data.code, data.stderr], [0, '']);
  assert.equal(data.stdout, `2000 rows of energy, seed 5, in ${at('a.csv')}\n`);
  assert.equal(readFileSync(at('a.csv'), 'utf8'), [...scenarioCsv(energy, 2_000, 5)].join(''));
  const recipe = await sim('scenario', 'recipe', 'energy', '--out', at('a.yaml'), '--json');
  assert.deepEqual(JSON.parse(recipe.stdout), { scenario: 'energy', file: at('a.yaml') });
  assert.equal(readFileSync(at('a.yaml'), 'utf8'), recipeYaml(energy));
  assert.deepEqual(readdirSync(folder).sort(), ['a.csv', 'a.yaml']);
});

test('without --rows and --seed: as many rows as the recipe needs, and the same each time', async () => {
  const finance = unwrap(findScenario('finance'));
  const made = await sim('scenario', 'data', 'finance', '--out', at('f.csv'), '--json');
  const told = { scenario: 'finance', rows: finance.rows, seed: 1, file: at('f.csv') };
  assert.deepEqual(JSON.parse(made.stdout), told);
  assert.equal(readFileSync(at('f.csv'), 'utf8').split('\n').length, finance.rows + 2);
});

test('--out - is the file on stdout and nothing else', async () => {
  const data = await sim('scenario', 'data', 'energy', '--rows', '3', '--out', '-');
  assert.deepEqual([data.code, data.stdout, data.stderr], [0, [...scenarioCsv(energy, 3, 1)].join(''), '']);
  const recipe = await sim('scenario', 'recipe', 'energy', '--out', '-');
  assert.equal(recipe.stdout, recipeYaml(energy));
});

test('a file that is there is kept, unless --force is given', async () => {
  writeFileSync(at('mine.csv'), 'mine');
  const kept = await sim('scenario', 'data', 'energy', '--rows', '3', '--out', at('mine.csv'));
  assert.deepEqual([kept.code, kept.stdout], [1, '']);
  assert.equal(
    kept.stderr,
    `lepton: conflict: ${at('mine.csv')} is there already; name another file, or give --force to write over it\n`,
  );
  assert.equal(readFileSync(at('mine.csv'), 'utf8'), 'mine');
  const forced = await sim('scenario', 'data', 'energy', '--rows', '3', '--out', at('mine.csv'), '--force');
  assert.equal(forced.code, 0);
  assert.equal(readFileSync(at('mine.csv'), 'utf8').split('\n').length, 5);
});

test('Ctrl-C in the middle leaves no file and no half of one', async () => {
  const before = readdirSync(folder).sort();
  const flags = ['scenario', 'data', 'energy', '--rows', '10000000', '--out', at('long.csv')];
  const child = spawn(process.execPath, [programs.sim, ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  try {
    await until('its half file', () => readdirSync(folder).length > before.length);
    child.kill('SIGINT');
    assert.equal(await ended, 1);
    assert.match(stderr, /^lepton: interrupted: .*long\.csv was not written/);
    assert.deepEqual(readdirSync(folder).sort(), before);
  } finally {
    child.kill('SIGKILL');
  }
});

for (const [why, flags, message] of [
  [
    'no such scenario',
    ['scenario', 'data', 'weather', '--out', '-'],
    /no scenario "weather"; there are finance/,
  ],
  ['no rows', ['scenario', 'data', 'energy', '--rows', '0', '--out', '-'], /whole number from 1/],
  ['too many rows', ['scenario', 'data', 'energy', '--rows', '10000001', '--out', '-'], /at most 10000000/],
  [
    'a seed that is none',
    ['scenario', 'data', 'energy', '--seed', '-1', '--out', '-'],
    /whole number from 0/,
  ],
  ['no file named', ['scenario', 'data', 'energy'], /--out/],
  [
    'a folder that is not there',
    ['scenario', 'recipe', 'energy', '--out', at('no/r.yaml')],
    /cannot write .*ENOENT/,
  ],
  [
    'a sensor of nothing',
    ['sensor', 'x', '--agent', 'http://127.0.0.1:1', '--model', 'm'],
    /no scenario "x"/,
  ],
  ['a sensor without an agent', ['sensor', 'energy', '--model', 'm'], /--agent/],
  [
    'an agent that is no URL',
    ['sensor', 'energy', '--agent', 'here', '--model', 'm'],
    /--agent: here is no URL/,
  ],
  ['an agent of a file', ['sensor', 'energy', '--agent', 'file:///x', '--model', 'm'], /expected http/],
  [
    'a model that is no name',
    ['sensor', 'energy', '--agent', 'http://x', '--model', '../y'],
    /expected NAME or NS/,
  ],
  [
    'a pause of nothing',
    ['sensor', 'energy', '--agent', 'http://x', '--model', 'm', '--every', '1'],
    /duration/,
  ],
] as const) {
  test(`exit 2 with one line: ${why}`, async () => {
    const { code, stdout, stderr } = await sim(...flags);
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, /^lepton: (config|input)-invalid: [^\n]+\n$/);
    assert.match(stderr, message);
  });
}

test('--json with --out - is refused, and a fault with --json is a document', async () => {
  const { code, stdout } = await sim('scenario', 'data', 'energy', '--rows', '1', '--out', '-', '--json');
  assert.equal(code, 2);
  assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, 'config-invalid');
  assert.equal(existsSync('-'), false);
});
