// npm run fuzz -- --seconds N [--seed S]: builds and fuzzes every parser for N seconds. A failure prints the seed that
// repeats it and the shrunk input.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } },
});
const env = { ...process.env, LEPTON_FUZZ_SECONDS: values.seconds };
if (values.seed !== undefined) env.LEPTON_FUZZ_SEED = values.seed;
for (const args of [
  ['scripts/build.mjs'],
  [
    '--enable-source-maps',
    '--test',
    '--test-reporter=spec',
    'dist/test/attacks/fuzz.test.js',
    'dist/test/attacks/fuzz-topics.test.js',
  ],
]) {
  const done = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit', env });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
