// Why: the JSON Schemas in schemas/ are those that the code would write today.
// Trusts: scripts/schemas.mjs for writing them. Must never: write them itself.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { jsonSchemaFiles } from '../../shared/wire/json-schemas.ts';
import { projectFolder } from '../support/data.ts';

test('schemas/ is current; else run node scripts/schemas.mjs', () => {
  const folder = join(projectFolder, 'schemas');
  const files = jsonSchemaFiles();
  assert.deepEqual(readdirSync(folder).sort(), [...files.keys()].sort());
  for (const [name, text] of files) assert.equal(readFileSync(join(folder, name), 'utf8'), text, name);
});

test('a schema says what it is and describes what a writer gives', () => {
  const rollout = JSON.parse(jsonSchemaFiles().get('rollout.schema.json') ?? '{}');
  assert.equal(rollout.$schema, 'https://json-schema.org/draft/2020-12/schema');
  assert.equal(rollout.title, 'Rollout file');
  // Written as text such as 10m, although the code gets milliseconds.
  assert.equal(rollout.properties.spec.properties.deadlines.properties.fetching.type, 'string');
  assert.equal(rollout.properties.spec.additionalProperties, false);
});
