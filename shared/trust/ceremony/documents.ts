// Why: the documents that put changed keys in force: the next roots, the next targets, and publishers' metadata
// where their present one would no longer be signed by enough of their keys.
// Trusts: the standing documents, verified in standing.ts. Must never: make a document that says anything else
// than the change.

import { tufKeyId } from '../../crypto/ed25519.ts';
import { FleetError } from '../../kernel/errors.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { makeRegionRoot } from '../region.ts';
import { nextPublisherTargets } from '../tuf/publisher.ts';
import { countValidSignatures, makeRoot, makeTargets, type RoleSpec } from '../tuf/repository.ts';
import type { ChangedKeys } from './change.ts';
import { isSameRole, publisherRole, type RoleName, type Roles, type Standing } from './standing.ts';

const dayMs = 86_400_000;

/** How long what is signed offline lives: roots a year, targets half of one (DESIGN 3 asks for 90 days or more). */
export const offlineLives = {
  rootMs: 365 * dayMs,
  targetsMs: 180 * dayMs,
  publisherMs: 365 * dayMs,
} as const;

export interface NextDocuments {
  /** Null: the one in force stays. */
  root: Uint8Array | null;
  regionRoot: Uint8Array | null;
  targets: Uint8Array | null;
  publishers: ReadonlyMap<string, Uint8Array>;
  leftUnsigned: ReadonlySet<string>;
}

export interface MakeOptions {
  nowMs: number;
  /** Make both roots and targets anew although nothing in them changes: they would expire. */
  renew: boolean;
  /** Namespaces whose metadata is made anew although their keys do not change. */
  renewPublishers: ReadonlySet<string>;
  /** Namespaces that may be left without enough signatures. */
  leaveUnsigned: ReadonlySet<string>;
}

function roleIn(roles: Roles, name: RoleName): RoleSpec {
  const role = roles.get(name);
  if (role === undefined) throw new FleetError('internal', `no role ${name}`);
  return role;
}

function holdersOf(changed: ChangedKeys, names: readonly RoleName[]): Map<string, string> {
  const ids = new Set(names.flatMap((name) => roleIn(changed.roles, name).keys.map(tufKeyId)));
  return new Map([...changed.holders].filter(([keyId]) => ids.has(keyId)));
}

/**
 * Everything that must follow for `changed` to be in force, without signatures. Refusals: `input-invalid` where
 * nothing changes, and those of `nextPublisherTargets`.
 */
export function nextDocuments(
  standing: Standing,
  changed: ChangedKeys,
  options: MakeOptions,
): Result<NextDocuments> {
  const { roles } = changed;
  const differs = (...names: RoleName[]): boolean =>
    names.some((name) => !isSameRole(standing.roles.get(name), roles.get(name)));
  const { nowMs, renew } = options;

  const root =
    renew || differs('root', 'targets', 'snapshot', 'timestamp') ? nextRoot(standing, changed, nowMs) : null;
  const regionRoot =
    renew || differs('region-root', 'director', 'time', 'ack', 'command')
      ? nextRegionRoot(standing, changed, nowMs)
      : null;
  const namespaces = [...roles.keys()].flatMap((name) =>
    name.startsWith('publisher:') ? [name.slice('publisher:'.length)] : [],
  );
  const targetsRole = roleIn(roles, 'targets');
  const stillSigned = countValidSignatures(standing.targets.bytes, targetsRole.keys) >= targetsRole.threshold;
  const targets =
    renew || !stillSigned || differs(...namespaces.map(publisherRole))
      ? nextTargets(standing, changed, namespaces, nowMs)
      : null;

  const publishers = new Map<string, Uint8Array>();
  const leftUnsigned = new Set<string>();
  for (const [namespace, current] of standing.publishers) {
    const again = options.renewPublishers.has(namespace);
    // Where its keys stay as they are, a publisher need not be asked, whatever else changes.
    if (!again && !differs(publisherRole(namespace))) continue;
    const role = roleIn(roles, publisherRole(namespace));
    if (!again && countValidSignatures(current, role.keys) >= role.threshold) continue;
    if (options.leaveUnsigned.has(namespace)) {
      leftUnsigned.add(namespace);
      continue;
    }
    const expiresAtMs = nowMs + offlineLives.publisherMs;
    const versionFloor = standing.versionFloors.get(namespace) ?? 0;
    const next = nextPublisherTargets({
      namespace,
      current,
      add: [],
      versionFloor,
      expiresAtMs,
      signers: [],
    });
    if (!next.ok) return next;
    publishers.set(namespace, next.value);
  }
  for (const namespace of options.renewPublishers) {
    if (!publishers.has(namespace))
      return refuse(
        'input-invalid',
        `the namespace ${namespace} has published nothing that could be renewed`,
      );
  }
  if (root === null && regionRoot === null && targets === null && publishers.size === 0)
    return refuse('input-invalid', 'nothing would change');
  return ok({ root, regionRoot, targets, publishers, leftUnsigned });
}

function nextRoot(standing: Standing, changed: ChangedKeys, nowMs: number): Uint8Array {
  const { roles } = changed;
  return makeRoot({
    version: standing.root.version + 1,
    expiresAtMs: nowMs + offlineLives.rootMs,
    roles: {
      root: roleIn(roles, 'root'),
      targets: roleIn(roles, 'targets'),
      snapshot: roleIn(roles, 'snapshot'),
      timestamp: roleIn(roles, 'timestamp'),
    },
    holders: holdersOf(changed, ['root', 'targets']),
    signers: [],
  });
}

function nextRegionRoot(standing: Standing, changed: ChangedKeys, nowMs: number): Uint8Array {
  const { roles } = changed;
  return makeRegionRoot({
    region: standing.region,
    version: standing.regionRoot.version + 1,
    expiresAtMs: nowMs + offlineLives.rootMs,
    roles: {
      root: roleIn(roles, 'region-root'),
      director: roleIn(roles, 'director'),
      time: roleIn(roles, 'time'),
      ack: roleIn(roles, 'ack'),
      command: roleIn(roles, 'command'),
    },
    holders: holdersOf(changed, ['region-root']),
    signers: [],
  });
}

function nextTargets(
  standing: Standing,
  changed: ChangedKeys,
  namespaces: readonly string[],
  nowMs: number,
): Uint8Array {
  return makeTargets({
    version: standing.targets.version + 1,
    expiresAtMs: nowMs + offlineLives.targetsMs,
    delegations: [...namespaces]
      .sort()
      .map((namespace) => ({ namespace, ...roleIn(changed.roles, publisherRole(namespace)) })),
    signers: [],
  });
}
