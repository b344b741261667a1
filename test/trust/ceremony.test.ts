// Why: what may follow what when keys change, judged alone: the same judgement serves holders and the registry.
// Trusts: shared/trust/tuf for reading. Must never: need a registry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { applyChanges, type Change, findKey } from '../../shared/trust/ceremony/change.ts';
import { type NextDocuments, nextDocuments, offlineLives } from '../../shared/trust/ceremony/documents.ts';
import {
  checkComplete,
  documentsFor,
  followDocuments,
  missingWords,
  signDocuments,
} from '../../shared/trust/ceremony/follow.ts';
import { readStanding, type Standing } from '../../shared/trust/ceremony/standing.ts';
import { changeWords } from '../../shared/trust/ceremony/words.ts';
import { makeRegionRoot } from '../../shared/trust/region.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { type Delegation, makeRoot, makeTargets, type RoleSpec } from '../../shared/trust/tuf/repository.ts';
import { type Holder, holder } from '../support/ceremony.ts';

const dayMs = 86_400_000;
const nowMs = Date.UTC(2026, 0, 1);
const [alice, bob, carol, dave, tina, nora, olga] = [
  'alice',
  'bob',
  'carol',
  'dave',
  'tina',
  'nora',
  'olga',
].map(holder) as [Holder, Holder, Holder, Holder, Holder, Holder, Holder];
const online = Object.fromEntries(
  ['snapshot', 'timestamp', 'director', 'time', 'ack', 'command'].map((name) => [
    name,
    holder(`online ${name}`),
  ]),
) as Record<'snapshot' | 'timestamp' | 'director' | 'time' | 'ack' | 'command', Holder>;

const spec = (threshold: number, ...holders: Holder[]): RoleSpec => ({
  keys: holders.map(({ signer }) => signer.publicKey),
  threshold,
});
const release = {
  release: { namespace: 'acme', name: 'echo', version: '1.0.0' },
  entry: { sha256: 'ab'.repeat(32), bytes: 5, counter: 1, requires: null },
};
const published = unwrap(
  nextPublisherTargets({
    namespace: 'acme',
    current: null,
    add: [release],
    expiresAtMs: nowMs + 300 * dayMs,
    signers: [nora.signer],
  }),
);

function standing(delegations: Delegation[] = [{ namespace: 'acme', ...spec(1, nora) }]): Standing {
  const signers = [alice.signer, bob.signer];
  return unwrap(
    readStanding({
      root: makeRoot({
        version: 4,
        expiresAtMs: nowMs + dayMs,
        roles: {
          root: spec(2, alice, bob, carol),
          targets: spec(1, tina),
          snapshot: spec(1, online.snapshot),
          timestamp: spec(1, online.timestamp),
        },
        holders: new Map([alice, bob, carol, tina].map(({ name, signer }) => [signer.keyId, name])),
        signers,
      }),
      regionRoot: makeRegionRoot({
        region: 'eu-west',
        version: 2,
        expiresAtMs: nowMs + dayMs,
        roles: {
          root: spec(2, alice, bob, carol),
          director: spec(1, online.director),
          time: spec(1, online.time),
          ack: spec(1, online.ack),
          command: spec(1, online.command),
        },
        signers,
      }),
      targets: makeTargets({ version: 9, expiresAtMs: nowMs + dayMs, delegations, signers: [tina.signer] }),
      publishers: new Map([['acme', published]]),
    }),
  );
}

const code = (result: Result<unknown>): string => (result.ok ? 'accepted' : result.refusal.code);
const options = { nowMs, renew: false, renewPublishers: new Set<string>(), leaveUnsigned: new Set<string>() };

function made(ground: Standing, changes: Change[], more: Partial<typeof options> = {}): NextDocuments {
  const changed = unwrap(applyChanges(ground, changes));
  return unwrap(nextDocuments(ground, changed, { ...options, ...more }));
}

