// Why: one spelling for a value, one reading for a text. Trusts: JSON.parse and tuf-js's canonical form as
// the other implementations where they agree with the rules. Must never: accept a text they read otherwise.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { canonicalJson, type JsonValue, parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { FleetError } from '../../shared/kernel/errors.ts';

const spell = (value: JsonValue): string => Buffer.from(canonicalJson(value)).toString('utf8');
const read = (text: string, integersOnly = false): ReturnType<typeof parseStrictJson> =>
  parseStrictJson(Buffer.from(text, 'utf8'), { integersOnly });

const leaf = fc.oneof(fc.constant(null), fc.boolean(), fc.maxSafeInteger(), fc.string({ unit: 'grapheme' }));
const key = fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('__proto__', 'constructor', '', 'a'));
const values: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    leaf,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(key, tie('value'), { maxKeys: 4 }),
  ),
})).value;

describe('canonical JSON', () => {
  it('spells the known vectors', () => {
    assert.equal(spell({ b: 1, a: [true, null, 'x'], '': {} }), '{"":{},"a":[true,null,"x"],"b":1}');
    assert.equal(spell('"\\\n\u0000/é€😀'), '"\\"\\\\\n\u0000/é€😀"');
    assert.equal(spell([0, -0, -5, Number.MAX_SAFE_INTEGER]), '[0,0,-5,9007199254740991]');
  });

  it('orders keys by code point where UTF-16 units would not', () => {
    assert.equal(
      spell({ '\u{10000}': 1, '\uffff': 2, '\ud7ff': 3 }),
      '{"\ud7ff":3,"\uffff":2,"\u{10000}":1}',
    );
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ unit: 'binary' }), { maxLength: 6 }), (names) => {
        const sorted = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        const spelled = spell(Object.fromEntries(names.map((name) => [name, 0])));
        const expected = sorted.map((name) => `"${name.replace(/[\\"]/g, '\\$&')}":0`).join(',');
        assert.equal(spelled, `{${expected}}`);
      }),
    );
  });

  it('refuses what has no canonical form', () => {
    for (const value of [1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '\ud800', 'x\udc00']) {
      assert.throws(
        () => canonicalJson([value]),
        (error) => error instanceof FleetError && error.code === 'input-invalid',
      );
    }
  });

  it('is the same for equal values and different for different ones', () => {
    fc.assert(
      fc.property(values, values, (a, b) => {
        const same = JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
        assert.equal(spell(a) === spell(b), same);
        assert.equal(spell(sorted(a)), spell(a));
      }),
    );
  });

  it('spells like tuf-js where both have a rule', () => {
    const require = createRequire(createRequire(import.meta.url).resolve('tuf-js'));
    const { canonicalize } = require('@tufjs/canonical-json') as { canonicalize(value: unknown): string };
    const shallow = fc.dictionary(fc.string(), fc.oneof(leaf, fc.array(leaf)));
    fc.assert(fc.property(shallow, (value) => assert.equal(spell(value), canonicalize(value))));
  });
});

/** The value with keys in one order and plain prototypes, for comparison. */
function sorted(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return Object.is(value, -0) ? 0 : value;
  const entries = Object.entries(value).map(([name, member]): [string, JsonValue] => [name, sorted(member)]);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

describe('strict JSON', () => {
  it('reads what JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom(0, 2), (text, indent) => {
        const value: JsonValue = JSON.parse(text);
        const result = read(JSON.stringify(value, null, indent));
        assert.ok(result.ok);
        assert.deepEqual(sorted(result.value), sorted(value));
      }),
    );
  });

  it('never reads a text in another way than JSON.parse, and refuses only for its own reasons', () => {
    const edit = fc.record({
      at: fc.nat(),
      drop: fc.nat({ max: 2 }),
      put: fc.constantFrom('', '"', ',', '0', '-', 'e1', '.', '{', ']', '\\', ' ', '\ufeff', '\t', 'nul'),
    });
    fc.assert(
      fc.property(fc.json(), fc.array(edit, { minLength: 1, maxLength: 2 }), (text, edits) => {
        let changed = text;
        for (const { at, drop, put } of edits) {
          const where = at % (changed.length + 1);
          changed = changed.slice(0, where) + put + changed.slice(where + drop);
        }
        const ours = parseStrictJson(Buffer.from(changed, 'utf8'));
        let theirs: { value: JsonValue } | null;
        try {
          theirs = { value: JSON.parse(Buffer.from(changed, 'utf8').toString('utf8')) };
        } catch {
          theirs = null;
        }
        if (ours.ok) {
          assert.ok(theirs !== null, `only we accept ${changed}`);
          assert.deepEqual(sorted(ours.value), sorted(theirs.value));
        } else if (theirs !== null) {
          assert.match(ours.refusal.detail, /twice|surrogate|deep|out of range/);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  const refused: [string, string | Uint8Array, RegExp][] = [
    ['a byte order mark', '\ufeff{}', /no JSON value/],
    ['bytes that are no UTF-8', new Uint8Array([0x22, 0xff, 0x22]), /UTF-8/],
    ['an overlong encoding', new Uint8Array([0x22, 0xc0, 0xaf, 0x22]), /UTF-8/],
    ['the same key twice', '{"a":1,"a":1}', /twice/],
    ['the same key in another spelling', '{"a":1,"\\u0061":2}', /twice/],
    ['__proto__ twice', '{"__proto__":1,"__proto__":2}', /twice/],
    ['half a surrogate pair', '"\\ud800"', /surrogate/],
    ['65 levels', `${'['.repeat(65)}0${']'.repeat(65)}`, /deep/],
    ['two values', '1 2', /follows/],
    ['nothing', '', /no JSON value/],
    ['a trailing comma', '[1,]', /no JSON value/],
    ['an open string', '"abc', /does not end/],
    ['a leading zero', '01', /follows/],
    ['a number beyond range', '1e999', /range/],
    ['a raw line break in a string', '"a\nb"', /control/],
    ['an unknown escape', '"\\x41"', /escape/],
    ['a word', 'undefined', /no JSON value/],
  ];
  for (const [what, text, detail] of refused) {
    it(`refuses ${what}`, () => {
      const result = parseStrictJson(typeof text === 'string' ? Buffer.from(text, 'utf8') : text, {
        code: 'metadata-malformed',
      });
      assert.ok(!result.ok);
      assert.equal(result.refusal.code, 'metadata-malformed');
      assert.match(result.refusal.detail, detail);
    });
  }

  it('accepts 64 levels, and keys that objects have of their own', () => {
    assert.ok(read(`${'['.repeat(64)}${']'.repeat(64)}`).ok);
    const result = read('{"__proto__":{"x":1},"constructor":2}');
    assert.ok(result.ok);
    assert.equal(spell(result.value), '{"__proto__":{"x":1},"constructor":2}');
  });

  it('takes only plain integers where canonical JSON must come of it', () => {
    for (const text of ['1.0', '1e2', '-0', '0.5', '9007199254740993', '-1E0']) {
      assert.ok(!read(text, true).ok, text);
      assert.ok(read(text, false).ok, text);
    }
    for (const text of ['0', '-1', '9007199254740991']) assert.ok(read(text, true).ok, text);
  });

  it('reads a string of eight megabytes', () => {
    assert.ok(read(JSON.stringify(`${'x'.repeat(8_000_000)}\n`)).ok);
  });
});
