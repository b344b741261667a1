// Why: loads one file of dist/ with one check removed, without writing anything to the disk.
// Trusts: the environment that scripts/mutations.mjs set. Must never: touch another file.
import { readFileSync } from 'node:fs';
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';

const mutant = JSON.parse(process.env.LEPTON_MUTANT ?? 'null');
if (mutant !== null && isMainThread) register(import.meta.url);

export async function load(url, context, nextLoad) {
  if (mutant === null || url !== mutant.url) return nextLoad(url, context);
  const text = readFileSync(fileURLToPath(url), 'utf8');
  const source = text.slice(0, mutant.start) + mutant.to + text.slice(mutant.end);
  return { format: 'module', source, shortCircuit: true };
}
