// Why: `lepton-sim` tells a nightly job the truth by its exit code and its lines.
// Trusts: the compiled program. Must never: run more seeds than it needs.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { seedsOf } from '../../firmware-sim/cli/explore.ts';
import { runSeed } from './one-device-world.ts';

const program = fileURLToPath(new URL('../../firmware-sim/cli/main.js', import.meta.url));
const worldFile = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));
const small = ['--world', worldFile('one-device-world')];
const folder = mkdtempSync(join(tmpdir(), 'lepton-sim-'));
after(() => rmSync(folder, { recursive: true }));

function run(...flags: string[]) {
  const options = { encoding: 'utf8', cwd: folder } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...flags], options);
  return { status, stdout, stderr };
}

test('seeds that hold: exit 0, one JSON document a seed, the same as in this process', async () => {
  const { status, stdout, stderr } = run('explore', '--seed', '3', '--seeds', '2', '--json', ...small);
  assert.deepEqual([status, stderr], [0, '']);
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ seed, violation }) => [seed, violation]),
    [
      [3, null],
      [4, null],
    ],
  );
  assert.equal(lines[0].traceSha256, (await runSeed({ seed: 3 })).traceSha256);
  assert.equal(lines[0].trace, undefined);
});

test('a single seed with --json has its trace, and a picture where one is asked for', () => {
  const { trace } = JSON.parse(run('explore', '--seed', '5', '--json', '--svg', '5.svg', ...small).stdout);
  assert.ok(Array.isArray(trace) && trace.length > 50);
  assert.match(readFileSync(join(folder, '5.svg'), 'utf8'), /^<svg [\s\S]*Seed 5: every invariant held/);
});

test('a seed that fails: exit 1, a shorter list in a file, and the file fails again', async () => {
  const broken = ['--world', worldFile('broken-world')];
  const found = run('explore', '--seeds', '100', '--jobs', '2', '--until-failure', ...broken);
  assert.equal(found.status, 1);
  const file = /again: lepton-sim explore --only (seed-\d+\.only\.json)/.exec(found.stdout)?.[1] ?? '';
  const { seed, violation, only } = JSON.parse(readFileSync(join(folder, file), 'utf8'));
  assert.ok(only.length <= 4, only.join());
  const again = run('explore', '--only', file, '--json', ...broken);
  assert.equal(again.status, 1);
  const told = JSON.parse(again.stdout);
  assert.deepEqual([told.seed, told.faults], [seed, only]);
  assert.equal(typeof violation, 'string');
  assert.ok(told.trace.length > 0);
});

test('coverage: exit 1 where something was never reached, with its name', () => {
  const { status, stdout } = run('coverage', '--seeds', '3', '--jobs', '1', '--json', ...small);
  const report = JSON.parse(stdout);
  assert.equal(status, 1);
  assert.equal(report.seeds, 3);
  assert.ok(report.missed.includes('fault broker.forget'));
});

test('Ctrl-C: the children end, what was done is printed, exit 1', async () => {
  const flags = ['explore', '--seeds', '100000', '--jobs', '2', ...small];
  const child = spawn(process.execPath, [program, ...flags], { cwd: folder });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  // Its handler stands once it has started children.
  const hasChildren = () =>
    readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim() !== '';
  while (child.exitCode === null && !hasChildren()) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill('SIGINT');
  assert.equal(await ended, 1);
  assert.match(stdout, /stopped after \d+ of 100000: /);
  assert.equal(stderr, '');
});

writeFileSync(join(folder, 'bad.json'), '{"seed": 1, "only": ["step"]}');
for (const flags of [
  ['explore'],
  ['explore', '--seed', 'x'],
  ['explore', '--seed', '1', '--seeds', '0'],
  ['explore', '--seed', '1', '--from', '1'],
  ['explore', '--seed', '1', '--world', 'absent.js'],
  ['explore', '--only', 'absent.json'],
  ['explore', '--only', 'bad.json'],
  ['coverage', '--seeds', 'all'],
  ['fly'],
]) {
  test(`bad flags exit 2 with one line: ${flags.join(' ')}`, () => {
    const { status, stdout, stderr } = run(...flags);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^lepton: (config|input)-invalid: .+\n$/);
  });
}

test('--from and --seed are the same; without either seeds count from 1', () => {
  assert.deepEqual(seedsOf({ json: false, from: 4, seeds: 2 }), { from: 4, seeds: 2 });
  assert.deepEqual(seedsOf({ json: false, seed: 4, seeds: 2 }), { from: 4, seeds: 2 });
  assert.deepEqual(seedsOf({ json: false, seed: 4 }), { from: 4, seeds: 1 });
  assert.deepEqual(seedsOf({ json: false, seeds: 7 }), { from: 1, seeds: 7 });
});
