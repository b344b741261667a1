// node scripts/planted-bugs.mjs: plants each bug of firmware-sim/planted-bugs.json in turn and runs seeds of its world until
// one breaks an invariant: 1 to 500 of `fleet`, which is meant where a bug names none, 1 to 60 of `regions`.
// Writes firmware-sim/planted-results.json; scripts/sim-readme.mjs makes the table of it.
// Where a bug says by `reach` where it makes a difference, all seeds are run once without it first, with marks there:
// a seed that passes no mark would run with the bug as it runs without, and is left out.
// --check only looks whether each bug is still a change of the compiled code that can be parsed; --name PART takes those
// whose name or file contains PART, --of WORLD those of one world, --missed those that were not found before (each keeps the
// results of the others); --from K, --seeds N, --jobs J, --world FILE as in lepton-sim explore. Exit 1 where a bug was not
// found, 2 where one is no change of the code any more.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { withEdits } from './planted-hook.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const bugsFile = join(root, 'firmware-sim', 'planted-bugs.json');
const resultsFile = join(root, 'firmware-sim', 'planted-results.json');
const hook = pathToFileURL(join(root, 'scripts', 'planted-hook.mjs')).href;
const program = join(root, 'scripts', 'planted-seeds.mjs');

const { values: flags } = parseArgs({
  options: {
    check: { type: 'boolean' },
    name: { type: 'string' },
    missed: { type: 'boolean' },
    of: { type: 'string' },
    from: { type: 'string', default: '1' },
    seeds: { type: 'string' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    world: { type: 'string' },
  },
});

const compiled = (file) => join(root, 'dist', file.replace(/\.ts$/, '.js'));
const editsOf = ({ find, replace, and = [] }) => [{ find, replace }, ...and];
const urlOf = (file) => pathToFileURL(compiled(file)).href;
/** By name: what runs a seed of it, and how far seeds are looked through. */
const worlds = {
  fleet: { file: 'firmware-sim/fleet-world/run-seed.ts', seeds: 500 },
  regions: { file: 'firmware-sim/region-world/run-seed.ts', seeds: 60 },
};
const worldOf = ({ world = 'fleet' }) => world;
const upToOf = (world) => Number(flags.seeds ?? worlds[world].seeds);

/** Why a bug is none, or null. */
function problemOf(bug, folder) {
  if (worlds[worldOf(bug)] === undefined) return `there is no world ${bug.world}`;
  const path = compiled(bug.file);
  if (!existsSync(path)) return `no ${path}; npm run build`;
  let source;
  try {
    source = withEdits(readFileSync(path, 'utf8'), editsOf(bug));
  } catch (error) {
    return error.message;
  }
  if (bug.reach !== undefined) {
    try {
      withEdits(readFileSync(path, 'utf8'), [{ find: bug.find, replace: bug.reach }]);
    } catch (error) {
      return `reach: ${error.message}`;
    }
  }
  const copy = join(folder, 'planted.mjs');
  writeFileSync(copy, source);
  const parsed = spawnSync(process.execPath, ['--check', copy], { encoding: 'utf8' });
  return parsed.status === 0 ? null : parsed.stderr.split('\n').slice(0, 6).join(' ');
}

/** What runs seeds now: it must not outlive this script. */
let running = null;
process.on('exit', () => running?.kill());
process.on('SIGTERM', () => process.exit(1));

/** Runs these seeds of a world with files changed, and tells of each; with `untilFailure` to the first that fails. */
function run(world, planted, seeds, tell, untilFailure) {
  const chosen = flags.world === undefined ? urlOf(worlds[world].file) : pathToFileURL(flags.world).href;
  const args = [seeds.join(), flags.jobs, chosen, ...(untilFailure ? ['until-failure'] : [])];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', hook, program, ...args], {
      cwd: root,
      env: { ...process.env, LEPTON_PLANTED: JSON.stringify(planted) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    running = child;
    createInterface({ input: child.stdout }).on('line', (line) => tell(JSON.parse(line)));
    child.on('error', reject);
    child.on('close', (code) => {
      running = null;
      if (code === 0) resolve();
      else reject(new Error(`seeds ended with code ${code}`));
    });
  });
}

/** The first of these seeds that fails with this bug, or without one; null: all hold. */
async function explore(world, bug, seeds) {
  let first = null;
  const planted = bug === null ? [] : [{ url: urlOf(bug.file), edits: editsOf(bug) }];
  await run(
    world,
    planted,
    seeds,
    ({ seed, violation }) => {
      if (violation !== null && (first === null || seed < first.seed)) first = { seed, violation };
    },
    true,
  );
  return first;
}

