// Why: which role speaks for a target: the search through delegations of TUF 1.0.34 §5.6.7.
// Trusts: the verified top-level targets; each role below only as far as the delegator that leads to it says.
// Must never: believe a role by keys or paths of another delegator than the one on the way to it.

import { limits } from '../../kernel/limits.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import type { DelegatedRole } from './format.ts';
import { isDelegatedPath } from './path-patterns.ts';
import type { AnyTargets } from './policy.ts';

export interface WalkParts<T extends AnyTargets, Target> {
  path: string;
  /** Verified, with the policy's own checks. */
  topTargets: T;
  /** What a role's file says of the path; undefined where it says nothing. */
  targetIn(targets: T, path: string): Target | undefined;
  /**
   * The role's file, verified by the keys and threshold in `role`, which are its delegator's for it. A file held
   * from another way to the same role must be verified again.
   */
  load(role: DelegatedRole): Promise<Result<T>>;
}

export interface FoundTarget<Target> {
  target: Target;
  /** `targets`, or the delegated role whose file names it. */
  role: string;
}

/**
 * The target, from the most trusted role that names it. Refusals: `target-unknown`, `metadata-too-large` (more
 * roles to visit than the limit), and those of `load`, each of which ends the search: going on behind a role
 * that cannot be verified would let an attacker choose who answers.
 */
export async function findTarget<T extends AnyTargets, Target>(
  parts: WalkParts<T, Target>,
): Promise<Result<FoundTarget<Target>>> {
  const { path } = parts;
  const own = parts.targetIn(parts.topTargets, path);
  if (own !== undefined) return ok({ target: own, role: 'targets' });
  // §5.6.7.1: each role is visited once, so that cycles end. The top-level role cannot be delegated to.
  const visited = new Set<string>();
  // Pre-order, depth first: the last one is the next to visit.
  let waiting = nextRoles(parts.topTargets, path, []);
  for (;;) {
    const role = waiting.pop();
    if (role === undefined) return refuse('target-unknown', `no role speaks for ${path}`);
    if (visited.has(role.name)) continue;
    // §5.6.7: clients should bound the search; a graph of thousands of roles would keep a device busy for ever.
    if (visited.size === limits.delegatedRolesVisitedMax)
      return refuse('metadata-too-large', `more than ${visited.size} delegated roles to visit for ${path}`);
    visited.add(role.name);
    const loaded = await parts.load(role);
    if (!loaded.ok) return loaded;
    const target = parts.targetIn(loaded.value, path);
    if (target !== undefined) return ok({ target, role: role.name });
    waiting = nextRoles(loaded.value, path, waiting);
  }
}

/**
 * §5.6.7.2: the roles to visit after this one's file, in its order, before all that waited. §5.6.7.2.1: once a
 * terminating role answers for the path, nothing behind it may, in this file or in any before it.
 */
function nextRoles(targets: AnyTargets, path: string, waiting: readonly DelegatedRole[]): DelegatedRole[] {
  const next: DelegatedRole[] = [];
  for (const role of targets.delegations) {
    if (!isDelegatedPath(role, path)) continue;
    next.push(role);
    if (role.terminating) return next.reverse();
  }
  return [...waiting, ...next.reverse()];
}
