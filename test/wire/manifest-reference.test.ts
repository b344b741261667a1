// Why: publishers write manifests by docs/manifest.md: it must name everything that a manifest may say, and its
// examples must be taken. Trusts: the schema. Must never: judge the words.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { z } from 'zod';
import { readYamlFile } from '../../registry/policy/yaml-file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { manifestOverridesSchema } from '../../shared/wire/manifest.ts';
import { projectFolder } from '../support/data.ts';

const text = readFileSync(join(projectFolder, 'docs', 'manifest.md'), 'utf8');

/** Every key that stands anywhere in the schema, and every word that a key may have as its value. */
function wordsOf(schema: unknown, found = new Set<string>()): Set<string> {
  if (Array.isArray(schema)) for (const one of schema) wordsOf(one, found);
  else if (typeof schema === 'object' && schema !== null)
    for (const [key, value] of Object.entries(schema)) {
      if (key === 'properties') for (const name of Object.keys(value as object)) found.add(name);
      if (key === 'const' && typeof value === 'string') found.add(value);
      wordsOf(value, found);
    }
  return found;
}

test('docs/manifest.md names every key of a manifest that its publisher may set', () => {
  const words = wordsOf(z.toJSONSchema(manifestOverridesSchema, { io: 'input' }));
  assert.ok(words.size > 30 && words.has('suppressIou') && words.has('cpu-time'));
  const missing = [...words].filter((word) => !new RegExp(`[\`" {]${word}[\`":,} \\n]`).test(text));
  assert.deepEqual(missing, []);
});

test('the examples of docs/manifest.md are manifests', () => {
  const examples = [...text.matchAll(/```(json|yaml)\n([^`]+)```/g)];
  assert.ok(examples.length >= 5);
  for (const [, language, example = ''] of examples) {
    if (language === 'json') manifestOverridesSchema.parse(JSON.parse(example));
    else unwrap(readYamlFile(example, manifestOverridesSchema, 'manifest-malformed'));
  }
});

test('the defaults of memory in docs/manifest.md are those of the agent', () => {
  assert.deepEqual([limits.childMemoryRequiredFactor, limits.childMemoryShare], [2, 0.5]);
  assert.match(text, /twice `requires\.memoryMiB`, or half of the device's memory/);
});
