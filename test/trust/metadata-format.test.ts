// Why: what is metadata and what only looks like it; dates that are dates; files that are made as they are read.
// Trusts: nothing. Must never: accept a file that another TUF client would read otherwise.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { formatTufDate, parseTufDate } from '../../shared/trust/tuf/dates.ts';
import { isNamespace } from '../../shared/trust/tuf/namespaces.ts';
import {
  addSignature,
  countValidSignatures,
  describeFile,
  makeRoot,
  makeTargets,
  parseRootFile,
  parseSnapshotFile,
  parseTargetsFile,
  parseTimestampFile,
} from '../../shared/trust/tuf/repository.ts';
import {
  codeOf,
  dayMs,
  entry,
  forge,
  nowMs,
  type OpenFile,
  Repository,
  role,
  signerNamed,
  wireKeyId,
} from './catalogue-fixture.ts';

describe('dates', () => {
  it('are those of the calendar, both ways', () => {
    fc.assert(
      fc.property(fc.integer({ min: -62_167_219_200, max: 253_402_300_799 }), (seconds) => {
        const text = new Date(seconds * 1_000).toISOString().replace('.000Z', 'Z');
        assert.equal(formatTufDate(seconds * 1_000), text);
        assert.equal(parseTufDate(text), seconds * 1_000);
      }),
      { numRuns: 2_000 },
    );
    assert.equal(formatTufDate(999), '1970-01-01T00:00:00Z');
  });

  for (const text of [
    '2026-02-29T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-00-10T00:00:00Z',
    '2026-01-32T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T00:60:00Z',
    '2026-01-01T00:00:60Z',
    '2026-01-01T00:00:00',
    '2026-01-01T00:00:00.5Z',
    '2026-01-01T00:00:00+00:00',
    '2026-1-1T00:00:00Z',
    'never',
    '',
  ]) {
    it(`do not include "${text}"`, () => assert.equal(parseTufDate(text), null));
  }
  it('include a leap day', () =>
    assert.equal(parseTufDate('2028-02-29T23:59:59Z'), Date.UTC(2028, 1, 29, 23, 59, 59)));
});

type Parser =
  | typeof parseTargetsFile
  | typeof parseRootFile
  | typeof parseSnapshotFile
  | typeof parseTimestampFile;
type Change = (file: OpenFile, signed: Record<string, unknown>) => void;
const set =
  (key: string, value: unknown): Change =>
  (_file, signed) => {
    signed[key] = value;
  };
const repository = new Repository();
const root = repository.firstRoot;
const timestamp = repository.files.get('timestamp.json') ?? new Uint8Array();
const snapshot = repository.current('snapshot');
const targets = repository.current('targets');
const acme = repository.current('acme');
const aaa = { length: 1, hashes: { sha256: 'a'.repeat(64) } };

