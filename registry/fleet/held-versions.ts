// Why: what a device says it holds beside what the registry holds: which numbers are newer over there.
// Trusts: nothing; these are bare numbers. Must never: be taken for a reason to change anything.

import type { HeldVersions } from '../../shared/wire/messages.ts';

/** Where each of the numbers stands in `metadata_roles`. */
export const heldRoles = {
  root: 'root',
  regionRoot: 'region/root',
  timestamp: 'timestamp',
  snapshot: 'snapshot',
  targets: 'targets',
} as const satisfies Record<keyof HeldVersions, string>;

/**
 * Those of the device's files whose number is higher than ours, by name. Where our root is newer than the
 * device's, its other numbers say nothing: keys may have been replaced, and numbers begin anew (TUF 1.0.34 §5.3.11).
 */
export function behindOf(ours: ReadonlyMap<string, number>, held: HeldVersions): (keyof HeldVersions)[] {
  const isNewer = (name: keyof HeldVersions): boolean => held[name] > (ours.get(heldRoles[name]) ?? 0);
  const roots = (['root', 'regionRoot'] as const).filter(isNewer);
  if (held.root < (ours.get('root') ?? 0)) return roots;
  return [...roots, ...(['timestamp', 'snapshot', 'targets'] as const).filter(isNewer)];
}

/** The same in words. */
export function newerThan(ours: ReadonlyMap<string, number>, held: HeldVersions): string[] {
  return behindOf(ours, held).map((name) => `${name} ${held[name]}`);
}
