// Why: the mutation run itself works: it notices a removed check, knows an equivalent one, and is green without
// a mutant. The whole run is `npm run mutations`. Trusts: the committed list of equivalent mutants.
// Must never: change a file.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { projectFolder, readJson } from '../support/data.ts';

interface Report {
  checks: number;
  killed: number;
  equivalent: number;
  survivors: number;
  mutants: { killedBy: string | null; observed: string }[];
}

function mutations(...flags: string[]): { report: Report; status: number | null } {
  const done = spawnSync(process.execPath, ['scripts/mutations.mjs', '--json', ...flags], {
    cwd: projectFolder,
    encoding: 'utf8',
  });
  assert.notEqual(done.stdout, '', done.stderr);
  return { report: JSON.parse(done.stdout) as Report, status: done.status };
}

const rows = ['--rows', 'root-skipped-version,signature-short,timestamp-older'];

test('a removed check turns a row red, which names it', () => {
  const { report, status } = mutations(...rows, '--file', 'trusted-set', '--source', 'trusted.version + 1');
  assert.deepEqual(
    { ...report, mutants: report.mutants.length },
    { ...report, checks: 1, killed: 1, mutants: 1 },
  );
  assert.equal(report.mutants[0]?.killedBy, 'root-skipped-version');
  assert.equal(status, 0);
});

test('a check that the next line repeats is known as equivalent', () => {
  const { report, status } = mutations(...rows, '--file', 'ed25519', '--source', 'signature.length !== 64');
  assert.deepEqual([report.checks, report.killed, report.equivalent, report.survivors], [1, 0, 1, 0]);
  assert.equal(status, 0);
});

test('a check that no row needs is a survivor, and the run fails', () => {
  const { report, status } = mutations(
    '--rows',
    'timestamp-older',
    '--file',
    'trusted-set',
    '--source',
    'trusted.version + 1',
  );
  assert.equal(report.survivors, 1);
  assert.equal(status, 1);
});

test('without a mutant every row that is run is green', () => {
  const done = spawnSync(process.execPath, ['scripts/mutations.mjs', '--unmutated', ...rows], {
    cwd: projectFolder,
    encoding: 'utf8',
  });
  assert.deepEqual(JSON.parse(done.stdout), { red: null, observed: '', rows: 3 });
});

test('the committed run left no survivor, and each equivalent has its reason', () => {
  const results = readJson<Report>(join(projectFolder, 'test', 'attacks', 'mutation-results.json'));
  assert.equal(results.survivors, 0);
  assert.equal(results.checks, results.killed + results.equivalent);
  const known = JSON.parse(
    readFileSync(join(projectFolder, 'test', 'attacks', 'equivalent-mutants.json'), 'utf8'),
  ) as { reason: string; part: string }[];
  for (const one of known) assert.ok(one.reason.length > 20, one.part);
});
