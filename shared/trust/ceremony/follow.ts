// Why: may these documents follow those in force, and whose signatures are still missing? One judgement for the
// holder who is asked to sign and for the registry that installs.
// Trusts: the standing documents, verified in standing.ts; nothing of the next ones.
// Must never: let a document do more than change keys and dates.

import { sha256Hex } from '../../crypto/digests.ts';
import { type Signer, tufKeyId } from '../../crypto/ed25519.ts';
import { unwrap } from '../../kernel/errors.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { regionRoles, updateRegionRoot } from '../region.ts';
import { housePolicy } from '../tuf/house-policy.ts';
import {
  type MetadataHead,
  parseRoot,
  parseTargets,
  type RoleKeys,
  type RootMetadata,
  type TargetsMetadata,
} from '../tuf/metadata.ts';
import { checkDelegations, delegationOf } from '../tuf/namespaces.ts';
import {
  checkPublisherStep,
  nextPublisherTargets,
  readPublisherTargets,
  restoreLostMax,
} from '../tuf/publisher.ts';
import { addSignature, countValidSignatures, parseRootFile } from '../tuf/repository.ts';
import { validSigners } from '../tuf/signatures.ts';
import { followRoot } from '../tuf/trusted-set.ts';
import type { NextDocuments } from './documents.ts';
import { checkRoles, isSameRole, publisherRole, type Roles, rolesOf, type Standing } from './standing.ts';

export type DocumentName = 'root' | 'region-root' | 'targets' | `publisher:${string}`;

/** Whose signatures a document needs; a root needs them twice, by the keys before and by its own. */
export interface Requirement {
  document: DocumentName;
  by: 'keys-before' | 'own-keys';
  role: RoleKeys;
  metadata: MetadataHead;
}

export interface Followed {
  root: RootMetadata;
  regionRoot: RootMetadata;
  targets: TargetsMetadata;
  /** Publishers' metadata that is signed again. */
  publishers: ReadonlyMap<string, TargetsMetadata>;
  roles: Roles;
  requirements: readonly Requirement[];
}

/**
 * Whether `next` may follow, whoever has signed so far. Refusals: `metadata-malformed`, `metadata-too-large`,
 * `metadata-version-invalid`, `assignment-other-region`, `release-not-signed` (a namespace's metadata in force
 * would lose its signatures), those of `checkRoles` and of `checkPublisherStep`.
 */
export function followDocuments(standing: Standing, next: NextDocuments): Result<Followed> {
  const root = next.root === null ? ok(standing.root) : nextRootOf(standing, next.root);
  if (!root.ok) return root;
  const regionRoot =
    next.regionRoot === null ? ok(standing.regionRoot) : nextRegionRootOf(standing, next.regionRoot);
  if (!regionRoot.ok) return regionRoot;
  const targets = next.targets === null ? ok(standing.targets) : nextTargetsOf(standing, next.targets);
  if (!targets.ok) return targets;
  const roles = rolesOf(root.value, regionRoot.value, targets.value);
  const sound = checkRoles(roles);
  if (!sound.ok) return sound;

  const requirements: Requirement[] = [];
  const nobody: RoleKeys = { keys: [], threshold: 1 };
  const demand = (
    document: DocumentName,
    metadata: MetadataHead,
    before: RoleKeys | null,
    own: RoleKeys,
  ): void => {
    if (before !== null) requirements.push({ document, by: 'keys-before', role: before, metadata });
    requirements.push({ document, by: 'own-keys', role: own, metadata });
  };
  const roleOf = (metadata: RootMetadata, role: string): RoleKeys => metadata.roles.get(role) ?? nobody;
  if (next.root !== null)
    demand('root', root.value, roleOf(standing.root, 'root'), roleOf(root.value, 'root'));
  if (next.regionRoot !== null)
    demand(
      'region-root',
      regionRoot.value,
      roleOf(standing.regionRoot, 'root'),
      roleOf(regionRoot.value, 'root'),
    );
  const targetsRole = roleOf(root.value, 'targets');
  if (next.targets !== null) demand('targets', targets.value, null, targetsRole);
  else if (validSigners(targets.value, targetsRole).size < targetsRole.threshold)
    return refuse(
      'metadata-signature-invalid',
      'the targets in force are not signed by the keys that the next root names',
    );
  const publishers = demandPublishers(standing, next, { targets: targets.value, roles }, demand);
  if (!publishers.ok) return publishers;
  return ok({
    root: root.value,
    regionRoot: regionRoot.value,
    targets: targets.value,
    publishers: publishers.value,
    roles,
    requirements,
  });
}

