// Why: which keys are to be in which role: what an operator asks for, applied to what is in force.
// Trusts: the standing roles, verified in standing.ts. Must never: pass over a part of what was asked for.

import { tufKeyId } from '../../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import type { RoleSpec } from '../tuf/repository.ts';
import { checkRoles, type RoleName, type Roles, type Standing } from './standing.ts';

/** A public key and who holds it; null where nobody said. */
export interface HeldKey {
  publicKey: Uint8Array;
  holder: string | null;
}

export type Change =
  /** In every role that the old key is in. */
  | { kind: 'replace'; keyId: string; by: HeldKey }
  | { kind: 'remove'; keyId: string }
  | { kind: 'add'; role: RoleName; key: HeldKey }
  | { kind: 'threshold'; role: RoleName; threshold: number }
  /** Exactly these keys; `threshold` null keeps the number. Makes a publisher's role that is not there. */
  | { kind: 'set'; role: RoleName; keys: readonly HeldKey[]; threshold: number | null };

export interface ChangedKeys {
  roles: Roles;
  holders: ReadonlyMap<string, string>;
}

/** The roles after all changes, in their order. Refusals: `key-unknown`, and those of `checkRoles`. */
export function applyChanges(standing: Standing, changes: readonly Change[]): Result<ChangedKeys> {
  const roles = new Map<RoleName, RoleSpec>(standing.roles);
  const holders = new Map(standing.holders);
  const note = ({ publicKey, holder }: HeldKey): Uint8Array => {
    if (holder !== null) holders.set(tufKeyId(publicKey), holder);
    return publicKey;
  };
  for (const change of changes) {
    if (change.kind === 'replace' || change.kind === 'remove') {
      const by = change.kind === 'replace' ? [note(change.by)] : [];
      if (!exchange(roles, change.keyId, by))
        return refuse('key-unknown', `no role has the key ${change.keyId}`);
      continue;
    }
    const role = roles.get(change.role);
    if (change.kind === 'set') {
      const threshold = change.threshold ?? role?.threshold ?? 1;
      roles.set(change.role, { keys: change.keys.map(note), threshold });
      continue;
    }
    if (role === undefined) return refuse('key-unknown', `there is no role ${change.role}`);
    if (change.kind === 'add') roles.set(change.role, { ...role, keys: [...role.keys, note(change.key)] });
    else roles.set(change.role, { ...role, threshold: change.threshold });
  }
  const checked = checkRoles(roles);
  return checked.ok ? ok({ roles, holders }) : checked;
}

function exchange(roles: Map<RoleName, RoleSpec>, keyId: string, by: readonly Uint8Array[]): boolean {
  let found = false;
  for (const [name, role] of roles) {
    if (!role.keys.some((key) => tufKeyId(key) === keyId)) continue;
    found = true;
    const keys = role.keys.flatMap((key) => (tufKeyId(key) === keyId ? by : [key]));
    roles.set(name, { ...role, keys });
  }
  return found;
}

/** Digits of a key id that are enough to name it. */
const prefixMin = 8;

/**
 * The id of the key that somebody means: a key id, at least its first eight digits, or the name of its holder.
 * Refusals: `key-unknown`, `input-invalid` where more than one key fits.
 */
export function findKey(standing: Standing, text: string): Result<string> {
  const all = new Set([...standing.roles.values()].flatMap((role) => role.keys.map(tufKeyId)));
  const fits = [...all].filter(
    (keyId) =>
      keyId === text ||
      (text.length >= prefixMin && /^[0-9a-f]+$/.test(text) && keyId.startsWith(text)) ||
      standing.holders.get(keyId) === text,
  );
  const [only, ...others] = fits;
  if (only === undefined) return refuse('key-unknown', `no role in this plan has a key or holder ${text}`);
  if (others.length > 0) {
    const ids = fits.map((keyId) => keyId.slice(0, 16)).join(', ');
    return refuse('input-invalid', `${text} may be any of the keys ${ids}: name one by its id`);
  }
  return ok(only);
}

/** Roles that a key is in. */
export function rolesWith(roles: Roles, keyId: string): RoleName[] {
  return [...roles]
    .filter(([, role]) => role.keys.some((key) => tufKeyId(key) === keyId))
    .map(([name]) => name);
}
