// Why: attacks with the next documents of a ceremony: what holders would sign and the registry install.
// Trusts: ceremony-ground.ts. Must never: forge two things at once.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type NextDocuments, offlineLives } from '../../shared/trust/ceremony/documents.ts';
import { followDocuments, missingWords } from '../../shared/trust/ceremony/follow.ts';
import type { Standing } from '../../shared/trust/ceremony/standing.ts';
import { changeWords } from '../../shared/trust/ceremony/words.ts';
import type { AttackCase } from './attack-case.ts';
import {
  acmeAfter,
  acmeFile,
  acmeKeys,
  ceremonyRow,
  complete,
  delegations,
  ground,
  make,
  nothing,
  regionRootFile,
  replaceCarol,
  rewritten,
  rootFile,
  signedBy,
  spec,
  targetsFile,
  widen,
} from './ceremony-ground.ts';
import { encode, nowMs } from './hostile-repository.ts';

/** Everything made anew with the same content: what each forged document stands in for. */
const renewed = (standing: Standing): NextDocuments =>
  unwrap(make(standing, [], { renew: true, renewPublishers: new Set(['acme']) }));

const acme = (bytes: Uint8Array): Partial<NextDocuments> => ({ publishers: new Map([['acme', bytes]]) });

type FollowRow = [string, string, ErrorCode, () => Partial<NextDocuments>];
const followRows: FollowRow[] = [
  ['root-torn', 'a next root that is none', 'metadata-malformed', () => ({ root: encode('[]') })],
  [
    'root-of-region',
    'the region’s root in the place of the catalogue’s',
    'metadata-malformed',
    () => ({ root: regionRootFile({ version: 5 }) }),
  ],
  [
    'root-skips',
    'a next root that skips a version, so that devices never walk to it',
    'metadata-version-invalid',
    () => ({ root: rootFile({ version: 6 }) }),
  ],
  [
    'root-shares-key',
    'a next root in which the registry’s online key is a root key',
    'key-duplicate',
    () => ({ root: rootFile({ version: 5, roles: { root: spec(2, 'alice', 'bob', 'director') } }) }),
  ],
  [
    'root-orphans-targets',
    'a next root with another targets key, without targets that it has signed',
    'metadata-signature-invalid',
    () => ({ root: rootFile({ version: 5, roles: { targets: spec(1, 'mallory') } }), targets: null }),
  ],
  [
    'region-root-torn',
    'a next region root that is none',
    'metadata-malformed',
    () => ({ regionRoot: encode('[]') }),
  ],
  [
    'region-root-other',
    'the next root of another region',
    'assignment-other-region',
    () => ({ regionRoot: regionRootFile({ version: 3, region: 'us-east' }) }),
  ],
  [
    'region-root-again',
    'a region root of the version that is in force',
    'metadata-version-invalid',
    () => ({ regionRoot: regionRootFile() }),
  ],
  ['targets-torn', 'next targets that are none', 'metadata-malformed', () => ({ targets: encode('[]') })],
  [
    'targets-wide',
    'next targets in which a publisher may sign for every namespace',
    'metadata-malformed',
    () => ({ targets: rewritten(targetsFile({ version: 10 }), widen) }),
  ],
  [
    'targets-forget',
    'next targets without a namespace: devices would refuse the whole catalogue',
    'metadata-rollback',
    () => ({ targets: targetsFile({ version: 10, delegations: delegations().slice(0, 1) }) }),
  ],
  [
    'publisher-skips',
    'a publisher’s metadata, signed again under a version that does not follow',
    'metadata-version-invalid',
    () => acme(acmeAfter(acmeFile(), { versionFloor: 5 })),
  ],
  [
    'publisher-floor',
    'a publisher’s metadata, signed again, with a floor slipped in',
    'metadata-malformed',
    () => acme(acmeAfter(acmeFile(), { floors: new Map([['echo', 1]]) })),
  ],
  [
    'publisher-nothing-before',
    'metadata for a namespace that has published nothing',
    'metadata-malformed',
    () => ({ publishers: new Map([['beta', acmeAfter(acmeFile())]]) }),
  ],
];

/** Documents of which most stay in force. */
const only = (part: Partial<NextDocuments>): NextDocuments => ({ ...nothing, ...part });
const follow = (standing: Standing, part: Partial<NextDocuments>): Result<unknown> =>
  followDocuments(standing, only(part));
const acmeSignedBy = (threshold: number, ...names: string[]): Partial<NextDocuments> => ({
  targets: targetsFile({ version: 10, delegations: delegations(spec(threshold, ...names)) }),
});

const missing = (standing: Standing, next: NextDocuments): Result<void> => {
  const words = missingWords(unwrap(followDocuments(standing, next)).requirements, standing.holders);
  return words.length === 0 ? ok() : refuse('signatures-missing', words.join('; '));
};

/** What a holder does who means to renew and nothing else. */
const readAsRenewal = (standing: Standing, next: NextDocuments): Result<void> => {
  const words = changeWords(standing, next, unwrap(followDocuments(standing, next)), standing.holders);
  return words.filter((line) => line === '  the same keys, a new date').length === 2
    ? ok()
    : refuse('conflict', words.join('\n'));
};

