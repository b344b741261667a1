// Why: making, showing and signing bundles without a network: what the offline half of `lepton keys` shares.
// Trusts: shared/trust/ceremony for every judgement. Must never: write a bundle that cannot work.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import { tufKeyId } from '../../shared/crypto/ed25519.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  bundleDocuments,
  bundleHolders,
  bundleNext,
  bundleOf,
  heldByRegistry,
  planDocuments,
  withNext,
} from '../../shared/trust/ceremony/bundle.ts';
import { applyChanges, type Change, findKey } from '../../shared/trust/ceremony/change.ts';
import { nextDocuments } from '../../shared/trust/ceremony/documents.ts';
import {
  documentsFor,
  type Followed,
  followDocuments,
  missingIn,
  missingWords,
  type Requirement,
  signDocuments,
} from '../../shared/trust/ceremony/follow.ts';
import { type RoleName, readStanding, type Standing } from '../../shared/trust/ceremony/standing.ts';
import { changeWords } from '../../shared/trust/ceremony/words.ts';
import { type KeyBundle, type KeyPlan, onlineRoles } from '../../shared/wire/key-plan.ts';
import { readPlan, readPublicKey, writeDocument } from './key-files.ts';

/** A bundle as people see it. */
export interface BundleView {
  /** Lines in words, made from the documents themselves. */
  changes: string[];
  /** `root: 1 of alice (…), bob (…)`; empty where it may be installed. */
  missing: string[];
  /** Documents to which the registry itself will add signatures of its development keys. */
  addedAtInstall: string[];
}

export interface OpenBundle extends BundleView {
  bundle: KeyBundle;
  standing: Standing;
  followed: Followed;
}

/** Judges a bundle: its next documents must follow the current ones in it. Throws every code of that. */
export function openBundle(bundle: KeyBundle): OpenBundle {
  const standing = unwrap(readStanding(bundleDocuments(bundle)));
  if (standing.region !== bundle.region)
    throw new FleetError(
      'key-bundle-malformed',
      `it says region ${bundle.region}, its root says ${standing.region}`,
    );
  const next = bundleNext(bundle);
  const followed = unwrap(followDocuments(standing, next));
  const holders = bundleHolders(bundle, standing);
  const byRegistry = (requirement: Requirement): boolean =>
    missingIn(requirement).keyIds.filter((keyId) => holders.get(keyId) === heldByRegistry).length >=
    missingIn(requirement).needed;
  const open = followed.requirements.filter((requirement) => missingIn(requirement).needed > 0);
  const people = open.filter((requirement) => !byRegistry(requirement));
  return {
    bundle,
    standing,
    followed,
    changes: changeWords(standing, next, followed, holders),
    missing: missingWords(people, holders),
    addedAtInstall: [...new Set(open.filter(byRegistry).map(({ document }) => document))],
  };
}

export interface MakeBundle {
  plan: string;
  out: string;
  changes: (ground: { plan: KeyPlan; standing: Standing }) => Change[];
  renew?: boolean;
  renewPublishers?: string[];
  leaveUnsigned?: string[];
}

/** Makes the bundle of a change and writes it. Throws where the change cannot work. */
export function makeBundle(wanted: MakeBundle): OpenBundle {
  const plan = readPlan(wanted.plan);
  const read = unwrap(readStanding(planDocuments(plan)));
  const standing = { ...read, holders: new Map([...Object.entries(plan.holders), ...read.holders]) };
  const changed = unwrap(applyChanges(standing, wanted.changes({ plan, standing })));
  const nowMs = Date.now();
  const next = unwrap(
    nextDocuments(standing, changed, {
      nowMs,
      renew: wanted.renew ?? false,
      renewPublishers: new Set(wanted.renewPublishers ?? []),
      leaveUnsigned: new Set(wanted.leaveUnsigned ?? []),
    }),
  );
  const holders = new Map(changed.holders);
  if (plan.keys === 'development') {
    for (const role of ['root', 'targets', 'region-root'] as const) {
      for (const key of standing.roles.get(role)?.keys ?? []) {
        const keyId = tufKeyId(key);
        if (!holders.has(keyId)) holders.set(keyId, heldByRegistry);
      }
    }
  }
  const bundle = bundleOf({ standing, next, holders, nowMs });
  const opened = openBundle(bundle);
  writeDocument(wanted.out, bundle);
  return opened;
}

/** The change that puts the plan's new online keys in their roles, all or those named. */
export function onlineChanges(plan: KeyPlan, roles: readonly RoleName[] = onlineRoles): Change[] {
  const { newOnline } = plan;
  if (newOnline === null) {
    throw new FleetError('keys-not-held', 'the plan has no new online keys', {
      hint: 'make it with: lepton keys plan --new-online --out plan.json',
    });
  }
  return onlineRoles
    .filter((role) => roles.includes(role))
    .map((role): Change => {
      const publicKey = new Uint8Array(Buffer.from(newOnline[role], 'hex'));
      return { kind: 'set', role, keys: [{ publicKey, holder: null }], threshold: 1 };
    });
}

/** The id of the key that somebody means: an id, its beginning, its holder's name, or its public file. */
export function keyIdOf(standing: Standing, text: string): string {
  const found = findKey(standing, text);
  if (found.ok || found.refusal.code !== 'key-unknown' || !/[./\\]/.test(text)) return unwrap(found);
  return unwrap(findKey(standing, readPublicKey(text).keyId));
}

export interface SignedBundle extends BundleView {
  bundle: KeyBundle;
  /** Documents that the key has signed just now; empty where it had signed them all before. */
  signed: string[];
}

/** Adds the signatures of this key. Fault: `key-not-needed` where no document asks for it. */
export function signBundle(opened: OpenBundle, signer: Signer): SignedBundle {
  const { bundle, followed } = opened;
  const wanted = documentsFor(followed, signer.publicKey);
  if (wanted.size === 0) {
    throw new FleetError(
      'key-not-needed',
      `no document in this bundle asks for the key ${signer.keyId.slice(0, 16)}`,
    );
  }
  const unsigned = new Set(
    followed.requirements
      .filter((requirement) => missingIn(requirement).keyIds.includes(signer.keyId))
      .map(({ document }) => document),
  );
  const signed = withNext(bundle, signDocuments(bundleNext(bundle), unsigned, signer));
  const { changes, missing, addedAtInstall } = openBundle(signed);
  return { bundle: signed, changes, missing, addedAtInstall, signed: [...unsigned] };
}

/** Who is still to sign, or what comes next. */
export function signatureWords({ missing, addedAtInstall }: BundleView, file: string): string[] {
  return [
    ...(missing.length === 0 ? [] : ['signatures that are missing:', ...missing.map((line) => `  ${line}`)]),
    ...(addedAtInstall.length === 0
      ? []
      : [
          `the registry adds its development keys’ signatures when it installs: ${addedAtInstall.join(', ')}`,
        ]),
    missing.length === 0 ? `next: lepton keys install ${file}` : `next: lepton keys sign ${file} --key FILE`,
  ];
}
