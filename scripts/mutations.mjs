// npm run mutations: removes each check of the compiled trust code in turn and runs the rows of the attack suite
// against what is left. Every removed check must turn a row red, or be listed with a reason in
// test/attacks/equivalent-mutants.json. Writes test/attacks/mutation-results.json.
// --list prints the checks; --file PART and --source PART run those that match alone and write nothing;
// --unmutated runs the rows on the code as it is.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { findChecks } from './mutation-scanner.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const resultsFile = join(root, 'test', 'attacks', 'mutation-results.json');
const equivalentsFile = join(root, 'test', 'attacks', 'equivalent-mutants.json');
const timeLimitMs = 120_000;
/** Of the run without a mutant, which counts and so takes long on a busy machine. */
const unmutatedLimitMs = 900_000;
const atOnce = 2;

const { values: flags } = parseArgs({
  options: {
    /** Compiles first. */
    build: { type: 'boolean' },
    list: { type: 'boolean' },
    unmutated: { type: 'boolean' },
    json: { type: 'boolean' },
    file: { type: 'string' },
    source: { type: 'string' },
    /** Ids of rows, separated by commas: those alone are run. */
    rows: { type: 'string' },
  },
});

if (flags.build) {
  const built = spawnSync(process.execPath, ['scripts/build.mjs'], { cwd: root, stdio: ['ignore', 2, 2] });
  if (built.status !== 0) process.exit(built.status ?? 1);
}

/** Which files hold checks, and of which kinds. In shared/trust a thrown fault is a maker's, not a device's. */
function checkedFiles() {
  const walk = (folder) =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? walk(path) : entry.name.endsWith('.js') ? [path] : [];
    });
  return [
    // attacks.js refuses nothing: it says which refusals wake an operator.
    ...walk(join(dist, 'shared', 'trust'))
      .filter((path) => !path.endsWith('attacks.js'))
      .map((path) => ({ path, zod: /\b(metadata|format)\.js$/.test(path) })),
    ...['ed25519', 'points', 'dsse', 'canonical-json'].map((name) => ({
      path: join(dist, 'shared', 'crypto', `${name}.js`),
      throws: true,
    })),
    // A parcel of a refresh decides nothing: what is in it is verified as if it had been fetched.
    ...walk(join(dist, 'agent', 'trust'))
      .filter((path) => !/(refresh|whole-file)\.js$/.test(path))
      .map((path) => ({ path })),
  ];
}

function allChecks() {
  return checkedFiles().flatMap(({ path, zod = false, throws = false }) => {
    const file = relative(dist, path).replaceAll('\\', '/');
    return findChecks(readFileSync(path, 'utf8'), { zod, throws }).map((check) => ({ file, path, ...check }));
  });
}

const sameCheck = (a, b) =>
  a.file === b.file && a.source === b.source && a.part === b.part && a.kind === b.kind;
const readJson = (path, otherwise) => (existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : otherwise);

