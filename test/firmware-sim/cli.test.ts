// Why: `lepton-sim` tells a nightly job the truth by its exit code and its lines.
// Trusts: the compiled program. Must never: run more seeds than it needs.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { explore } from '../../firmware-sim/cli/explore.ts';
import { exploreSeed } from '../../firmware-sim/harness.ts';

const program = fileURLToPath(new URL('../../firmware-sim/cli/main.js', import.meta.url));

function run(...flags: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...flags], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('seeds that hold: exit 0, one JSON document a seed, the same as in this process', async () => {
  const { status, stdout, stderr } = run('explore', '--seed', '3', '--seeds', '2', '--json');
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
  assert.equal(lines[0].traceSha256, (await exploreSeed(3)).traceSha256);
  assert.equal(lines[0].trace, undefined);
});

test('a single seed with --json has its trace', () => {
  const { trace } = JSON.parse(run('explore', '--seed', '5', '--json').stdout);
  assert.ok(Array.isArray(trace) && trace.length > 50);
});

for (const flags of [
  ['explore'],
  ['explore', '--seed', 'x'],
  ['explore', '--seed', '1', '--seeds', '0'],
  ['fly'],
]) {
  test(`bad flags exit 2 with one line: ${flags.join(' ')}`, () => {
    const { status, stdout, stderr } = run(...flags);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^lepton: config-invalid: .+\n$/);
  });
}

test('a seed that breaks an invariant: false, with the seed and the end of its trace', async () => {
  const lines: string[] = [];
  const good = await exploreSeed(1);
  const held = await explore(
    { seed: 1, seeds: 2, json: false },
    {
      run: async (seed) => (seed === 2 ? { ...good, seed, violation: 'lost a file' } : good),
      write: (line) => lines.push(line),
      advance: () => undefined,
    },
  );
  assert.equal(held, false);
  assert.equal(lines[0], 'seed 2: lost a file');
  assert.ok(lines.includes('again: lepton-sim explore --seed 2'));
  assert.match(lines.at(-1) ?? '', /1 broke an invariant/);
});
