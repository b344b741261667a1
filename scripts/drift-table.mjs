// Alarms on real recordings beside their labelled anomalies: precision, recall, and what a quiet recording costs.
// Usage: node scripts/drift-table.mjs   (LEPTON_DATA names the folder of recordings)
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
for (const script of ['scripts/build.mjs', 'dist/test/evidence/drift-table.js']) {
  const done = spawnSync(process.execPath, [script], { cwd: root, stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
