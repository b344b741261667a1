// npm run demo [-- --once] [-- --json]: builds where that is needed and runs `lepton-sim demo` in this process,
// so that Ctrl-C reaches it and nothing stands between it and the terminal.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
// The compiler's words go to stderr: stdout carries the demo's own.
const built = spawnSync(process.execPath, ['scripts/build.mjs'], { cwd: root, stdio: ['ignore', 2, 2] });
if (built.status !== 0) process.exit(built.status ?? 1);
process.argv.splice(2, 0, 'demo');
await import('../dist/firmware-sim/cli/main.js');