const malformed: [string, Parser, Uint8Array, Change][] = [
  ['a version of zero', parseTargetsFile, acme, set('version', 0)],
  ['a version in words', parseTargetsFile, acme, set('version', '1')],
  ['a version beyond 2^53', parseTargetsFile, acme, set('version', 2 ** 60)],
  ['a date that is none', parseTargetsFile, acme, set('expires', '2026-02-30T00:00:00Z')],
  ['another type', parseTargetsFile, acme, set('_type', 'snapshot')],
  ['TUF 2', parseTargetsFile, acme, set('spec_version', '2.0.0')],
  ['no targets', parseTargetsFile, acme, (_file, signed) => void delete signed['targets']],
  ['a target without digests', parseTargetsFile, acme, set('targets', { x: { length: 1, hashes: {} } })],
  [
    'a target with other digests only',
    parseTargetsFile,
    acme,
    set('targets', { x: { length: 1, hashes: { md5: 'a' } } }),
  ],
  [
    'a digest in capitals',
    parseTargetsFile,
    acme,
    set('targets', { x: { length: 1, hashes: { sha256: 'A'.repeat(64) } } }),
  ],
  ['a negative length', parseTargetsFile, acme, set('targets', { x: { ...aaa, length: -1 } })],
  [
    'a counter below zero',
    parseTargetsFile,
    acme,
    set('targets', { x: { ...aaa, custom: { counter: -1 } } }),
  ],
  ['a floor in words', parseTargetsFile, acme, set('x-lepton', { floors: { detector: 'high' } })],
  [
    'a key id that signs twice',
    parseTargetsFile,
    acme,
    (file) => void file.signatures.push(...file.signatures),
  ],
  [
    'a threshold of zero',
    parseRootFile,
    root,
    (_file, signed) => {
      const roles = signed['roles'] as Record<string, { threshold: number }>;
      if (roles['timestamp']) roles['timestamp'].threshold = 0;
    },
  ],
  [
    'a key id listed twice in a role',
    parseRootFile,
    root,
    (_file, signed) => {
      const roles = signed['roles'] as Record<string, { keyids: string[] }>;
      roles['timestamp']?.keyids.push(...roles['timestamp'].keyids);
    },
  ],
  [
    'a root without a role',
    parseRootFile,
    root,
    (_file, signed) => {
      delete (signed['roles'] as Record<string, unknown>)['snapshot'];
    },
  ],
  [
    'a key under another key’s id',
    parseRootFile,
    root,
    (_file, signed) => {
      const keys = signed['keys'] as Record<string, unknown>;
      keys[repository.timestampSigner.keyId] = keys[repository.snapshotSigner.keyId];
    },
  ],
  [
    'a publisher’s key under a name of its own',
    parseTargetsFile,
    targets,
    (_file, signed) => {
      const { keys } = signed['delegations'] as { keys: Record<string, unknown> };
      keys['acme'] = keys[signerNamed('acme').keyId];
    },
  ],
  ['a root without consistent snapshots', parseRootFile, root, set('consistent_snapshot', false)],
  [
    'a region’s root as the catalogue’s',
    parseRootFile,
    root,
    set('x-lepton', { kind: 'region', region: 'eu' }),
  ],
  ['a timestamp without a snapshot', parseTimestampFile, timestamp, set('meta', {})],
  [
    'a timestamp with empty digests',
    parseTimestampFile,
    timestamp,
    set('meta', { 'snapshot.json': { version: 1, hashes: {} } }),
  ],
  ['a snapshot without versions', parseSnapshotFile, snapshot, set('meta', { 'targets.json': {} })],
  [
    'a delegation to a name of TUF’s own',
    parseTargetsFile,
    targets,
    (_file, signed) => {
      const { roles } = signed['delegations'] as { roles: { name: string; paths: string[] }[] };
      Object.assign(roles[0] ?? {}, { name: 'snapshot', paths: ['snapshot/*/*'] });
    },
  ],
  [
    'a delegation listed twice',
    parseTargetsFile,
    targets,
    (_file, signed) => {
      const { roles } = signed['delegations'] as { roles: unknown[] };
      roles.push(roles[0]);
    },
  ],
  [
    'a delegation that does not terminate',
    parseTargetsFile,
    targets,
    (_file, signed) => {
      const { roles } = signed['delegations'] as { roles: { terminating: boolean }[] };
      if (roles[0]) roles[0].terminating = false;
    },
  ],
  [
    'a delegation by hash prefixes',
    parseTargetsFile,
    targets,
    (_file, signed) => {
      const { roles } = signed['delegations'] as { roles: Record<string, unknown>[] };
      Object.assign(roles[0] ?? {}, { path_hash_prefixes: ['00'] });
    },
  ],
];

describe('metadata', () => {
  for (const [what, parse, bytes, change] of malformed) {
    it(`is refused with ${what}`, () => {
      assert.equal(codeOf(parse(bytes)), 'ok');
      assert.equal(codeOf(parse(forge(bytes, (file) => change(file, file.signed)))), 'metadata-malformed');
    });
  }

  it('is refused where a key stands twice, a number is no integer or the text is no JSON', () => {
    const text = new TextDecoder().decode(acme);
    for (const [from, to] of [
      ['"version":1', '"version":1,"version":1'],
      ['"version":1', '"version":1.0'],
      ['{', '['],
    ] as const) {
      const changed = new TextEncoder().encode(text.replace(from, to));
      assert.notDeepEqual(changed, acme);
      assert.equal(codeOf(parseTargetsFile(changed)), 'metadata-malformed');
    }
  });

  it('may hold fields that we do not know, and their bytes are signed too', () => {
    const { targetsSigner } = repository;
    const more = forge(targets, (file) => (file.signed['x-other'] = { deep: ['né', '\u{1f600}'] }));
    assert.equal(countValidSignatures(more, [targetsSigner.publicKey]), 0);
    assert.equal(countValidSignatures(addSignature(more, targetsSigner), [targetsSigner.publicKey]), 1);
  });

  it('counts keys of other algorithms for nothing', () => {
    const other = forge(root, (file) => {
      const keys = file.signed['keys'] as Record<string, object>;
      const roles = file.signed['roles'] as Record<string, { keyids: string[] }>;
      const { keyId } = repository.timestampSigner;
      const key = { ...keys[keyId], keytype: 'ecdsa', scheme: 'ecdsa-sha2-nistp256' };
      delete keys[keyId];
      keys[wireKeyId(key)] = key;
      if (roles['timestamp']) roles['timestamp'].keyids = [wireKeyId(key)];
    });
    const parsed = parseRootFile(other);
    assert.ok(parsed.ok);
    assert.deepEqual(parsed.value.roles.get('timestamp')?.keys, []);
    assert.equal(parsed.value.roles.get('root')?.keys.length, 3);
  });
});