function signedWith(ground: Standing, next: NextDocuments, ...signers: Signer[]): NextDocuments {
  return signers.reduce((documents, signer) => {
    const followed = unwrap(followDocuments(ground, documents));
    return signDocuments(documents, documentsFor(followed, signer.publicKey), signer);
  }, next);
}

const complete = (ground: Standing, next: NextDocuments): Result<void> =>
  checkComplete(ground, next, unwrap(followDocuments(ground, next)), nowMs);

test('what cannot work is refused with its reason', () => {
  const ground = standing();
  const smallOrder = new Uint8Array(32);
  smallOrder[0] = 1;
  const cases: [string, Change[], string][] = [
    ['too few are left', [{ kind: 'remove', keyId: tina.signer.keyId }], 'threshold-unreachable'],
    [
      'a threshold above the keys',
      [{ kind: 'threshold', role: 'root', threshold: 4 }],
      'threshold-unreachable',
    ],
    ['a threshold of nothing', [{ kind: 'threshold', role: 'root', threshold: 0 }], 'threshold-unreachable'],
    ['a key twice', [{ kind: 'add', role: 'root', key: alice.key }], 'key-duplicate'],
    [
      'replaced by one that is there',
      [{ kind: 'replace', keyId: carol.signer.keyId, by: bob.key }],
      'key-duplicate',
    ],
    ['an online key offline', [{ kind: 'add', role: 'root', key: online.director.key }], 'key-duplicate'],
    [
      'a small-order key',
      [{ kind: 'add', role: 'root', key: { publicKey: smallOrder, holder: null } }],
      'key-invalid',
    ],
    ['a key that is nowhere', [{ kind: 'remove', keyId: dave.signer.keyId }], 'key-unknown'],
    ['a role that is nowhere', [{ kind: 'add', role: 'publisher:nobody', key: dave.key }], 'key-unknown'],
    [
      'two directors must sign',
      [{ kind: 'set', role: 'director', keys: [dave.key, olga.key], threshold: 2 }],
      'input-invalid',
    ],
  ];
  for (const [what, changes, expected] of cases)
    assert.equal(code(applyChanges(ground, changes)), expected, what);
  const same = unwrap(applyChanges(ground, []));
  assert.equal(code(nextDocuments(ground, same, options)), 'input-invalid');
});

test('a key is named by id, by eight digits of it, by its holder; what fits two is refused', () => {
  const ground = standing();
  assert.equal(unwrap(findKey(ground, carol.signer.keyId)), carol.signer.keyId);
  assert.equal(unwrap(findKey(ground, carol.signer.keyId.slice(0, 8))), carol.signer.keyId);
  assert.equal(unwrap(findKey(ground, 'carol')), carol.signer.keyId);
  assert.equal(code(findKey(ground, carol.signer.keyId.slice(0, 7))), 'key-unknown');
  assert.equal(code(findKey(ground, 'dave')), 'key-unknown');
  const twice = { ...ground, holders: new Map([...ground.holders, [bob.signer.keyId, 'carol']]) };
  assert.equal(code(findKey(twice, 'carol')), 'input-invalid');
});

test('a lost root key is replaced by two who are left; one, or the new key with one, is not enough', () => {
  const ground = standing();
  const next = made(ground, [{ kind: 'replace', keyId: carol.signer.keyId, by: dave.key }]);
  assert.equal(next.targets, null, 'targets need not be signed for that');
  assert.equal(next.publishers.size, 0);
  assert.equal(code(complete(ground, signedWith(ground, next, alice.signer))), 'metadata-signature-invalid');
  // By its own keys it has two, by the keys before only one.
  assert.equal(
    code(complete(ground, signedWith(ground, next, alice.signer, dave.signer))),
    'metadata-signature-invalid',
  );
  const holders = new Map([...ground.holders, [dave.signer.keyId, 'dave']]);
  const followed = unwrap(followDocuments(ground, signedWith(ground, next, alice.signer, dave.signer)));
  assert.deepEqual(
    missingWords(followed.requirements, holders).map((line) => line.replace(/ \([0-9a-f]{16}\)/g, '')),
    [
      'root, by the keys before: 1 of bob, carol must still sign',
      'region-root, by the keys before: 1 of bob, carol must still sign',
    ],
  );
  const both = signedWith(ground, next, alice.signer, bob.signer);
  assert.equal(code(complete(ground, both)), 'accepted');
  assert.equal(
    code(checkComplete(ground, both, unwrap(followDocuments(ground, both)), nowMs + offlineLives.rootMs)),
    'metadata-expired',
  );
});

