// Why: loads files of dist/ with planted bugs, or with marks where those would make a difference, in a program and in
// every process that it forks, without writing anything to the disk. Trusts: the environment that
// scripts/planted-bugs.mjs set. Must never: touch another file.
import { readFileSync } from 'node:fs';
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';

/** `{ url, edits }` of each file that is changed. */
const planted = new Map(JSON.parse(process.env.LEPTON_PLANTED ?? '[]').map(({ url, edits }) => [url, edits]));
if (planted.size > 0 && isMainThread) {
  register(import.meta.url);
  tellOfMarks();
}

/** What was passed during a seed stands in its result, under `coverage`. */
function tellOfMarks() {
  const passed = new Set();
  globalThis.leptonReached = (mark) => passed.add(mark).size > 0;
  const send = process.send?.bind(process);
  if (send === undefined) return;
  process.send = (message, ...rest) => {
    for (const mark of passed)
      if (message.result !== undefined) message.result.coverage[`reached ${mark}`] = 1;
    passed.clear();
    return send(message, ...rest);
  };
}

/** The text with every edit; each must be found exactly once. */
export function withEdits(text, edits) {
  return edits.reduce((source, { find, replace }) => {
    const times = source.split(find).length - 1;
    if (times !== 1) throw new Error(`found ${times} times instead of once: ${find}`);
    return source.replace(find, () => replace);
  }, text);
}

export async function load(url, context, nextLoad) {
  const edits = planted.get(url);
  if (edits === undefined) return nextLoad(url, context);
  const source = withEdits(readFileSync(fileURLToPath(url), 'utf8'), edits);
  return { format: 'module', source, shortCircuit: true };
}
