// Why: holds what rules do to a record, above all to one that is not as they expect. Trusts: nothing.
// Must never: check a digest against itself.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { masked } from '../../agent/telemetry/masking.ts';
import { readYamlFile } from '../../registry/policy/yaml-file.ts';
import { type MaskingRule, maskingFileSchema, maskingRuleSchema } from '../../shared/wire/masking.ts';

const key = '0b'.repeat(32);
const digest = (text: string): string =>
  `h:${createHmac('sha256', Buffer.from(key, 'hex')).update(text).digest('hex').slice(0, 32)}`;

function made(data: Record<string, unknown>, ...rules: object[]): Record<string, unknown> {
  const parsed = rules.map((rule): MaskingRule => maskingRuleSchema.parse(rule));
  const release = data['release'] === undefined ? null : String(data['release']);
  return masked({ timeMs: 1, release, data }, 'app', { key, rules: parsed }).data;
}

test('fields go, wherever they are', () => {
  const data = { name: 'A', visit: { name: 'B', at: 1 }, tags: [{ name: 'C', n: 1 }, { n: 2 }, 'name'] };
  assert.deepEqual(made(data, { do: 'drop', field: 'name' }), { visit: data.visit, tags: data.tags });
  assert.deepEqual(made(data, { do: 'drop', field: 'visit.name' })['visit'], { at: 1 });
  assert.deepEqual(made(data, { do: 'drop', field: 'tags.name' })['tags'], [{ n: 1 }, { n: 2 }, 'name']);
  assert.deepEqual(made(data, { do: 'drop', field: '*.name' })['visit'], { at: 1 });
  assert.deepEqual(made(data, { do: 'drop', field: 'tags.*' })['tags'], []);
  assert.deepEqual(made({ 'a.b': 1, a: { b: 2 } }, { do: 'drop', field: ['a.b'] }), { a: { b: 2 } });
  assert.deepEqual(data.visit, { name: 'B', at: 1 }, 'the record itself is not changed');
});

test('a digest is keyed, tells types apart, and stands for values alone', () => {
  const rule = { do: 'hash', field: 'id' };
  assert.deepEqual(made({ id: 'x' }, rule), { id: digest('string x') });
  assert.deepEqual(made({ id: 1 }, rule), { id: digest('number 1') });
  assert.notDeepEqual(made({ id: 1 }, rule), made({ id: '1' }, rule));
  assert.deepEqual(made({ id: ['x', { y: 1 }, null] }, rule), { id: [digest('string x'), null] });
  assert.deepEqual(made({ id: { first: 'x' } }, rule), {}, 'an object is no value');
  assert.deepEqual(made({ id: null }, rule), { id: null });
});

test('numbers are rounded and clipped; what is none goes', () => {
  const round = { do: 'round', field: 'age', to: 10 };
  assert.deepEqual(made({ age: 37 }, round), { age: 40 });
  assert.deepEqual(made({ age: '37' }, round), {}, 'a rule must not let through what it does not understand');
  assert.deepEqual(made({ age: null }, round), { age: null });
  const clip = { do: 'clip', field: 'age', min: 18, max: 80 };
  assert.deepEqual(made({ age: 3 }, clip), { age: 18 });
  assert.deepEqual(made({ age: 99 }, clip), { age: 80 });
  assert.deepEqual(made({ age: true }, clip), {});
  assert.deepEqual(
    made({ age: 97 }, round, { do: 'clip', field: 'age', max: 90 }),
    { age: 90 },
    'in their order',
  );
});

test('rules are for classes and models; a record that names no release might be about any', () => {
  const rule = maskingRuleSchema.parse({ do: 'drop', field: 'x', classes: ['sample'], model: 'acme/vad' });
  const fate = (of: 'app' | 'sample', release: string | null): unknown =>
    masked({ timeMs: 1, release, data: { x: 1 } }, of, { key, rules: [rule] }).data['x'];
  assert.equal(fate('app', 'acme/vad@1.0.0'), 1);
  assert.equal(fate('sample', 'acme/vad@1.0.0'), undefined);
  assert.equal(fate('sample', 'acme/vad-2@1.0.0'), 1);
  assert.equal(fate('sample', null), undefined);
});

test('names of no good intent are names', () => {
  const data = JSON.parse('{"__proto__":{"x":1},"constructor":2,"y":3}') as Record<string, unknown>;
  const out = made(data, { do: 'drop', field: '__proto__.x' });
  assert.equal(JSON.stringify(out), '{"__proto__":{},"constructor":2,"y":3}');
});

test('a file says where it is wrong', () => {
  const head = 'apiVersion: lepton/v1\nkind: Masking\nrules:\n';
  const detail = (rules: string): string => {
    const read = readYamlFile(head + rules, maskingFileSchema, 'masking-file-invalid');
    return read.ok ? 'ok' : `${read.refusal.code} ${read.refusal.detail}`;
  };
  assert.equal(detail('  - {do: hash, field: patient.id}\n'), 'ok');
  assert.match(detail('  - {do: hide, field: a}\n'), /^masking-file-invalid line 4, column \d+: /);
  assert.match(detail('  - {do: clip, field: a}\n'), /give min, max or both/);
  assert.match(detail('  - {do: clip, field: a, min: 3, max: 1}\n'), /min is above max/);
  assert.match(detail('  - {do: drop, field: a..b}\n'), /a name in it is empty/);
  assert.match(detail('  - {do: drop, field: a, salt: x}\n'), /salt/);
});