test('a revoked publisher key takes its signatures along: what it signed is signed again, unchanged', () => {
  const ground = standing();
  const change: Change[] = [{ kind: 'replace', keyId: nora.signer.keyId, by: olga.key }];
  const next = made(ground, change);
  assert.deepEqual([...next.publishers.keys()], ['acme']);
  assert.notEqual(next.targets, null);
  assert.equal(next.root, null);
  assert.equal(code(complete(ground, signedWith(ground, next, tina.signer))), 'metadata-signature-invalid');
  assert.equal(
    code(complete(ground, signedWith(ground, next, tina.signer, nora.signer))),
    'metadata-signature-invalid',
  );
  assert.equal(code(complete(ground, signedWith(ground, next, tina.signer, olga.signer))), 'accepted');

  // Without the new signature only where the bundle says so in as many words.
  const silent = { ...next, publishers: new Map<string, Uint8Array>() };
  assert.equal(code(followDocuments(ground, silent)), 'release-not-signed');
  const said = made(ground, change, { leaveUnsigned: new Set(['acme']) });
  assert.equal(said.publishers.size, 0);
  assert.equal(code(complete(ground, signedWith(ground, said, tina.signer))), 'accepted');
});

test('a publisher who was left unsigned holds up nobody else, and signs again when it can', () => {
  const ground = standing([{ namespace: 'acme', ...spec(1, olga) }]);
  const rotated = made(ground, [{ kind: 'replace', keyId: carol.signer.keyId, by: dave.key }]);
  assert.equal(rotated.publishers.size, 0);
  assert.equal(code(complete(ground, signedWith(ground, rotated, alice.signer, bob.signer))), 'accepted');
  const again = made(ground, [], { renewPublishers: new Set(['acme']) });
  assert.deepEqual([again.root, again.regionRoot, again.targets], [null, null, null]);
  assert.equal(code(complete(ground, signedWith(ground, again, nora.signer))), 'metadata-signature-invalid');
  assert.equal(code(complete(ground, signedWith(ground, again, olga.signer))), 'accepted');
});

test('documents that do more than change keys and dates are refused', () => {
  const ground = standing();
  const renewed = made(ground, [], { renew: true, renewPublishers: new Set(['acme']) });
  assert.equal(code(followDocuments(ground, renewed)), 'accepted');
  const targets = (version: number, delegations: Delegation[]): Uint8Array =>
    makeTargets({ version, expiresAtMs: nowMs + 90 * dayMs, delegations, signers: [] });
  const acme = { namespace: 'acme', ...spec(1, nora) };
  const region = (name: string, version: number): Uint8Array =>
    makeRegionRoot({
      region: name,
      version,
      expiresAtMs: nowMs + dayMs,
      roles: {
        root: spec(2, alice, bob, carol),
        director: spec(1, online.director),
        time: spec(1, online.time),
        ack: spec(1, online.ack),
        command: spec(1, online.command),
      },
      signers: [],
    });
  const again = (floors: [string, number][]): Uint8Array =>
    unwrap(
      nextPublisherTargets({
        namespace: 'acme',
        current: published,
        add: [],
        floors: new Map(floors),
        expiresAtMs: nowMs + 300 * dayMs,
        signers: [],
      }),
    );
  const cases: [string, Partial<NextDocuments>, string][] = [
    ['targets skip a version', { targets: targets(11, [acme]) }, 'metadata-version-invalid'],
    ['targets forget a namespace', { targets: targets(10, []) }, 'metadata-rollback'],
    ['another region', { regionRoot: region('us-east', 3) }, 'assignment-other-region'],
    ['a region root skips a version', { regionRoot: region('eu-west', 4) }, 'metadata-version-invalid'],
    ['the catalogue’s root as the region’s', { regionRoot: renewed.root }, 'metadata-malformed'],
    ['the region’s root as the catalogue’s', { root: renewed.regionRoot }, 'metadata-malformed'],
    [
      'a floor comes with a signature',
      { publishers: new Map([['acme', again([['echo', 1]])]]) },
      'metadata-malformed',
    ],
    [
      'a release comes with a signature',
      {
        publishers: new Map([
          [
            'acme',
            unwrap(
              nextPublisherTargets({
                namespace: 'acme',
                current: published,
                add: [
                  {
                    release: { ...release.release, version: '2.0.0' },
                    entry: { ...release.entry, counter: 2 },
                  },
                ],
                expiresAtMs: nowMs + 300 * dayMs,
                signers: [],
              }),
            ),
          ],
        ]),
      },
      'metadata-malformed',
    ],
    [
      'a namespace that published nothing',
      { publishers: new Map([['other', published]]) },
      'metadata-malformed',
    ],
    ['no metadata at all', { targets: new Uint8Array([1, 2, 3]) }, 'metadata-malformed'],
  ];
  for (const [what, change, expected] of cases) {
    const next: NextDocuments = {
      root: null,
      regionRoot: null,
      targets: null,
      publishers: new Map(),
      leftUnsigned: new Set(),
      ...change,
    };
    assert.equal(code(followDocuments(ground, next)), expected, what);
  }
});