/** Runs rows in a child; one that hangs or dies without a word has noticed something. */
function runRows(check, order) {
  const limitMs = check === null ? unmutatedLimitMs : timeLimitMs;
  return new Promise((resolve, reject) => {
    const mutant =
      check === null
        ? null
        : { url: pathToFileURL(check.path).href, start: check.start, end: check.end, to: check.to };
    const hook = pathToFileURL(join(root, 'scripts', 'mutation-hook.mjs')).href;
    const child = spawn(
      process.execPath,
      ['--import', hook, join(dist, 'test', 'attacks', 'mutation-rows.js')],
      {
        cwd: root,
        env: { ...process.env, LEPTON_MUTANT: JSON.stringify(mutant), LEPTON_ROWS: JSON.stringify(order) },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let [out, error, hung] = ['', '', false];
    const timer = setTimeout(() => {
      hung = true;
      child.kill('SIGKILL');
    }, limitMs);
    child.stdout.on('data', (text) => {
      out += text;
    });
    child.stderr.on('data', (text) => {
      error += text;
    });
    child.on('close', () => {
      clearTimeout(timer);
      if (hung) return resolve({ red: 'hang', observed: `no end in ${limitMs} ms`, rows: 0 });
      if (out !== '') return resolve(JSON.parse(out));
      const words = error.split('\n').find((line) => /Error/.test(line)) ?? '';
      if (check === null || /SyntaxError/.test(error))
        return reject(new Error(`${check?.file}:${check?.line} ${error}`));
      return resolve({ red: 'crash', observed: words, rows: 0 });
    });
  });
}

/**
 * For each check the rows that are refused by it, found in one run that counts. A check that refuses no row is a
 * survivor without a run; the others are judged by those rows alone: nothing else can change. Null: all rows.
 */
async function rowsThrough(list) {
  const probed = list.filter((check) => check.probe !== null);
  const folder = mkdtempSync(join(tmpdir(), 'lepton-mutations-'));
  const probes = join(folder, 'probes.json');
  writeFileSync(
    probes,
    JSON.stringify(probed.map((check) => ({ url: pathToFileURL(check.path).href, at: check.probe }))),
  );
  const { through, ...unmutated } = await runRows(null, { ...some, probes });
  rmSync(folder, { recursive: true });
  const refusedBy = new Map(probed.map((check, index) => [check, through?.[index] ?? []]));
  return { unmutated, refusedBy };
}

const checks = allChecks().filter(
  (check) =>
    (flags.file === undefined || check.file.includes(flags.file)) &&
    (flags.source === undefined || check.source.includes(flags.source) || check.part.includes(flags.source)),
);
if (flags.list) {
  for (const { file, line, kind, part, source } of checks)
    console.log(`${file}:${line} [${kind}] ${part}  <<  ${source}`);
  console.log(`${checks.length} checks`);
  process.exit(0);
}

const startedMs = performance.now();
const some = flags.rows === undefined ? {} : { only: flags.rows.split(',') };
const { unmutated, refusedBy } = flags.unmutated
  ? { unmutated: await runRows(null, some), refusedBy: new Map() }
  : await rowsThrough(checks);
if (unmutated.red !== null) {
  console.error(`without a mutant ${unmutated.red} is red: ${unmutated.observed}`);
  process.exit(1);
}
if (flags.unmutated) {
  console.log(JSON.stringify(unmutated));
  process.exit(0);
}

const before = readJson(resultsFile, { mutants: [] }).mutants;
const equivalents = readJson(equivalentsFile, []);
const results = [];
const queue = checks.map((check, index) => ({ check, index }));
async function work() {
  for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
    const { check, index } = job;
    const killer = before.find((one) => sameCheck(one, check))?.killedBy;
    const only = refusedBy.get(check);
    // Without a check of its form a file is accepted that was malformed: no other row can notice.
    const narrow = only ? { only } : check.kind === 'schema' ? { ...some, code: 'metadata-malformed' } : some;
    const order = { ...narrow, first: killer ? [killer] : [] };
    const verdict = only?.length === 0 ? { red: null, observed: '' } : await runRows(check, order);
    const { file, line, kind, part, source } = check;
    results[index] = { file, line, kind, part, source, killedBy: verdict.red, observed: verdict.observed };
    if (!flags.json)
      console.log(
        `${results.filter(Boolean).length}/${checks.length} ${verdict.red === null ? 'SURVIVED' : `killed by ${verdict.red}`}  ${file}:${line} ${part}`,
      );
  }
}
await Promise.all(Array.from({ length: atOnce }, work));

const survivors = results.filter((one) => one.killedBy === null);
const explained = survivors.filter((one) => equivalents.some((known) => sameCheck(known, one)));
const unexplained = survivors.filter((one) => !explained.includes(one));
const stale = equivalents.filter((known) => {
  const now = results.find((one) => sameCheck(known, one));
  return now === undefined ? flags.file === undefined && flags.source === undefined : now.killedBy !== null;
});
const summary = {
  rows: unmutated.rows,
  checks: results.length,
  killed: results.length - survivors.length,
  equivalent: explained.length,
  survivors: unexplained.length,
};
const isWhole = flags.file === undefined && flags.source === undefined && flags.rows === undefined;
if (isWhole) {
  // Without what varies from run to run, so that the committed file changes only where the code did.
  const mutants = results.map(({ observed: _observed, ...one }) => one);
  writeFileSync(resultsFile, `${JSON.stringify({ ...summary, mutants }, null, 2)}\n`);
}
if (flags.json) console.log(JSON.stringify({ ...summary, mutants: results }));
else {
  for (const one of unexplained)
    console.log(`survivor: ${one.file}:${one.line} [${one.kind}] ${one.part}  <<  ${one.source}`);
  for (const one of stale)
    console.log(`equivalent-mutants.json lists what is none any more: ${one.file} ${one.part}`);
  console.log(`${JSON.stringify(summary)} in ${Math.round((performance.now() - startedMs) / 1_000)} s`);
}
process.exitCode = unexplained.length === 0 && (stale.length === 0 || !isWhole) ? 0 : 1;
