// npm run soak: builds, switches releases under load for some minutes, writes bench-results.json, exits 1 on a miss.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
for (const args of [['scripts/build.mjs'], ['--enable-source-maps', 'dist/test/bench/soak.js']]) {
  const done = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
