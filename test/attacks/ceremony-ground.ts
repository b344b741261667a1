// Why: a region with offline keys, and what its next documents may be: the ground of attacks on key ceremonies.
// Trusts: shared/trust for making documents. Must never: be made when the module loads; a mutant may not let it.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { applyChanges, type Change, type HeldKey } from '../../shared/trust/ceremony/change.ts';
import {
  type MakeOptions,
  type NextDocuments,
  nextDocuments,
} from '../../shared/trust/ceremony/documents.ts';
import {
  checkComplete,
  documentsFor,
  followDocuments,
  signDocuments,
} from '../../shared/trust/ceremony/follow.ts';
import { readStanding, type Standing, type StandingDocuments } from '../../shared/trust/ceremony/standing.ts';
import { makeRegionRoot, type RegionRole } from '../../shared/trust/region.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import {
  type CatalogueRole,
  type Delegation,
  makeRoot,
  makeTargets,
  type RoleSpec,
} from '../../shared/trust/tuf/repository.ts';
import type { AttackCase } from './attack-case.ts';
import { type Attempt, directRow } from './direct-rows.ts';
import { dayMs, decode, encode, type Json, nowMs, signatureOf, signerNamed } from './hostile-repository.ts';

export const keyIdOf = (name: string): string => signerNamed(name).keyId;
export const held = (name: string): HeldKey => ({ publicKey: signerNamed(name).publicKey, holder: name });
export const spec = (threshold: number, ...names: string[]): RoleSpec => ({
  keys: names.map((name) => signerNamed(name).publicKey),
  threshold,
});
const signersOf = (names: readonly string[]): Signer[] => names.map(signerNamed);
const soonMs = nowMs + dayMs;

/** A row on what holders and the registry decide about a ceremony. */
export const ceremonyRow = (
  id: string,
  attack: string,
  code: ErrorCode,
  attempt: () => Attempt | Promise<Attempt>,
): AttackCase => directRow('ceremony', `ceremony-${id}`, attack, code, attempt);

export function rootFile(
  change: { version?: number; roles?: Partial<Record<CatalogueRole, RoleSpec>>; signers?: string[] } = {},
): Uint8Array {
  return makeRoot({
    version: change.version ?? 4,
    expiresAtMs: soonMs,
    roles: {
      root: spec(2, 'alice', 'bob', 'carol'),
      targets: spec(1, 'tina'),
      snapshot: spec(1, 'snapshot'),
      timestamp: spec(1, 'timestamp'),
      ...change.roles,
    },
    holders: new Map(['alice', 'bob', 'carol'].map((name) => [keyIdOf(name), name])),
    signers: signersOf(change.signers ?? ['alice', 'bob']),
  });
}

export function regionRootFile(
  change: {
    version?: number;
    region?: string;
    roles?: Partial<Record<RegionRole, RoleSpec>>;
    signers?: string[];
  } = {},
): Uint8Array {
  return makeRegionRoot({
    region: change.region ?? 'eu-west',
    version: change.version ?? 2,
    expiresAtMs: soonMs,
    roles: {
      root: spec(2, 'alice', 'bob', 'carol'),
      director: spec(1, 'director'),
      time: spec(1, 'time'),
      ack: spec(1, 'ack'),
      command: spec(1, 'command'),
      ...change.roles,
    },
    signers: signersOf(change.signers ?? ['alice', 'bob']),
  });
}

/** The roles of two namespaces: acme has published, beta has not. */
export const delegations = (acme: RoleSpec = spec(1, 'nora')): Delegation[] => [
  { namespace: 'acme', ...acme },
  { namespace: 'beta', ...spec(1, 'bert') },
];

export function targetsFile(
  change: { version?: number; delegations?: Delegation[]; signers?: string[] } = {},
): Uint8Array {
  return makeTargets({
    version: change.version ?? 9,
    expiresAtMs: soonMs,
    delegations: change.delegations ?? delegations(),
    signers: signersOf(change.signers ?? ['tina']),
  });
}

type PublisherParts = Parameters<typeof nextPublisherTargets>[0];

/** The next file of acme after `current`, unsigned unless `more` says otherwise. */
export function acmeAfter(current: Uint8Array | null, more: Partial<PublisherParts> = {}): Uint8Array {
  return unwrap(
    nextPublisherTargets({
      namespace: 'acme',
      current,
      add: [],
      expiresAtMs: nowMs + 300 * dayMs,
      signers: [],
      ...more,
    }),
  );
}

/** What acme has published, signed by nora. */
export function acmeFile(): Uint8Array {
  const release = { namespace: 'acme', name: 'echo', version: '1.0.0' };
  const entry = { sha256: 'ab'.repeat(32), bytes: 5, counter: 1, requires: null };
  return acmeAfter(null, { add: [{ release, entry }], signers: [signerNamed('nora')] });
}

/** A file whose signed part was changed; signed again by these, by nobody where absent. */
export function rewritten(
  bytes: Uint8Array,
  change: (signed: Json) => void,
  ...signers: string[]
): Uint8Array {
  const { signed } = JSON.parse(decode(bytes)) as { signed: Json };
  change(signed);
  const signatures = signersOf(signers).map((signer) => signatureOf(signer, signed));
  return encode(JSON.stringify({ signatures, signed }));
}

/** Lets the first namespace's keys sign for every path. */
export const widen = (signed: Json): void => {
  const { roles } = signed['delegations'] as { roles: Json[] };
  Object.assign(roles[0] ?? {}, { paths: ['*'] });
};

export const documents = (change: Partial<StandingDocuments> = {}): StandingDocuments => ({
  root: rootFile(),
  regionRoot: regionRootFile(),
  targets: targetsFile(),
  publishers: new Map([['acme', acmeFile()]]),
  ...change,
});

export const ground = (change: Partial<StandingDocuments> = {}): Standing =>
  unwrap(readStanding(documents(change)));

export const makeOptions: MakeOptions = {
  nowMs,
  renew: false,
  renewPublishers: new Set(),
  leaveUnsigned: new Set(),
};

/** What follows from these changes, unsigned, or why nothing may. */
export function make(
  standing: Standing,
  changes: readonly Change[],
  options: Partial<MakeOptions> = {},
): Result<NextDocuments> {
  return nextDocuments(standing, unwrap(applyChanges(standing, changes)), { ...makeOptions, ...options });
}

export const nothing: NextDocuments = {
  root: null,
  regionRoot: null,
  targets: null,
  publishers: new Map(),
  leftUnsigned: new Set(),
};

/** These documents, signed by these holders where they are asked to. */
export function signedBy(standing: Standing, next: NextDocuments, ...names: string[]): NextDocuments {
  return signersOf(names).reduce((signed, signer) => {
    const followed = unwrap(followDocuments(standing, signed));
    return signDocuments(signed, documentsFor(followed, signer.publicKey), signer);
  }, next);
}

/** The last word of the registry on documents that were judged as `judged`; on themselves where absent. */
export function complete(
  standing: Standing,
  next: NextDocuments,
  judged: NextDocuments = next,
  atMs = nowMs,
): Result<void> {
  return checkComplete(standing, next, unwrap(followDocuments(standing, judged)), atMs);
}

/** The change that gives acme these keys. */
export const acmeKeys = (threshold: number, ...names: string[]): Change => ({
  kind: 'set',
  role: 'publisher:acme',
  keys: names.map(held),
  threshold,
});

export const replaceCarol: Change = {
  kind: 'replace',
  keyId: keyIdOf('carol'),
  by: held('dave'),
};
