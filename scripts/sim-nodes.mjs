// npm run sim:nodes [-- --node 22 --seeds 20]: the same seeds under this Node and under another one, which is installed
// from the npm package `node` into a temporary folder, with better-sqlite3 built for it. Exit 1 where one trace differs.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values: flags } = parseArgs({
  options: {
    node: { type: 'string', default: '22' },
    seeds: { type: 'string', default: '20' },
    from: { type: 'string', default: '1' },
    /** Keeps the folder, and uses it again where it is there. */
    folder: { type: 'string' },
  },
});

const folder = flags.folder ?? mkdtempSync(join(tmpdir(), 'lepton-nodes-'));
const run = (command, args, options = {}) => {
  const done = spawnSync(command, args, { encoding: 'utf8', ...options });
  if (done.status === 0) return done.stdout;
  console.error(`${command} ${args.join(' ')}\n${done.stdout}\n${done.stderr}`);
  process.exit(2);
};

/** A copy of the program with its packages, better-sqlite3 built for the other Node. */
function prepare() {
  const platform = `node-${process.platform}-${process.arch}`;
  const other = join(folder, 'node_modules', 'node', 'bin', 'node');
  if (!existsSync(other)) {
    writeFileSync(join(folder, 'package.json'), '{"private": true}');
    console.error(`installing node@${flags.node}`);
    run('npm', ['install', '--no-audit', '--no-fund', `node@${flags.node}`], { cwd: folder });
  }
  const nested = join(folder, 'node_modules', 'node', 'node_modules', platform);
  const headers = existsSync(nested) ? nested : join(folder, 'node_modules', platform);
  const program = join(folder, 'program');
  if (!existsSync(program)) {
    console.error('building better-sqlite3 for it');
    const packages = join(program, 'node_modules');
    cpSync(join(root, 'node_modules', 'better-sqlite3'), join(packages, 'better-sqlite3'), {
      recursive: true,
    });
    for (const name of readdirSync(join(root, 'node_modules'))) {
      if (name !== 'better-sqlite3' && !name.startsWith('.'))
        symlinkSync(join(root, 'node_modules', name), join(packages, name));
    }
    const gyp = join(
      dirname(process.execPath),
      '..',
      'lib',
      'node_modules',
      'npm',
      'node_modules',
      'node-gyp',
    );
    const script = [gyp, join(root, 'node_modules', 'node-gyp')].find((path) => existsSync(path));
    const [command, ...first] =
      script === undefined
        ? ['npx', '--yes', 'node-gyp']
        : [process.execPath, join(script, 'bin', 'node-gyp.js')];
    run(command, [...first, 'rebuild', '--release', `--nodedir=${headers}`], {
      cwd: join(packages, 'better-sqlite3'),
      env: { ...process.env, PATH: `${dirname(other)}:${process.env.PATH}`, npm_config_nodedir: headers },
    });
  }
  rmSync(join(program, 'dist'), { recursive: true, force: true });
  cpSync(join(root, 'dist'), join(program, 'dist'), { recursive: true });
  cpSync(join(root, 'package.json'), join(program, 'package.json'));
  cpSync(join(root, 'registry', 'store'), join(program, 'registry', 'store'), { recursive: true });
  return { other, program };
}

const explore = (node, at) =>
  run(
    node,
    [
      join(at, 'dist', 'firmware-sim', 'cli', 'main.js'),
      ...['explore', '--from', flags.from, '--seeds', flags.seeds, '--jobs', '1', '--json', '--no-shrink'],
    ],
    { maxBuffer: 2 ** 30 },
  )
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .map(({ seed, traceSha256, violation }) => ({ seed, traceSha256, violation }));

const { other, program } = prepare();
const here = explore(process.execPath, root);
const again = explore(process.execPath, root);
const there = explore(other, program);
const version = run(other, ['--version']).trim();
let differing = 0;
for (const [index, { seed, traceSha256, violation }] of here.entries()) {
  const same = again[index]?.traceSha256 === traceSha256 && there[index]?.traceSha256 === traceSha256;
  if (!same) differing += 1;
  console.log(
    `seed ${seed} ${traceSha256.slice(0, 16)} ${same ? 'the same' : 'DIFFERS'}${violation ? ` ${violation}` : ''}`,
  );
}
console.log(
  `${here.length} seeds under Node ${process.version} twice and ${version} once: ${differing} differ`,
);
if (flags.folder === undefined) rmSync(folder, { recursive: true, force: true });
process.exit(differing === 0 ? 0 : 1);
