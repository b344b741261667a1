// Why: every text that a person may read has a translation, with the same values, and is found again by its English.
// Trusts: the compiler's tree of the sources (scripts/messages.mjs). Must never: list the texts itself.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { MessageFormat } from 'messageformat';
import { z } from 'zod';
import { type Catalogue, readCatalogue, speakerOf } from '../../shared/host/languages.ts';
import { codes } from '../../shared/kernel/codes.ts';
import { escaped, Phrases } from '../../shared/wire/phrases.ts';
import { projectFolder } from '../support/data.ts';

const checkSchema = z.object({
  messages: z.number(),
  missing: z.array(z.object({ key: z.string(), where: z.array(z.string()) })),
  stale: z.array(z.object({ key: z.string() })),
  wrong: z.array(z.object({ key: z.string() })),
  unsaid: z.array(z.string()),
});

let catalogue: Catalogue;
before(() => {
  catalogue = readCatalogue('zh');
});

test('the catalogues have exactly what the sources say, value by value; command lines write nothing past them', () => {
  const done = spawnSync(process.execPath, [join('scripts', 'languages.mjs'), '--check'], {
    cwd: projectFolder,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  assert.equal(done.status, 0, done.stderr);
  const { messages, missing, stale, wrong, unsaid } = checkSchema.parse(JSON.parse(done.stdout));
  assert.ok(messages > 2_500, `${messages} texts were found in the sources`);
  assert.deepEqual(missing, [], 'node scripts/languages.mjs --missing');
  assert.deepEqual(stale, [], 'node scripts/languages.mjs --stale');
  assert.deepEqual(wrong, []);
  assert.deepEqual(
    unsaid,
    [],
    'speak by print, note, table or speaker(); scripts/unsaid.mjs has the exceptions',
  );
});

test('every code has a title and its hint in Chinese', () => {
  for (const [code, { hint }] of Object.entries(codes)) {
    assert.match(catalogue.get(code) ?? '', /\p{Script=Han}/u, code);
    assert.match(catalogue.get(escaped(hint)) ?? '', /\p{Script=Han}/u, hint);
  }
});

const holesOf = (key: string): string[] => [...key.matchAll(/\{\$(\w+)\}/g)].map(([, name = '']) => name);
const filled = (key: string, values: Record<string, string>): string =>
  key.replace(/\\([\\{}])|\{\$(\w+)\}/g, (_whole, sign: string | undefined, name: string) =>
    sign === undefined ? (values[name] ?? '') : sign,
  );

test('translations are valid, keep to the typography, and say every value once', () => {
  const broken: string[] = [];
  for (const [key, text] of catalogue) {
    const values = Object.fromEntries(holesOf(key).map((name) => [name, `<${name}>`]));
    const word = () => ({ type: 'word' as const, source: '', toString: () => '' });
    try {
      new MessageFormat<'word'>('zh', text, {
        bidiIsolation: 'none',
        functions: { word, typed: word },
      }).format(values, (error) => broken.push(`${text}: ${String(error)}`));
    } catch (error) {
      broken.push(`${text}: ${String(error)}`);
    }
    if (holesOf(text.replace(/ :(word|typed)\}/g, '}')).length !== holesOf(key).length)
      broken.push(`${key}: another number of values in ${text}`);
    // One rule: a space between Chinese and Latin, full-width signs after Chinese.
    if (/\p{Script=Han}[A-Za-z0-9{]|[A-Za-z0-9}]\p{Script=Han}/u.test(text)) broken.push(`no space: ${text}`);
    if (/\p{Script=Han}[,:;!?()]/u.test(text)) broken.push(`a half-width sign: ${text}`);
    if (/[,;:!?](?=\p{Script=Han})/u.test(text)) broken.push(`a half-width sign: ${text}`);
    if (/\p{Script=Han}\[|\]\p{Script=Han}/u.test(text)) broken.push(`no space at a bracket: ${text}`);
    if (text.includes('你')) broken.push(`not as polite as the others: ${text}`);
    if (/ {2}(?=\p{Script=Han})|\p{Script=Han} \p{Script=Han}/u.test(text.replace(/^\S+ {2,}|\S {2,}/g, '')))
      broken.push(`a space too many: ${text}`);
  }
  assert.deepEqual(broken, []);
});

test('a message is found again by its English text, whatever its values', () => {
  const phrases = new Phrases(catalogue.keys());
  const speaker = speakerOf('zh', catalogue);
  const values = Object.fromEntries(
    'abcdefghijklmnop'.split('').map((name, at) => [name, `v${at}/x-${name}`]),
  );
  const lost: string[] = [];
  for (const key of catalogue.keys()) {
    const text = filled(key, values);
    const found = phrases.recognise(text);
    if (found === null) lost.push(`${key}: not found as ${text}`);
    else if (found.key !== key) {
      // Two messages that can read the same must be translated the same.
      const wanted = speakerOf('zh', new Map([[key, catalogue.get(key) ?? '']])).say(text);
      if (speaker.say(text) !== wanted) lost.push(`${key}: taken for ${found.key}`);
    }
  }
  assert.deepEqual(lost, []);
});
