// Why: who may sign what at present, read out of the documents in force: the ground on which keys are changed.
// Trusts: nothing; each document must be signed as the one above it says. Whether they are the right ones is for
// whoever compares their digests with the registry's. Must never: take a document for in force that is not signed.

import { checkPublicKey, tufKeyId } from '../../crypto/ed25519.ts';
import { unwrap } from '../../kernel/errors.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { holderSchema } from '../../wire/key-file.ts';
import { onlineRoles } from '../../wire/key-plan.ts';
import { parseRegionRoot, regionRoles } from '../region.ts';
import { parseRoot, parseTargets, type RootMetadata, type TargetsMetadata } from '../tuf/metadata.ts';
import { checkDelegations } from '../tuf/namespaces.ts';
import { catalogueRoles, parseRootFile, type RoleSpec } from '../tuf/repository.ts';
import { checkThreshold } from '../tuf/signatures.ts';

/** Every role whose keys can be changed; the region's own root has a name of its own here. */
export type RoleName =
  | 'root'
  | 'targets'
  | 'region-root'
  | (typeof onlineRoles)[number]
  | `publisher:${string}`;
export type Roles = ReadonlyMap<RoleName, RoleSpec>;

export interface StandingDocuments {
  root: Uint8Array;
  regionRoot: Uint8Array;
  targets: Uint8Array;
  /** Metadata of namespaces that have any. */
  publishers: ReadonlyMap<string, Uint8Array>;
  /** By namespace; absent: none. */
  versionFloors?: ReadonlyMap<string, number>;
}

export interface Standing {
  region: string;
  root: RootMetadata;
  regionRoot: RootMetadata;
  targets: TargetsMetadata;
  publishers: ReadonlyMap<string, Uint8Array>;
  /** Versions of a namespace's metadata that a restore lost: devices may hold them, so the next is above. */
  versionFloors: ReadonlyMap<string, number>;
  roles: Roles;
  /** Key id to holder, as both roots say. */
  holders: ReadonlyMap<string, string>;
}

export const publisherRole = (namespace: string): `publisher:${string}` => `publisher:${namespace}`;

const isOnline = (role: string): boolean => (onlineRoles as readonly string[]).includes(role);

/** The same keys, in whatever order, and the same threshold. */
export function isSameRole(a: RoleSpec | undefined, b: RoleSpec | undefined): boolean {
  const spell = (role: RoleSpec | undefined): string =>
    role === undefined ? '' : `${role.threshold} ${role.keys.map(tufKeyId).sort().join(' ')}`;
  return spell(a) === spell(b);
}

/** The roles that these three documents name. */
export function rolesOf(root: RootMetadata, regionRoot: RootMetadata, targets: TargetsMetadata): Roles {
  const roles = new Map<RoleName, RoleSpec>();
  const take = (name: RoleName, role: { keys: readonly { publicKey: Uint8Array }[]; threshold: number }) =>
    roles.set(name, { keys: role.keys.map((key) => key.publicKey), threshold: role.threshold });
  const none = { keys: [], threshold: 1 };
  for (const name of catalogueRoles) take(name, root.roles.get(name) ?? none);
  for (const name of regionRoles) {
    take(name === 'root' ? 'region-root' : name, regionRoot.roles.get(name) ?? none);
  }
  for (const role of targets.delegations) take(publisherRole(role.name), role);
  return roles;
}

/**
 * Reads what is in force. Refusals: `metadata-malformed`, `metadata-too-large`, `metadata-signature-invalid`.
 */
export function readStanding(documents: StandingDocuments): Result<Standing> {
  const root = parseRootFile(documents.root);
  if (!root.ok) return root;
  const rooted = checkThreshold(root.value, root.value.roles.get('root'), 'root');
  if (!rooted.ok) return rooted;
  const region = parseRegionRoot(documents.regionRoot);
  if (!region.ok) return region;
  // Once more for what the house writes into it: the holders.
  const regionRoot = unwrap(parseRoot(documents.regionRoot, regionRoles));
  const targets = parseTargets(documents.targets);
  if (!targets.ok) return targets;
  const signed = checkThreshold(targets.value, root.value.roles.get('targets'), 'targets');
  if (!signed.ok) return signed;
  const delegations = checkDelegations(targets.value);
  if (!delegations.ok) return delegations;
  return ok({
    region: region.value.region,
    root: root.value,
    regionRoot,
    targets: targets.value,
    publishers: documents.publishers,
    versionFloors: documents.versionFloors ?? new Map(),
    roles: rolesOf(root.value, regionRoot, targets.value),
    holders: printable([...root.value.holders, ...regionRoot.holders]),
  });
}

/** A root may hold any text as a name: one that could move a terminal's cursor is left out. */
function printable(holders: [string, string][]): Map<string, string> {
  return new Map(holders.filter(([, name]) => holderSchema.safeParse(name).success));
}

/**
 * Whether these roles can work at all. Refusals: `threshold-unreachable`, `key-duplicate` (twice in a role, or
 * online and offline at once), `key-invalid` (malformed, small order), `input-invalid`.
 */
export function checkRoles(roles: Roles): Result<void> {
  const online = new Map<string, string>();
  for (const [name, role] of roles) {
    if (isOnline(name)) for (const key of role.keys) online.set(tufKeyId(key), name);
  }
  for (const [name, { keys, threshold }] of roles) {
    if (threshold < 1 || threshold > keys.length)
      return refuse(
        'threshold-unreachable',
        `${name}: ${threshold} of ${keys.length} keys would have to sign`,
      );
    const seen = new Set<string>();
    for (const key of keys) {
      const checked = checkPublicKey(key);
      if (!checked.ok) return refuse('key-invalid', `${name}: ${checked.refusal.detail}`);
      const keyId = tufKeyId(key);
      if (seen.has(keyId))
        return refuse('key-duplicate', `${name} would have the key ${keyId.slice(0, 16)} twice`);
      seen.add(keyId);
      const held = online.get(keyId);
      // An offline key that the registry also holds is no offline key.
      if (!isOnline(name) && held !== undefined)
        return refuse(
          'key-duplicate',
          `${name} would share the key ${keyId.slice(0, 16)} with the online role ${held}`,
        );
    }
    // Devices would wait for signatures that no registry makes.
    if (isOnline(name) && threshold !== 1)
      return refuse('input-invalid', `${name} is signed by the registry alone: its threshold is 1`);
  }
  return ok();
}