test('the words name what changes, key by key', () => {
  const ground = standing();
  const next = made(ground, [
    { kind: 'replace', keyId: carol.signer.keyId, by: dave.key },
    { kind: 'set', role: 'publisher:acme', keys: [nora.key, olga.key], threshold: 2 },
  ]);
  const holders = new Map([
    ...ground.holders,
    ...[dave, nora, olga].map((one) => [one.signer.keyId, one.name] as const),
  ]);
  const words = changeWords(ground, next, unwrap(followDocuments(ground, next)), holders)
    .slice(3)
    .map((line) => line.replace(/ \([0-9a-f]{16}\)/g, ''));
  assert.deepEqual(words, [
    'root 5, good until 2027-01-01:',
    '  root: 2 of 3 must sign',
    '    - carol',
    '    + dave',
    'region root 3, good until 2027-01-01:',
    '  region-root: 2 of 3 must sign',
    '    - carol',
    '    + dave',
    'targets 10, good until 2026-06-30:',
    '  publisher:acme: 2 of 2 must sign, 1 of 1 before',
    '    + olga',
    'what acme has published, version 2, good until 2027-01-01:',
    '  the same 1 release(s), signed again',
  ]);
});

test('a holder’s name that could move a cursor is not shown', () => {
  const ground = standing();
  const root = makeRoot({
    version: 4,
    expiresAtMs: nowMs + dayMs,
    roles: {
      root: spec(1, alice, bob),
      targets: spec(1, tina),
      snapshot: spec(1, online.snapshot),
      timestamp: spec(1, online.timestamp),
    },
    holders: new Map([
      [alice.signer.keyId, 'alice'],
      [bob.signer.keyId, '\u001b[1Aalice'],
    ]),
    signers: [alice.signer],
  });
  const { holders } = unwrap(
    readStanding({
      root,
      regionRoot: ground.regionRoot.bytes,
      targets: ground.targets.bytes,
      publishers: new Map(),
    }),
  );
  assert.deepEqual([...holders.values()], ['alice']);
});

test('documents in force that are not signed are no ground for anything', () => {
  const ground = standing();
  const forged = makeTargets({
    version: 9,
    expiresAtMs: nowMs + dayMs,
    delegations: [],
    signers: [olga.signer],
  });
  const documents = { root: ground.root.bytes, regionRoot: ground.regionRoot.bytes, publishers: new Map() };
  assert.equal(code(readStanding({ ...documents, targets: forged })), 'metadata-signature-invalid');
});
