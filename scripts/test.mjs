// The whole test run: build (types), lint, then node's test runner over the compiled tests.
// Usage: npm test [-- name-part …]   runs only the test files whose path contains a part.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = (command, args) => {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
};
const parts = process.argv.slice(2);
run(process.execPath, ['scripts/build.mjs']);
if (parts.length === 0) {
  run(process.execPath, [
    join('node_modules', '@biomejs', 'biome', 'bin', 'biome'),
    'check',
    '--error-on-warnings',
    '.',
  ]);
}

/** Node 20 neither expands quoted globs nor finds tests by itself in a compiled tree: list them. */
const find = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return find(path);
    return entry.name.endsWith('.test.js') ? [path] : [];
  });
const files = find(join(root, 'dist')).filter(
  (file) => parts.length === 0 || parts.some((part) => file.includes(part)),
);
if (files.length === 0) {
  console.error(`no test file matches: ${parts.join(' ')}`);
  process.exit(1);
}
const data = process.env.LEPTON_DATA ?? join(root, '..', 'shared', 'data');
if (!existsSync(data)) {
  console.error(
    `note: ${data} is absent (set LEPTON_DATA); tests on real models and recordings will be skipped`,
  );
  if (process.env.CI) {
    console.error('in CI a skipped test is a failed run');
    process.exit(1);
  }
}
// The counts are read from a second report: Node 20 ends with 0 where tests were cancelled, and a skipped
// test in CI is a failed run.
const folder = mkdtempSync(join(tmpdir(), 'lepton-test-'));
const counts = { pass: 0, fail: 0, cancelled: 0, skipped: 0 };
let clean = true;
function test(chosen, name) {
  if (chosen.length === 0) return;
  const report = join(folder, `${name}.tap`);
  const done = spawnSync(
    process.execPath,
    [
      // The whole run does without: they cost each of some three hundred processes a fifth of a second.
      ...(parts.length === 0 ? [] : ['--enable-source-maps']),
      '--test',
      '--test-concurrency=3',
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      '--test-reporter=tap',
      `--test-reporter-destination=${report}`,
      ...chosen,
    ],
    { cwd: root, stdio: 'inherit' },
  );
  clean &&= done.status === 0;
  const text = readFileSync(report, 'utf8');
  for (const what of Object.keys(counts))
    counts[what] += Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
}
// One that keeps every core busy by itself would only be slowed down by others, and they by it.
const isAlone = (file) => file.endsWith(join('firmware-sim', 'fleet.test.js'));
test(files.filter(isAlone), 'alone');
test(
  files.filter((file) => !isAlone(file)),
  'together',
);
rmSync(folder, { recursive: true });
const { pass, fail, cancelled, skipped } = counts;
console.log(`${pass} passed, ${fail + cancelled} failed, ${skipped} skipped`);
if (skipped > 0)
  console.error(
    `${skipped} skipped: ${process.env.CI ? 'in CI that is a failed run' : 'they need the data folder'}`,
  );
if (fail + cancelled > 0 && parts.length === 0)
  console.error('lines of what failed are of dist/; npm test -- PART OF A PATH says them of the sources');
clean &&= pass > 0 && fail === 0 && cancelled === 0;
process.exit(clean && !(process.env.CI && skipped > 0) ? 0 : 1);