describe('making metadata', () => {
  const [one, two] = [signerNamed('one'), signerNamed('two')];
  const head = { version: 3, expiresAtMs: nowMs + dayMs };

  it('gives what was put in', () => {
    const releases = new Map([
      ['acme/a/1.0.0', entry(1)],
      ['acme/a/1.0.1', { ...entry(2), requires: null }],
    ]);
    const floors = new Map([['a', 2]]);
    const withdrawn = new Map([['a', new Set([1])]]);
    const made = parseTargetsFile(
      makeTargets({ ...head, targets: releases, floors, withdrawn, signers: [one] }),
    );
    assert.ok(made.ok);
    assert.deepEqual(
      { ...made.value },
      { ...head, targets: releases, floors, withdrawn, delegations: [], signatureKeyIds: [one.keyId] },
    );
    const delegations = [{ namespace: 'acme', ...role(2, one, two) }];
    const top = parseTargetsFile(makeTargets({ ...head, delegations, signers: [] }));
    assert.ok(top.ok);
    assert.deepEqual(top.value.delegations, delegations);
  });

  it('adds signatures of a second signer, and renews without doubling', () => {
    const keys = [one.publicKey, two.publicKey];
    const unsigned = makeTargets({ ...head, signers: [] });
    assert.equal(countValidSignatures(unsigned, keys), 0);
    const first = addSignature(unsigned, one);
    assert.equal(countValidSignatures(first, keys), 1);
    assert.deepEqual(addSignature(first, one), first);
    const both = addSignature(first, two);
    assert.equal(countValidSignatures(both, keys), 2);
    assert.equal(countValidSignatures(both, [one.publicKey, one.publicKey]), 1);
    assert.equal(countValidSignatures(both, [signerNamed('three').publicKey]), 0);
    assert.equal(countValidSignatures(new Uint8Array([1, 2]), keys), 0);
    assert.equal(describeFile(both).bytes, both.length);
    assert.deepEqual(
      makeTargets({ ...head, signers: [signerFromSeed(seedOf('one'), 'tweetnacl'), two] }),
      both,
    );
  });

  it('throws for what no reader would accept', () => {
    const roles = repository.roles();
    const broken: [string, () => unknown][] = [
      [
        'more signatures than keys',
        () => makeRoot({ ...head, roles: { ...roles, root: role(2, one) }, signers: [] }),
      ],
      ['a key twice', () => makeRoot({ ...head, roles: { ...roles, root: role(1, one, one) }, signers: [] })],
      ['no threshold', () => makeRoot({ ...head, roles: { ...roles, root: role(0, one) }, signers: [] })],
      [
        'a small-order key',
        () =>
          makeRoot({
            ...head,
            roles: { ...roles, root: { keys: [new Uint8Array(32)], threshold: 1 } },
            signers: [],
          }),
      ],
      ['version zero', () => makeTargets({ ...head, version: 0, signers: [] })],
      [
        'a broken digest',
        () => makeTargets({ ...head, targets: new Map([['a', { ...entry(1), sha256: 'x' }]]), signers: [] }),
      ],
      [
        'a fraction',
        () =>
          makeTargets({ ...head, targets: new Map([['a', { ...entry(1), requires: 0.5 }]]), signers: [] }),
      ],
    ];
    for (const [what, make] of broken) {
      assert.throws(
        make,
        (error) => error instanceof FleetError && ['input-invalid', 'key-invalid'].includes(error.code),
        what,
      );
    }
  });

  it('knows which names may be namespaces', () => {
    for (const name of ['acme', 'a', 'team-9']) assert.ok(isNamespace(name), name);
    for (const name of ['root', 'targets', 'snapshot', 'timestamp', 'mirrors', '', 'A', 'a/b', '../x'])
      assert.ok(!isNamespace(name), name);
  });
});

function seedOf(name: string): Uint8Array {
  const seed = new Uint8Array(32);
  seed.set(new TextEncoder().encode(name));
  return seed;
}
