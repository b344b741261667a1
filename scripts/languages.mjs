// Why: keeps the catalogues in step with the sources: `--missing` lists what has no translation, `--stale` what no
// source says any more, `--unsaid` what command lines write past the translation, `--add FILE` takes translations from a
// JSON object, `--check` is what the test runs.
// Trusts: messages.mjs for what the sources say. Must never: translate, or drop an entry that is still said.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { collectMessages } from './messages.mjs';
import { collectUnsaid } from './unsaid.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = join(root, 'shared', 'languages', 'zh');

function readCatalogues() {
  const known = new Map();
  for (const name of readdirSync(folder).filter((one) => one.endsWith('.json')))
    for (const [key, text] of Object.entries(JSON.parse(readFileSync(join(folder, name), 'utf8'))))
      known.set(key, { text, topic: name.slice(0, -'.json'.length) });
  return known;
}

/** Names of the values of a key or a translation. */
const valuesOf = (text) => new Set([...text.matchAll(/\{\$(\w+)[^}]*\}/g)].map(([, name]) => name));

/** Each value of the key stands in the translation, and no others. */
function differs(key, text) {
  const [wanted, found] = [valuesOf(key), valuesOf(text)];
  return wanted.size !== found.size || [...wanted].some((name) => !found.has(name));
}

const messages = collectMessages();
const known = readCatalogues();
const missing = [...messages.values()].filter(({ key }) => !known.has(key));
const stale = [...known].filter(([key]) => !messages.has(key)).map(([key, { topic }]) => ({ key, topic }));
const wrong = [...known]
  .filter(([key, { text }]) => differs(key, text))
  .map(([key, { text }]) => ({ key, text }));

/** Every message in the file of its topic, in the order of its sources. */
function write(translations) {
  const files = new Map();
  for (const { key, topic } of messages.values()) {
    const text = translations.get(key);
    if (text === undefined) continue;
    if (!files.has(topic)) files.set(topic, {});
    files.get(topic)[key] = text;
  }
  for (const name of readdirSync(folder).filter((one) => one.endsWith('.json')))
    if (!files.has(name.slice(0, -'.json'.length))) files.set(name.slice(0, -'.json'.length), {});
  for (const [topic, entries] of files)
    writeFileSync(join(folder, `${topic}.json`), `${JSON.stringify(entries, null, 2)}\n`);
}

const [verb, file] = process.argv.slice(2);
if (verb === '--missing') {
  for (const { key, topic, where } of missing) console.log(JSON.stringify({ topic, key, where: where[0] }));
} else if (verb === '--stale') {
  for (const one of stale) console.log(JSON.stringify(one));
} else if (verb === '--unsaid') {
  for (const one of collectUnsaid()) console.log(one);
} else if (verb === '--add') {
  const translations = new Map([...known].map(([key, { text }]) => [key, text]));
  const added = Object.entries(JSON.parse(readFileSync(file ?? '', 'utf8')));
  for (const [key, text] of added) {
    if (!messages.has(key)) console.error(`no source says this: ${key}`);
    else if (differs(key, text)) console.error(`other values than its key has: ${key} → ${text}`);
    else translations.set(key, text);
  }
  write(translations);
} else if (verb === '--check') {
  console.log(JSON.stringify({ messages: messages.size, missing, stale, wrong, unsaid: collectUnsaid() }));
} else {
  console.error('node scripts/languages.mjs --missing | --stale | --unsaid | --add FILE | --check');
  process.exitCode = 2;
}
