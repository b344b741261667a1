// Why: attacks on the ground of a ceremony, on the keys that are asked for, and on the documents made from them.
// Trusts: ceremony-ground.ts. Must never: let a forged ground differ from its honest twin in two things.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { applyChanges, type Change, findKey } from '../../shared/trust/ceremony/change.ts';
import type { MakeOptions } from '../../shared/trust/ceremony/documents.ts';
import { readStanding, type StandingDocuments } from '../../shared/trust/ceremony/standing.ts';
import type { AttackCase } from './attack-case.ts';
import {
  acmeKeys,
  ceremonyRow,
  complete,
  delegations,
  documents,
  ground,
  held,
  keyIdOf,
  make,
  regionRootFile,
  replaceCarol,
  rewritten,
  rootFile,
  signedBy,
  spec,
  targetsFile,
  widen,
} from './ceremony-ground.ts';
import { encode } from './hostile-repository.ts';

type GroundRow = [string, string, ErrorCode, () => Partial<StandingDocuments>];
const groundRows: GroundRow[] = [
  ['root-torn', 'a root that is none', 'metadata-malformed', () => ({ root: encode('[]') })],
  [
    'root-unsigned',
    'a root with one of the two signatures it needs',
    'metadata-signature-invalid',
    () => ({ root: rootFile({ signers: ['alice'] }) }),
  ],
  [
    'region-root-unsigned',
    'a region’s root that somebody else signed',
    'metadata-signature-invalid',
    () => ({ regionRoot: regionRootFile({ signers: ['mallory'] }) }),
  ],
  ['targets-torn', 'targets that are none', 'metadata-malformed', () => ({ targets: encode('[]') })],
  [
    'targets-unsigned',
    'targets that somebody else signed',
    'metadata-signature-invalid',
    () => ({ targets: targetsFile({ signers: ['mallory'] }) }),
  ],
  [
    'targets-wide',
    'targets in which a publisher may sign for every namespace',
    'metadata-malformed',
    () => ({ targets: rewritten(targetsFile(), widen, 'tina') }),
  ],
];

const smallOrder = new Uint8Array(32);
smallOrder[0] = 1;

type ChangeRow = [string, string, ErrorCode, Change];
const changeRows: ChangeRow[] = [
  [
    'threshold-nobody',
    'for a root that nobody need sign',
    'threshold-unreachable',
    { kind: 'threshold', role: 'root', threshold: 0 },
  ],
  [
    'threshold-beyond',
    'for more signatures than there are keys',
    'threshold-unreachable',
    { kind: 'threshold', role: 'root', threshold: 4 },
  ],
  [
    'small-order-key',
    'for a root key of small order',
    'key-invalid',
    { kind: 'add', role: 'root', key: { publicKey: smallOrder, holder: null } },
  ],
  [
    'key-twice',
    'for one root key in two places',
    'key-duplicate',
    { kind: 'replace', keyId: keyIdOf('carol'), by: held('bob') },
  ],
  [
    'online-key-offline',
    'for an online key in the root',
    'key-duplicate',
    { kind: 'add', role: 'root', key: held('director') },
  ],
  [
    'two-directors',
    'for a director that must sign twice',
    'input-invalid',
    { kind: 'set', role: 'director', keys: [held('dave'), held('olga')], threshold: 2 },
  ],
  [
    'removes-stranger',
    'to remove a key that is in no role, and changes nothing',
    'key-unknown',
    { kind: 'remove', keyId: keyIdOf('mallory') },
  ],
  [
    'adds-to-nobody',
    'for a key in a role that is not there',
    'key-unknown',
    { kind: 'add', role: 'publisher:ghost', key: held('mallory') },
  ],
];

const findRows: [string, string, ErrorCode, string][] = [
  ['key-unknown', 'a revocation names a key that is in no role', 'key-unknown', 'mallory'],
  ['key-ambiguous', 'a revocation names a holder of two keys', 'input-invalid', 'alice'],
];

type MakeRow = [string, string, ErrorCode, Partial<StandingDocuments>, Change[], Partial<MakeOptions>];
const makeRows: MakeRow[] = [
  ['nothing', 'a bundle in which nothing would change', 'input-invalid', {}, [], {}],
  [
    'renews-nobody',
    'a renewal for a publisher that has published nothing',
    'input-invalid',
    {},
    [],
    { renew: true, renewPublishers: new Set(['beta']) },
  ],
  [
    'publisher-torn',
    'new keys for a publisher whose metadata in the plan is none',
    'metadata-malformed',
    { publishers: new Map([['acme', encode('[]')]]) },
    [acmeKeys(1, 'olga')],
    {},
  ],
];

export const ceremonyKeyAttacks: AttackCase[] = [
  ...groundRows.map(([id, what, code, change]) =>
    ceremonyRow(`ground-${id}`, `a plan with ${what}`, code, () => ({
      honest: readStanding(documents()),
      forged: readStanding(documents(change())),
    })),
  ),
  ...changeRows.map(([id, what, code, change]) =>
    ceremonyRow(id, `a ceremony asks ${what}`, code, () => ({
      honest: applyChanges(ground(), [replaceCarol]),
      forged: applyChanges(ground(), [change]),
    })),
  ),
  ...findRows.map(([id, attack, code, text]) =>
    ceremonyRow(id, attack, code, () => {
      const standing = ground();
      const holders = new Map([...standing.holders, [keyIdOf('bob'), 'alice']]);
      return {
        honest: findKey({ ...standing, holders }, 'carol'),
        forged: findKey({ ...standing, holders }, text),
      };
    }),
  ),
  ...makeRows.map(([id, attack, code, change, changes, options]) =>
    ceremonyRow(`makes-${id}`, attack, code, () => ({
      honest: make(ground(), [replaceCarol]),
      forged: make(ground(change), changes, options),
    })),
  ),
  ceremonyRow(
    'publisher-holds-up-root',
    'a publisher who lost its key holds up the exchange of a stolen root key; one holder and the new key do not',
    'metadata-signature-invalid',
    () => {
      const standing = ground({ targets: targetsFile({ delegations: delegations(spec(1, 'olga')) }) });
      const next = unwrap(make(standing, [replaceCarol]));
      return {
        honest: complete(standing, signedBy(standing, next, 'alice', 'bob')),
        forged: complete(standing, signedBy(standing, next, 'alice', 'dave')),
      };
    },
  ),
  ceremonyRow(
    'publisher-key-added-by-itself',
    'a second publisher key, added without the targets key',
    'metadata-signature-invalid',
    () => {
      const standing = ground();
      const next = unwrap(make(standing, [acmeKeys(1, 'nora', 'olga')]));
      return {
        honest: complete(standing, signedBy(standing, next, 'tina')),
        forged: complete(standing, signedBy(standing, next, 'nora', 'olga')),
      };
    },
  ),
];
