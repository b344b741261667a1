// npm run rollouts:bad [-- PART]: builds, then brings real bad releases to five real agents (test/rollout/bad-releases.ts).
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
for (const args of [
  ['scripts/build.mjs'],
  ['--enable-source-maps', 'dist/test/rollout/bad-releases.js', ...process.argv.slice(2)],
]) {
  const done = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
