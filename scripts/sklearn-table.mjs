// node scripts/sklearn-table.mjs: trains scikit-learn's MLP beside ours on each of the real tables, with the same layers,
// features and split, and writes test/learn/sklearn-results.json, with which the tests compare. Needs the data folder
// (LEPTON_DATA, else ../shared/data) and Debian's python3-sklearn; PYTHON names another interpreter.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const data = process.env.LEPTON_DATA ?? join(root, '..', 'shared', 'data');
const python = process.env.PYTHON ?? '/usr/bin/python3';
const run = (program, args) => {
  const done = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (done.status !== 0) process.exit(done.status ?? 1);
  return done.stdout;
};
run(process.execPath, ['scripts/build.mjs']);
const { realTasks } = await import('../dist/test/learn/real-data.js');
const results = [];
for (const { name } of realTasks) {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-sklearn-'));
  run(process.execPath, ['dist/test/learn/export-training.js', name, data, folder]);
  const { ours } = JSON.parse(readFileSync(join(folder, 'about.json'), 'utf8'));
  const theirs = JSON.parse(run(python, ['scripts/sklearn-mlp.py', folder]));
  rmSync(folder, { recursive: true });
  const scores = ours.scores.map((score) => Number(score.toFixed(4)));
  const median = [...scores].sort((a, b) => a - b)[2];
  results.push({ ...theirs, ours: median, oursBySeed: scores, naive: Number(ours.naive.toFixed(4)) });
  console.log(
    `${name}: ours ${median} (${scores.join(', ')}), naive ${ours.naive.toFixed(4)}, scikit-learn ${JSON.stringify(theirs)}`,
  );
}
const file = join(root, 'test', 'learn', 'sklearn-results.json');
writeFileSync(file, `${JSON.stringify({ command: 'node scripts/sklearn-table.mjs', results }, null, 2)}\n`);
