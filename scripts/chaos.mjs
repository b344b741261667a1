// npm run chaos [-- --kills 200 --records 200000 --seed 1 --broker mosquitto]: builds, then kills agents and registry at random while records
// are made and links are cut; exits 1 where a record was lost or stored twice.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
for (const args of [
  ['scripts/build.mjs'],
  ['--enable-source-maps', 'dist/test/telemetry/chaos-run.js', ...process.argv.slice(2)],
]) {
  const done = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
