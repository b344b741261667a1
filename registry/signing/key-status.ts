// Why: who may sign what, which key is where and what expires when, for people: `lepton keys status` and the
// warnings ahead of time. Pure. Trusts: the documents in force. Must never: show a private key.

import { tufKeyId } from '../../shared/crypto/ed25519.ts';
import type { RoleName, Roles } from '../../shared/trust/ceremony/standing.ts';
import type { KeysStatus } from '../../shared/wire/http.ts';

const dayMs = 86_400_000;
/** Time enough for people on holiday to come back and sign. */
export const warnBeforeMs = 30 * dayMs;

type RoleStatus = KeysStatus['roles'][number];
type KeyStatus = RoleStatus['keys'][number];

/** The document that says until when a role's word holds. */
export interface DocumentStatus {
  version: number;
  expiresAtMs: number;
}

export interface StatusFacts {
  region: string;
  kind: KeysStatus['keys'];
  catalogueRootSha256: string;
  regionRootSha256: string;
  roles: Roles;
  holders: ReadonlyMap<string, string>;
  /** Key ids on this registry's disk. */
  held: ReadonlySet<string>;
  documents: ReadonlyMap<RoleName, DocumentStatus>;
  fleetCa: { keyId: string; publicKey: string; expiresAtMs: number };
  pending: KeysStatus['pending'];
  nowMs: number;
}

const order: readonly RoleName[] = [
  'root',
  'targets',
  'snapshot',
  'timestamp',
  'region-root',
  'director',
  'time',
  'ack',
  'command',
];
const offline: readonly string[] = ['root', 'targets', 'region-root'];

const daysLeft = (expiresAtMs: number, nowMs: number): number => Math.floor((expiresAtMs - nowMs) / dayMs);

export function keysStatus(facts: StatusFacts): KeysStatus {
  const { roles, nowMs } = facts;
  const publishers = [...roles.keys()].filter((name) => name.startsWith('publisher:')).sort();
  const views = [...order, ...publishers].flatMap((name): RoleStatus[] => {
    const role = roles.get(name);
    if (role === undefined) return [];
    const document = facts.documents.get(name) ?? null;
    return [
      {
        role: name,
        threshold: role.threshold,
        keys: role.keys.map((publicKey) => keyStatus(name, publicKey, facts)),
        version: document?.version ?? null,
        expiresAtMs: document?.expiresAtMs ?? null,
        daysLeft: document === null ? null : daysLeft(document.expiresAtMs, nowMs),
      },
    ];
  });
  const { keyId, publicKey, expiresAtMs } = facts.fleetCa;
  views.splice(order.length, 0, {
    role: 'fleet-ca',
    threshold: 1,
    keys: [{ keyId, publicKey, holder: null, where: 'this registry' }],
    version: null,
    expiresAtMs,
    daysLeft: daysLeft(expiresAtMs, nowMs),
  });
  const { region, kind, catalogueRootSha256, regionRootSha256, pending } = facts;
  const whole = { region, keys: kind, catalogueRootSha256, regionRootSha256, roles: views, pending };
  return { ...whole, warnings: warningsOf(whole, nowMs) };
}

function keyStatus(role: RoleName, publicKey: Uint8Array, facts: StatusFacts): KeyStatus {
  const keyId = tufKeyId(publicKey);
  const elsewhere = role.startsWith('publisher:') ? 'publisher' : 'offline';
  return {
    keyId,
    publicKey: Buffer.from(publicKey).toString('hex'),
    holder: facts.holders.get(keyId) ?? null,
    where: facts.held.has(keyId) ? 'this registry' : elsewhere,
  };
}

function warningsOf(status: Omit<KeysStatus, 'warnings'>, nowMs: number): KeysStatus['warnings'] {
  const warnings: KeysStatus['warnings'] = [];
  const onDisk = status.roles.filter(
    ({ role, keys }) => offline.includes(role) && keys.some((key) => key.where === 'this registry'),
  );
  if (onDisk.length > 0) {
    warnings.push({
      role: onDisk.map(({ role }) => role).join(', '),
      detail: 'development keys on this registry’s disk: whoever has the disk is the authority',
      next: 'lepton keys ceremony first',
    });
  }
  for (const { role, expiresAtMs } of expiringOffline(status.roles, nowMs)) {
    const days = daysLeft(expiresAtMs, nowMs);
    warnings.push({
      role,
      detail: days < 0 ? 'has expired: devices install nothing new' : `expires in ${days} day(s)`,
      next: role.startsWith('publisher:')
        ? 'its publisher pushes, or: lepton keys rotate --renew-publisher'
        : 'lepton keys ceremony renew',
    });
  }
  const [waiting] = status.pending;
  if (waiting !== undefined) {
    warnings.push({
      role: status.pending.map(({ role }) => role).join(', '),
      detail: `new online keys of ${new Date(waiting.madeAtMs).toISOString().slice(0, 10)} wait for a bundle that names them`,
      next: 'lepton keys install BUNDLE',
    });
  }
  return warnings;
}

/** Roles that people must sign again soon: those whose keys are not here. */
export function expiringOffline(
  roles: readonly RoleStatus[],
  nowMs: number,
): { role: string; version: number; expiresAtMs: number }[] {
  return roles.flatMap(({ role, keys, version, expiresAtMs }) => {
    const byPeople = offline.includes(role) || role.startsWith('publisher:');
    const heldHere = keys.some((key) => key.where === 'this registry');
    if (!byPeople || heldHere || version === null || expiresAtMs === null) return [];
    return expiresAtMs - nowMs < warnBeforeMs ? [{ role, version, expiresAtMs }] : [];
  });
}
