// Why: how this catalogue uses TUF delegations: one role per publisher namespace, nothing else.
// Trusts: targets metadata that was verified. Must never: let one publisher speak for another, or let the
// top-level role, whose key the registry may hold, name a release.

import { namePattern } from '../../kernel/releases.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import type { DelegatedRole, TargetsMetadata } from './metadata.ts';

/** Names of TUF's own roles: a namespace of that name would share its file name. */
const reserved: ReadonlySet<string> = new Set(['root', 'timestamp', 'snapshot', 'targets', 'mirrors']);

/** Whether the name may be a publisher's namespace. */
export function isNamespace(name: string): boolean {
  return namePattern.test(name) && !reserved.has(name);
}

/** The only path pattern that a namespace's role is trusted for: `NS/NAME/VERSION`. */
export function namespacePattern(namespace: string): string {
  return `${namespace}/*/*`;
}

/** File name, without version, of a namespace's metadata. */
export function namespaceFile(namespace: string): string {
  return `${namespace}.json`;
}

/**
 * Whether top-level targets keep to that use: no targets of its own, and each delegation terminating, bound
 * to exactly its namespace. The reader refuses a name listed twice. Then one role at most can answer for a path,
 * so that the order of the search (TUF 1.0.34 §5.6.7) decides nothing. Refusal: `metadata-malformed`.
 */
export function checkDelegations(targets: TargetsMetadata): Result<void> {
  if (targets.targets.size > 0)
    return refuse('metadata-malformed', 'targets: the top-level role names a release');
  for (const role of targets.delegations) {
    const what = `targets: delegation ${role.name}`;
    if (!isNamespace(role.name)) return refuse('metadata-malformed', `${what}: not a namespace`);
    if (!role.terminating) return refuse('metadata-malformed', `${what}: not terminating`);
    if (role.paths?.length !== 1 || role.paths[0] !== namespacePattern(role.name)) {
      return refuse('metadata-malformed', `${what}: not bound to exactly its namespace`);
    }
  }
  return ok();
}

/** The role that may sign for a namespace, or null. */
export function delegationOf(targets: TargetsMetadata, namespace: string): DelegatedRole | null {
  return targets.delegations.find((role) => role.name === namespace) ?? null;
}
