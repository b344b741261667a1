// Why: whatever bytes a stranger sends, each reader of metadata answers with a value or a code, soon.
// Trusts: fast-check's seeds, which it prints. Must never: let a reader throw, hang, or pass what is unsigned.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { openPolicy } from '../../agent/cli/tuf/open-policy.ts';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { readSnapshot, readTimestamp } from '../../shared/trust/tuf/format.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { parseRoot, parseSnapshot, parseTargets, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { checkPublisherMetadata, checkPublisherStep } from '../../shared/trust/tuf/publisher.ts';
import { catalogueRoles, countValidSignatures, parseTargetsFile } from '../../shared/trust/tuf/repository.ts';
import { trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import { nowMs, Repository, role, signerNamed } from './catalogue-fixture.ts';
import { regionRoot } from './region-fixture.ts';
import { TufSimulator } from './tuf-simulator.ts';

const house = new Repository();
const open = new TufSimulator('ecdsa');
open.delegate('targets', { name: 'role', terminating: true, paths: ['a/*'], threshold: 1 });
open.addTarget('targets', 'a/file', 'content', ['sha256', 'sha512']);
open.publish('root');
open.publishAll('role');

const acme = house.current('acme');
const readers: [string, (bytes: Uint8Array) => Result<unknown>][] = [
  ['parseRoot', (bytes) => parseRoot(bytes, catalogueRoles)],
  ['trustRoot, house', (bytes) => trustRoot(housePolicy, bytes)],
  ['trustRoot, open', (bytes) => trustRoot(openPolicy, bytes)],
  ['parseRegionRoot', parseRegionRoot],
  ['parseTimestamp', parseTimestamp],
  ['readTimestamp, open', (bytes) => readTimestamp(openPolicy, bytes)],
  ['parseSnapshot', parseSnapshot],
  ['readSnapshot, open', (bytes) => readSnapshot(openPolicy, bytes)],
  ['parseTargets', parseTargets],
  ['parseTargetsFile', parseTargetsFile],
  ['parseTargets, open', (bytes) => openPolicy.parseTargets(bytes)],
  ['publisher step, next', (bytes) => checkPublisherStep({ namespace: 'acme', current: acme, next: bytes })],
  [
    'publisher step, current',
    (bytes) => checkPublisherStep({ namespace: 'acme', current: bytes, next: acme }),
  ],
  [
    'publisher metadata',
    (bytes) =>
      checkPublisherMetadata({
        namespace: 'acme',
        role: role(1, signerNamed('acme')),
        current: null,
        next: bytes,
        nowMs,
      }),
  ],
];

const seeds: Uint8Array[] = [
  house.firstRoot,
  house.files.get('timestamp.json') ?? new Uint8Array(),
  house.current('snapshot'),
  house.current('targets'),
  acme,
  regionRoot(),
  ...['root', 'timestamp', 'snapshot', 'targets', 'role'].map((name) => open.latest(name)),
];

/** Longest that one reader may take for one small file. */
const soonMs = 5_000;

function readAll(bytes: Uint8Array): void {
  for (const [name, read] of readers) {
    const start = performance.now();
    const result = read(bytes);
    assert.ok(performance.now() - start < soonMs, `${name} takes too long`);
    if (!result.ok) {
      assert.ok(isErrorCode(result.refusal.code), name);
      assert.ok(result.refusal.detail.length < 2_000, `${name} repeats what a stranger wrote`);
    }
  }
  assert.ok(countValidSignatures(bytes, [signerNamed('acme').publicKey]) <= 1);
}

const byteEdit = fc.record({
  at: fc.nat(),
  kind: fc.constantFrom('flip', 'drop', 'insert', 'cut', 'double', 'replace'),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 4 }),
});

