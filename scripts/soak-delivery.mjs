// npm run soak:link and soak:kills: builds, runs the worst cases of delivery at full size, exits 1 on a miss.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
for (const args of [
  ['scripts/build.mjs'],
  ['--enable-source-maps', 'dist/test/bench/rough.js', ...process.argv.slice(2)],
]) {
  const done = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
