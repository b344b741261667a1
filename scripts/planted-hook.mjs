// Why: loads one file of dist/ with one planted bug, in a program and in every process that it forks, without writing
// anything to the disk. Trusts: the environment that scripts/planted-bugs.mjs set. Must never: touch another file.
import { readFileSync } from 'node:fs';
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';

const planted = JSON.parse(process.env.LEPTON_PLANTED ?? 'null');
if (planted !== null && isMainThread) register(import.meta.url);

/** The text with every edit; each must be found exactly once. */
export function withEdits(text, edits) {
  return edits.reduce((source, { find, replace }) => {
    const times = source.split(find).length - 1;
    if (times !== 1) throw new Error(`found ${times} times instead of once: ${find}`);
    return source.replace(find, () => replace);
  }, text);
}

export async function load(url, context, nextLoad) {
  if (planted === null || url !== planted.url) return nextLoad(url, context);
  const source = withEdits(readFileSync(fileURLToPath(url), 'utf8'), planted.edits);
  return { format: 'module', source, shortCircuit: true };
}