function nextRootOf(standing: Standing, bytes: Uint8Array): Result<RootMetadata> {
  const parsed = parseRootFile(bytes);
  return parsed.ok ? followsInVersion(standing.root, parsed.value, 'root') : parsed;
}

function nextRegionRootOf(standing: Standing, bytes: Uint8Array): Result<RootMetadata> {
  const parsed = parseRoot(bytes, regionRoles);
  if (!parsed.ok) return parsed;
  if (parsed.value.region !== standing.region)
    return refuse('assignment-other-region', 'the next region root is of another region');
  return followsInVersion(standing.regionRoot, parsed.value, 'region root');
}

function nextTargetsOf(standing: Standing, bytes: Uint8Array): Result<TargetsMetadata> {
  const parsed = parseTargets(bytes);
  if (!parsed.ok) return parsed;
  const delegations = checkDelegations(parsed.value);
  if (!delegations.ok) return delegations;
  for (const { name } of standing.targets.delegations) {
    // Devices that hold its snapshot would refuse the whole catalogue (TUF 1.0.34 §5.5.5).
    if (delegationOf(parsed.value, name) === null)
      return refuse('metadata-rollback', `the next targets have no namespace ${name} any more`);
  }
  return followsInVersion(standing.targets, parsed.value, 'targets');
}

function followsInVersion<T extends MetadataHead>(current: T, next: T, what: string): Result<T> {
  if (next.version === current.version + 1) return ok(next);
  return refuse(
    'metadata-version-invalid',
    `${what} ${next.version} where ${current.version + 1} must follow`,
  );
}

function demandPublishers(
  standing: Standing,
  next: NextDocuments,
  { targets, roles }: { targets: TargetsMetadata; roles: Roles },
  demand: (document: DocumentName, metadata: MetadataHead, before: null, own: RoleKeys) => void,
): Result<Map<string, TargetsMetadata>> {
  const signedAgain = new Map<string, TargetsMetadata>();
  for (const [namespace, current] of standing.publishers) {
    const role = delegationOf(targets, namespace);
    if (role === null) return refuse('metadata-rollback', `the next targets have no namespace ${namespace}`);
    const bytes = next.publishers.get(namespace);
    if (bytes === undefined) {
      // Signed by as many as before: a publisher whose keys stay is not asked when others' keys change.
      const name = publisherRole(namespace);
      if (isSameRole(standing.roles.get(name), roles.get(name))) continue;
      const signed = countValidSignatures(
        current,
        role.keys.map((key) => key.publicKey),
      );
      if (signed >= role.threshold || next.leftUnsigned.has(namespace)) continue;
      return refuse(
        'release-not-signed',
        `${namespace}: what it published is signed by ${signed} of the ${role.threshold} keys it would need`,
      );
    }
    const again = sameContent(namespace, current, bytes, standing.versionFloors.get(namespace) ?? 0);
    if (!again.ok) return again;
    signedAgain.set(namespace, again.value);
    demand(`publisher:${namespace}`, again.value, null, role);
  }
  for (const namespace of next.publishers.keys()) {
    if (!standing.publishers.has(namespace))
      return refuse('metadata-malformed', `${namespace} has published nothing that could be signed again`);
  }
  return ok(signedAgain);
}

/** Whoever signs it again signs the same releases, floors and withdrawals; only version and date are new. */
function sameContent(
  namespace: string,
  currentBytes: Uint8Array,
  next: Uint8Array,
  versionFloor: number,
): Result<TargetsMetadata> {
  const inForce = readPublisherTargets(currentBytes);
  if (!inForce.ok) return inForce;
  const current = inForce.value;
  if (versionFloor - current.version > restoreLostMax)
    return refuse(
      'metadata-version-invalid',
      `${namespace}: version ${versionFloor + 1} after ${current.version} is more than a restore can have lost`,
    );
  const step = checkPublisherStep({ namespace, current, next, versionFloor });
  if (!step.ok) return step;
  const { next: read, expiresAtMs } = step.value;
  // What follows from the same file with nothing added is a part of what was just found good.
  const made = unwrap(
    nextPublisherTargets({ namespace, current, add: [], versionFloor, expiresAtMs, signers: [] }),
  );
  if (sha256Hex(unwrap(parseTargets(made)).signedBytes) !== sha256Hex(read.signedBytes))
    return refuse('metadata-malformed', `${namespace}: it says something else than what is in force`);
  return ok(read);
}

