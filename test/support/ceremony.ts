// Why: ceremonies in the test's own process: holders with keys, bundles made from a plan, signatures added.
// Trusts: shared/trust/ceremony, as the CLI does. Must never: judge; the registry under test does.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import {
  bundleDocuments,
  bundleNext,
  bundleOf,
  planDocuments,
  withNext,
} from '../../shared/trust/ceremony/bundle.ts';
import { applyChanges, type Change, type HeldKey } from '../../shared/trust/ceremony/change.ts';
import { nextDocuments } from '../../shared/trust/ceremony/documents.ts';
import { documentsFor, followDocuments, signDocuments } from '../../shared/trust/ceremony/follow.ts';
import { readStanding, type Standing } from '../../shared/trust/ceremony/standing.ts';
import { type KeyBundle, type KeyPlan, onlineRoles } from '../../shared/wire/key-plan.ts';

export interface Holder {
  name: string;
  signer: Signer;
  key: HeldKey;
}

export function holder(name: string): Holder {
  const seed = new Uint8Array(Buffer.from(sha256Hex(Buffer.from(`holder ${name}`)), 'hex'));
  const signer = signerFromSeed(seed, 'tweetnacl');
  return { name, signer, key: { publicKey: signer.publicKey, holder: name } };
}

export const standingOf = (plan: KeyPlan): Standing => unwrap(readStanding(planDocuments(plan)));

/** The bundle of these changes, unsigned. */
export function bundleFrom(
  plan: KeyPlan,
  changes: readonly Change[],
  options: { nowMs: number; renew?: boolean; leaveUnsigned?: string[]; renewPublishers?: string[] },
): KeyBundle {
  const standing = standingOf(plan);
  const changed = unwrap(applyChanges(standing, changes));
  const next = unwrap(
    nextDocuments(standing, changed, {
      nowMs: options.nowMs,
      renew: options.renew ?? false,
      renewPublishers: new Set(options.renewPublishers ?? []),
      leaveUnsigned: new Set(options.leaveUnsigned ?? []),
    }),
  );
  return bundleOf({ standing, next, holders: changed.holders, nowMs: options.nowMs });
}

/** The bundle with the signatures of these holders on whatever asks for them. */
export function signedBy(bundle: KeyBundle, ...holders: readonly Holder[]): KeyBundle {
  const standing = unwrap(readStanding(bundleDocuments(bundle)));
  let next = bundleNext(bundle);
  for (const { signer } of holders) {
    const followed = unwrap(followDocuments(standing, next));
    next = signDocuments(next, documentsFor(followed, signer.publicKey), signer);
  }
  return withNext(bundle, next);
}

/** The changes of a first ceremony. */
export function firstChanges(roots: readonly Holder[], targets: Holder, threshold = 2): Change[] {
  return [
    { kind: 'set', role: 'root', keys: roots.map(({ key }) => key), threshold },
    { kind: 'set', role: 'region-root', keys: roots.map(({ key }) => key), threshold },
    { kind: 'set', role: 'targets', keys: [targets.key], threshold: 1 },
  ];
}

/** The changes that put the plan's new online keys in force. */
export function onlineChanges({ newOnline }: KeyPlan): Change[] {
  if (newOnline === null) throw new Error('the plan has no new online keys');
  return onlineRoles.map((role) => ({
    kind: 'set',
    role,
    keys: [{ publicKey: new Uint8Array(Buffer.from(newOnline[role], 'hex')), holder: null }],
    threshold: 1,
  }));
}