/** By bug, the seeds of its world in which it makes a difference; those without a mark are not in it. */
async function reachOf(world, marked, seeds) {
  const edits = [];
  const markOf = new Map();
  for (const { name, file, find, reach } of marked) {
    const key = JSON.stringify([file, find, reach]);
    const known = edits.findIndex((edit) => edit.key === key);
    markOf.set(name, known === -1 ? edits.length : known);
    if (known === -1)
      edits.push({
        key,
        file,
        find,
        replace: reach.replaceAll('REACHED()', `leptonReached(${edits.length})`),
      });
  }
  const files = [...new Set(edits.map(({ file }) => file))];
  const planted = files.map((file) => ({
    url: urlOf(file),
    edits: edits.filter((edit) => edit.file === file).map(({ find, replace }) => ({ find, replace })),
  }));
  const reached = edits.map(() => []);
  await run(world, planted, seeds, ({ seed, violation, marks }) => {
    red.set(`${world} ${seed}`, violation !== null);
    for (const mark of marks) reached[mark].push(seed);
  });
  return new Map([...markOf].map(([name, mark]) => [name, reached[mark].sort((a, b) => a - b)]));
}

const bugs = JSON.parse(readFileSync(bugsFile, 'utf8'));
const before = existsSync(resultsFile) ? JSON.parse(readFileSync(resultsFile, 'utf8')) : [];
const results = new Map(before.map((result) => [result.name, result]));
const chosen = bugs.filter(
  (bug) =>
    (flags.name === undefined || bug.name.includes(flags.name) || bug.file.includes(flags.name)) &&
    (flags.of === undefined || flags.of === worldOf(bug)) &&
    !(flags.missed && results.get(bug.name)?.seed != null),
);
if (new Set(bugs.map(({ name }) => name)).size !== bugs.length) {
  console.error('two planted bugs have one name');
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), 'lepton-planted-'));
const problems = chosen.flatMap((bug) => {
  const problem = problemOf(bug, folder);
  return problem === null ? [] : [`${bug.name} (${bug.file}): ${problem}`];
});
rmSync(folder, { recursive: true });
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(2);
console.log(`${chosen.length} planted bugs are changes of the compiled code`);
if (flags.check) process.exit(0);

/** Seeds that fail without any bug show nothing about one. */
const red = new Map();
async function failsAnyway(world, seed) {
  const key = `${world} ${seed}`;
  if (!red.has(key)) red.set(key, (await explore(world, null, [seed])) !== null);
  if (red.get(key)) console.error(`seed ${seed} of ${world} fails without a planted bug and is left out`);
  return red.get(key);
}

/** The first of the seeds that fails with this bug and holds without it. */
async function firstFinding(bug, seeds) {
  const world = worldOf(bug);
  for (let left = seeds; left.length > 0; ) {
    const first = await explore(world, bug, left);
    if (first === null || !(await failsAnyway(world, first.seed))) return first;
    left = left.filter((seed) => seed > first.seed);
  }
  return null;
}

const from = Number(flags.from);
const allOf = (world) => Array.from({ length: Math.max(0, upToOf(world) - from + 1) }, (_, at) => from + at);
const reached = new Map();
for (const world of Object.keys(worlds)) {
  const marked = chosen.filter((bug) => bug.reach !== undefined && worldOf(bug) === world);
  if (marked.length === 0) continue;
  for (const [name, seeds] of await reachOf(world, marked, allOf(world))) reached.set(name, seeds);
}
const seedsOf = (bug) => reached.get(bug.name) ?? allOf(worldOf(bug));
// Those that few seeds can show first.
chosen.sort((a, b) => seedsOf(a).length - seedsOf(b).length);
for (const bug of chosen) console.log(`${seedsOf(bug).length} seeds of ${worldOf(bug)} for: ${bug.name}`);

let missed = 0;
for (const bug of chosen) {
  const { name, file } = bug;
  const world = worldOf(bug);
  const first = await firstFinding(bug, seedsOf(bug));
  // A bug that keeps the world from being loaded shows nothing about the world.
  const isLoaded = first === null || !/cannot be loaded|SyntaxError/.test(first.violation);
  if (first === null || !isLoaded) missed += 1;
  const words = first === null ? 'NOT FOUND' : `seed ${first.seed}: ${first.violation.split('\n')[0]}`;
  console.log(`${name}: ${isLoaded ? words : `NOT LOADED: ${words}`}`);
  results.set(name, {
    name,
    file,
    world,
    seed: isLoaded ? (first?.seed ?? null) : null,
    seedsNeeded: isLoaded ? (first?.seed ?? null) : null,
    violation: isLoaded ? (first?.violation.split('\n')[0] ?? null) : null,
    ...(first === null ? { lookedUpTo: upToOf(world) } : {}),
  });
  const told = bugs.flatMap((one) => results.get(one.name) ?? []);
  writeFileSync(resultsFile, `${JSON.stringify(told, null, 2)}\n`);
}
console.log(`${chosen.length - missed} of ${chosen.length} found`);
process.exitCode = missed === 0 ? 0 : 1;