/** The requirement's keys that have not signed, and how many of them must. */
export function missingIn(requirement: Requirement): { needed: number; keyIds: string[] } {
  const signers = validSigners(requirement.metadata, requirement.role);
  const keyIds = requirement.role.keys
    .filter((key) => !signers.has(Buffer.from(key.publicKey).toString('hex')))
    .map((key) => tufKeyId(key.publicKey));
  return { needed: Math.max(0, requirement.role.threshold - signers.size), keyIds };
}

/** What is missing, in words that name the holders: `root, by the keys before: 1 of alice (1a2b…), bob (3c4d…) must still sign`. */
export function missingWords(
  requirements: readonly Requirement[],
  holders: ReadonlyMap<string, string>,
): string[] {
  return requirements.flatMap((requirement) => {
    const { needed, keyIds } = missingIn(requirement);
    if (needed === 0) return [];
    const by = requirement.by === 'keys-before' ? ', by the keys before' : '';
    return [
      `${requirement.document}${by}: ${needed} of ${keyIds.map((keyId) => nameKey(keyId, holders)).join(', ')} must still sign`,
    ];
  });
}

/** `alice (1a2b3c4d5e6f7a8b)`. */
export function nameKey(keyId: string, holders: ReadonlyMap<string, string>): string {
  const holder = holders.get(keyId);
  return holder === undefined ? keyId.slice(0, 16) : `${holder} (${keyId.slice(0, 16)})`;
}

/** Documents that this key is asked to sign. */
export function documentsFor(followed: Followed, publicKey: Uint8Array): Set<DocumentName> {
  const keyId = tufKeyId(publicKey);
  return new Set(
    followed.requirements
      .filter(({ role }) => role.keys.some((key) => tufKeyId(key.publicKey) === keyId))
      .map(({ document }) => document),
  );
}

/** The same documents with this signer's signature on those named. */
export function signDocuments(
  next: NextDocuments,
  names: ReadonlySet<DocumentName>,
  signer: Signer,
): NextDocuments {
  const sign = (name: DocumentName, bytes: Uint8Array): Uint8Array =>
    names.has(name) ? addSignature(bytes, signer) : bytes;
  return {
    root: next.root === null ? null : sign('root', next.root),
    regionRoot: next.regionRoot === null ? null : sign('region-root', next.regionRoot),
    targets: next.targets === null ? null : sign('targets', next.targets),
    publishers: new Map(
      [...next.publishers].map(([namespace, bytes]) => [namespace, sign(`publisher:${namespace}`, bytes)]),
    ),
    leftUnsigned: next.leftUnsigned,
  };
}

/**
 * The last word before anything is installed, in the very functions that devices use. Refusals: those of
 * `followRoot` and `updateRegionRoot`, `metadata-signature-invalid`, `metadata-expired`.
 */
export function checkComplete(
  standing: Standing,
  next: NextDocuments,
  followed: Followed,
  nowMs: number,
): Result<void> {
  if (next.root !== null) {
    const root = followRoot(housePolicy, standing.root, next.root);
    if (!root.ok) return root;
  }
  if (next.regionRoot !== null) {
    const regionRoot = updateRegionRoot(standing.regionRoot.bytes, next.regionRoot);
    if (!regionRoot.ok) return regionRoot;
  }
  for (const requirement of followed.requirements) {
    const { document, metadata } = requirement;
    if (missingIn(requirement).needed > 0)
      return refuse('metadata-signature-invalid', `${document}: too few signatures are valid`);
    if (metadata.expiresAtMs <= nowMs)
      return refuse('metadata-expired', `the next ${document} has expired already`);
  }
  return ok();
}