export const ceremonyFollowAttacks: AttackCase[] = [
  ...followRows.map(([id, what, code, forge]) =>
    ceremonyRow(`next-${id}`, `a bundle with ${what}`, code, () => {
      const standing = ground();
      const honest = renewed(standing);
      return {
        honest: followDocuments(standing, honest),
        forged: followDocuments(standing, { ...honest, ...forge() }),
      };
    }),
  ),
  ceremonyRow(
    'next-namespace-of-nobody',
    'a bundle made for metadata of a namespace that the targets do not name',
    'metadata-rollback',
    () => ({
      honest: follow(ground(), acmeSignedBy(1, 'nora')),
      forged: follow(ground({ publishers: new Map([['ghost', acmeFile()]]) }), acmeSignedBy(1, 'nora')),
    }),
  ),
  ceremonyRow(
    'publisher-silently-unsigned',
    'a bundle that takes a publisher’s key away and does not say that its releases are refused from then on',
    'release-not-signed',
    () => ({
      honest: follow(ground(), { ...acmeSignedBy(1, 'olga'), leftUnsigned: new Set(['acme']) }),
      forged: follow(ground(), acmeSignedBy(1, 'olga')),
    }),
  ),
  ceremonyRow(
    'publisher-threshold-raised',
    'a bundle that asks for two publisher keys where one has signed what is in force',
    'release-not-signed',
    () => ({
      honest: follow(ground(), acmeSignedBy(1, 'nora', 'olga')),
      forged: follow(ground(), acmeSignedBy(2, 'nora', 'olga')),
    }),
  ),
  ceremonyRow(
    'publisher-torn',
    'a plan in which a publisher’s metadata in force is none',
    'metadata-malformed',
    () => ({
      honest: follow(ground(), acme(acmeAfter(acmeFile()))),
      forged: follow(ground({ publishers: new Map([['acme', encode('[]')]]) }), acme(acmeAfter(acmeFile()))),
    }),
  ),
  ceremonyRow(
    'version-given-out',
    'a bundle with a version of a publisher’s metadata that was given out before a restore',
    'metadata-version-invalid',
    () => {
      const standing = ground({ versionFloors: new Map([['acme', 6]]) });
      const next = unwrap(make(standing, [acmeKeys(1, 'olga')]));
      return {
        honest: complete(standing, signedBy(standing, next, 'tina', 'olga')),
        forged: followDocuments(standing, { ...next, ...acme(acmeAfter(acmeFile())) }),
      };
    },
  ),
  ceremonyRow(
    'versions-used-up',
    'a registry that says a restore lost so many versions that a publisher’s last ones are used up',
    'metadata-version-invalid',
    () => {
      const renew = (versionFloor: number): Result<unknown> =>
        follow(
          ground({ versionFloors: new Map([['acme', versionFloor]]) }),
          acme(acmeAfter(acmeFile(), { versionFloor })),
        );
      return { honest: renew(1_001), forged: renew(1_002) };
    },
  ),
  ...(
    [
      ['root', (next) => ({ root: next.root })],
      ['region-root', (next) => ({ regionRoot: next.regionRoot })],
    ] as [string, (next: NextDocuments) => Partial<NextDocuments>][]
  ).map(([id, part]) =>
    ceremonyRow(
      `swapped-${id}`,
      `an unsigned ${id} is put in after the signatures were counted`,
      'metadata-signature-invalid',
      () => {
        const standing = ground();
        const unsigned = unwrap(make(standing, [replaceCarol]));
        const signed = signedBy(standing, unsigned, 'alice', 'bob');
        return {
          honest: complete(standing, signed),
          forged: complete(standing, { ...signed, ...part(unsigned) }, signed),
        };
      },
    ),
  ),
  ceremonyRow(
    'install-unsigned',
    'a bundle with targets that their holder has not signed is installed',
    'metadata-signature-invalid',
    () => {
      const standing = ground();
      const next = unwrap(make(standing, [acmeKeys(1, 'nora', 'olga')]));
      return {
        honest: complete(standing, signedBy(standing, next, 'tina')),
        forged: complete(standing, next),
      };
    },
  ),
  ceremonyRow(
    'install-expired',
    'a signed bundle is kept back until its documents have expired',
    'metadata-expired',
    () => {
      const standing = ground();
      const next = signedBy(standing, unwrap(make(standing, [replaceCarol])), 'alice', 'bob');
      return {
        honest: complete(standing, next),
        forged: complete(standing, next, next, nowMs + offlineLives.rootMs),
      };
    },
  ),
  ceremonyRow(
    'install-too-few',
    'a bundle with the signature of one root holder and the new one, who were not enough before',
    'signatures-missing',
    () => {
      const standing = ground();
      const next = unwrap(make(standing, [replaceCarol]));
      return {
        honest: missing(standing, signedBy(standing, next, 'alice', 'bob')),
        forged: missing(standing, signedBy(standing, next, 'alice', 'dave')),
      };
    },
  ),
  ceremonyRow(
    'words-of-renewal',
    'a bundle with another root key, shown to a holder who means to renew',
    'conflict',
    () => {
      const standing = ground();
      return {
        honest: readAsRenewal(standing, renewed(standing)),
        forged: readAsRenewal(standing, unwrap(make(standing, [replaceCarol], { renew: true }))),
      };
    },
  ),
];
