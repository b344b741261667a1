// Builds the TypeScript sources into dist/. Runs at install (npm ci) and before the tests,
// so that `npx lepton` works straight after a clone was installed.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
if (!existsSync(tsc)) {
  if (existsSync(join(root, 'dist', 'programs', 'lepton.js'))) process.exit(0);
  console.error('lepton: build-tool-missing: install with development dependencies once: npm ci');
  process.exit(1);
}

/** Removes compiled files whose source is gone, so that a deleted test cannot go on running. */
function prune(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    // Has no sources of its own (bundle.mjs).
    if (path === join(root, 'dist', 'programs')) continue;
    if (entry.isDirectory()) prune(path);
    else if (/\.js(\.map)?$/.test(entry.name)) {
      const source = path.replace(join(root, 'dist'), root).replace(/\.js(\.map)?$/, '.ts');
      if (!existsSync(source)) rmSync(path);
    }
  }
}
if (existsSync(join(root, 'dist'))) prune(join(root, 'dist'));

const compiled = spawnSync(process.execPath, [tsc, '-p', root], { cwd: root, stdio: 'inherit' });
if (compiled.status !== 0) process.exit(compiled.status ?? 1);

// Files the program reads at run time stand beside the code that reads them.
const migrations = join(root, 'registry', 'store', 'migrations');
if (existsSync(migrations))
  cpSync(migrations, join(root, 'dist', 'registry', 'store', 'migrations'), { recursive: true });
const catalogues = join(root, 'shared', 'languages');
if (existsSync(catalogues)) {
  rmSync(join(root, 'dist', 'shared', 'languages'), { recursive: true, force: true });
  cpSync(catalogues, join(root, 'dist', 'shared', 'languages'), { recursive: true });
}
const bundled = spawnSync(process.execPath, [join(root, 'scripts', 'bundle.mjs')], {
  cwd: root,
  stdio: 'inherit',
});
if (bundled.status !== 0) process.exit(bundled.status ?? 1);
for (const bin of ['programs/lepton.js', 'programs/lepton-agent.js', 'firmware-sim/cli/main.js']) {
  const path = join(root, 'dist', bin);
  if (existsSync(path)) chmodSync(path, 0o755);
}