function applyBytes(
  bytes: Uint8Array,
  edits: readonly { at: number; kind: string; bytes: Uint8Array }[],
): Uint8Array {
  return edits.reduce((now, { at, kind, bytes: more }) => {
    const where = at % Math.max(now.length, 1);
    const [before, after] = [now.subarray(0, where), now.subarray(where)];
    if (kind === 'cut') return before;
    if (kind === 'drop') return Buffer.concat([before, after.subarray(more.length)]);
    if (kind === 'insert') return Buffer.concat([before, more, after]);
    if (kind === 'double') return Buffer.concat([before, after, before]);
    if (kind === 'replace') return Buffer.concat([before, more, after.subarray(more.length)]);
    return Buffer.concat([before, Buffer.from([(after[0] ?? 0) ^ (more[0] ?? 1)]), after.subarray(1)]);
  }, bytes);
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const strange: fc.Arbitrary<Json> = fc.oneof(
  fc.constantFrom<Json>(null, true, 0, -1, 1, 2 ** 53, '', '__proto__', [], {}, '2026-02-30T00:00:00Z', [[]]),
  fc.string(),
  fc.integer(),
  fc.dictionary(fc.constantFrom('__proto__', 'constructor', 'length', 'hashes', 'keyids'), fc.constant(null)),
);

/** Puts something strange in the place of one member, or beside it. */
function applyJson(value: Json, path: readonly number[], put: Json, beside: boolean): Json {
  const [first, ...rest] = path;
  if (first === undefined || value === null || typeof value !== 'object') return put;
  if (Array.isArray(value)) {
    if (value.length === 0) return [put];
    const at = first % value.length;
    const changed = applyJson(value[at] ?? null, rest, put, beside);
    return value.map((one, index) => (index === at ? changed : one)).concat(beside ? [changed] : []);
  }
  const keys = Object.keys(value);
  if (keys.length === 0) return { x: put };
  const key = keys[first % keys.length] ?? '';
  return { ...value, [beside ? `${key}2` : key]: applyJson(value[key] ?? null, rest, put, beside) };
}

describe('readers of metadata', () => {
  it('answer to bytes changed at random', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...seeds),
        fc.array(byteEdit, { minLength: 1, maxLength: 5 }),
        (seed, edits) => readAll(applyBytes(seed, edits)),
      ),
      { numRuns: 1_500 },
    );
  });

  it('answer to members that are something else', () => {
    const paths = fc.array(fc.nat(40), { minLength: 1, maxLength: 7 });
    fc.assert(
      fc.property(fc.constantFrom(...seeds), paths, strange, fc.boolean(), (seed, path, put, beside) => {
        const value = JSON.parse(Buffer.from(seed).toString()) as Json;
        readAll(Buffer.from(JSON.stringify(applyJson(value, path, put, beside))));
      }),
      { numRuns: 1_500 },
    );
  });

  it('answer to bytes of any kind', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => readAll(bytes)),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.json(), (text) => readAll(Buffer.from(text))),
      { numRuns: 500 },
    );
  });

  const text = Buffer.from(acme).toString();
  const hostile: [string, string | Uint8Array][] = [
    ['nothing', ''],
    ['a byte order mark', `\ufeff${text}`],
    [
      'invalid UTF-8',
      Buffer.concat([Buffer.from(text.slice(0, 40)), Buffer.from([0xff, 0xfe]), Buffer.from(text.slice(40))]),
    ],
    ['half a surrogate pair', text.replace('"targets"', '"\\ud800"')],
    ['arrays in arrays', '['.repeat(200_000)],
    ['objects in objects', '{"a":'.repeat(200_000)],
    ['a long number', text.replace('"version":1', `"version":1${'0'.repeat(100_000)}`)],
    ['an exponent', text.replace('"version":1', '"version":1e400')],
    ['a key twice', text.replace('"version":1', '"version":1,"version":2')],
    ['a key twice, once escaped', text.replace('"version":1', '"version":1,"\\u0076ersion":2')],
    ['a long string without an end', `{"signatures":"${'a'.repeat(400_000)}`],
    [
      'many signatures',
      JSON.stringify({
        signatures: Array.from({ length: 9_000 }, (_, index) => ({ keyid: String(index), sig: '' })),
        signed: {},
      }),
    ],
    [
      'many keys in one object',
      JSON.stringify({
        signatures: [],
        signed: Object.fromEntries(Array.from({ length: 50_000 }, (_, index) => [`k${index}`, 1])),
      }),
    ],
  ];
  for (const [what, content] of hostile) {
    it(`refuse ${what}`, () => {
      const bytes = Buffer.from(content);
      assert.ok(bytes.length < limits.targetsBytesMax);
      readAll(bytes);
      for (const [name, read] of readers.filter(([one]) => one !== 'publisher step, current'))
        assert.equal(read(bytes).ok, false, name);
    });
  }

  it('refuse what is beyond the limit of its role, before they read it', () => {
    const huge = Buffer.alloc(limits.targetsBytesMax + 1, 0x20);
    for (const [name, read] of readers) {
      const start = performance.now();
      const result = read(huge);
      assert.ok(!result.ok && result.refusal.code === 'metadata-too-large', name);
      assert.ok(performance.now() - start < 1_000, name);
    }
  });

  it('take no unsigned root for a root, whatever was changed in it', () => {
    fc.assert(
      fc.property(fc.constantFrom(...seeds), byteEdit, (seed, edit) => {
        const changed = applyBytes(seed, [edit]);
        for (const policy of [housePolicy, openPolicy]) {
          const trusted = trustRoot(policy, changed);
          if (!trusted.ok) continue;
          // Bytes outside what is signed (space, an unneeded signature) may change; the words may not.
          const before = trustRoot(policy, seed);
          assert.ok(before.ok);
          assert.deepEqual(trusted.value.signedBytes, before.value.signedBytes);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});
