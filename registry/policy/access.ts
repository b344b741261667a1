// Why: who may do what: bearer tokens with a role and perhaps a namespace, and the one table of rights.
// Trusts: the store. Must never: store or log a token; only its SHA-256 is kept.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Role, roles } from '../../shared/wire/http.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { TokenRow } from '../store/tables.ts';

/** Things one may do. What is not granted in `rights` is denied. */
export type Action =
  | 'catalogue.read'
  | 'catalogue.push'
  | 'publishers.claim'
  | 'publishers.write'
  | 'fleet.read'
  | 'claims.write'
  | 'devices.write'
  | 'broker.read'
  | 'authorities.write'
  | 'rollouts.read'
  | 'cells.read'
  | 'cells.withheld'
  | 'rollouts.write'
  | 'rollouts.approve'
  | 'telemetry.read'
  | 'masking.write'
  | 'webhooks.write'
  | 'telemetry.erase'
  | 'rights.export'
  | 'backups.write'
  | 'labels.write'
  | 'samples.write'
  | 'samples.review'
  | 'keys.read'
  | 'keys.write'
  | 'audit.read'
  | 'policy.read'
  | 'policy.write'
  | 'tokens.write'
  | 'regions.write';

const reading = ['catalogue.read', 'fleet.read', 'rollouts.read', 'cells.read'] as const;

// `telemetry.read` is raw records: what machines and the people at them did. Not for whoever may see the fleet.
// `cells.read` is what may leave the region anyway; `cells.withheld` which of it may not, and why: a hint at the few.
// `masking.write` decides what the region may come to know at all: the admin's, and nobody who only runs things.
// `samples.write` decides which requests devices keep, within what masking lets out; `samples.review` what they were.
// `rights.export` is all of that of one device in one piece; `backups.write` is all of everybody, with the keys.
// `keys.read` names the people who hold keys; `keys.write` makes online keys and puts new roots in force.
// `audit.read` shows who did what and from where: the auditor's and the admin's.
// `policy.write` brings a policy that root keys have signed; `policy.read` also shows what went where under it.
// `broker.read` is the lists that a broker of another maker needs: who was shut out, and by which certificate.
const rights: Record<Role, readonly Action[]> = {
  viewer: reading,
  auditor: [
    ...reading,
    'broker.read',
    'telemetry.read',
    'rights.export',
    'cells.withheld',
    'keys.read',
    'audit.read',
    'policy.read',
  ],
  approver: [...reading, 'rollouts.approve'],
  publisher: [...reading, 'catalogue.push', 'publishers.claim'],
  operator: [
    ...reading,
    'broker.read',
    'claims.write',
    'devices.write',
    'rollouts.write',
    'labels.write',
    'samples.write',
    'samples.review',
    'telemetry.read',
    'cells.withheld',
    'keys.read',
  ],
  admin: [
    ...reading,
    'catalogue.push',
    'publishers.claim',
    'publishers.write',
    'broker.read',
    'authorities.write',
    'claims.write',
    'devices.write',
    'rollouts.write',
    'rollouts.approve',
    'telemetry.read',
    'cells.withheld',
    'masking.write',
    'webhooks.write',
    'telemetry.erase',
    'rights.export',
    'backups.write',
    'labels.write',
    'samples.write',
    'samples.review',
    'keys.read',
    'keys.write',
    'audit.read',
    'policy.read',
    'policy.write',
    'tokens.write',
    'regions.write',
  ],
};

/** Who asks. `namespace` null: all of them. */
export interface Principal {
  tokenId: string;
  user: string;
  role: Role;
  namespace: string | null;
  /** Region in which the user sits: what is read goes there. Null: this one. */
  atRegion: string | null;
}

/** The roles that have any of these rights. */
export const rolesWith = (actions: readonly Action[]): Role[] =>
  roles.filter((role) => actions.some((action) => rights[role].includes(action)));

/**
 * Reading is not bound to namespaces: the catalogue is public to every device. Whoever is bound to a
 * namespace may change only what belongs to it, and nothing that belongs to the whole fleet.
 * Refusals: `role-forbidden`, `namespace-forbidden`.
 */
export function authorize(principal: Principal, action: Action, namespace: string | null): Result<void> {
  if (!rights[principal.role].includes(action)) {
    return refuse('role-forbidden', `the role ${principal.role} may not do ${action}`);
  }
  const reads = (reading as readonly Action[]).includes(action);
  if (!reads && principal.namespace !== null && principal.namespace !== namespace) {
    return refuse(
      'namespace-forbidden',
      `this token is bound to ${principal.namespace} and may not do ${action} ${namespace === null ? 'for the whole fleet' : `in ${namespace}`}`,
    );
  }
  return ok();
}

export interface TokenView {
  id: string;
  user: string;
  role: Role;
  namespace: string | null;
  atRegion: string | null;
  createdAtMs: number;
  expiresAtMs: number | null;
  revokedAtMs: number | null;
}

export interface Access {
  /** The principal behind a bearer token. Refusal: `token-invalid` (unknown, expired, revoked alike). */
  authenticate(token: string): Promise<Result<Principal>>;
  create(options: {
    user: string;
    role: Role;
    namespace: string | null;
    ttlMs: number | null;
    /** Null or absent: this region. */
    atRegion?: string | null;
  }): Promise<{ token: string; view: TokenView }>;
  list(): Promise<TokenView[]>;
  /** Idempotent. Refusal: `not-found`. */
  revoke(id: string): Promise<Result<TokenView>>;
  /**
   * The token that `admin.token` holds: `present` where that is still a valid admin's, else a new one.
   */
  ensureAdmin(present: string | null): Promise<string>;
}

const encoder = new TextEncoder();
/** Shown in front of every token, so that one found in a log or a repository is recognised. */
const tokenPrefix = 'lepton_';
const tokenBytes = 32;
/** A whole token, or most of one, wherever it stands in a text. */
const tokenPattern = new RegExp(`${tokenPrefix}[A-Za-z0-9_-]{${tokenBytes},}`, 'g');

/** The text with `lepton_…` in the place of each token. */
export function withoutTokens(text: string): string {
  return text.replace(tokenPattern, `${tokenPrefix}…`);
}

/** Whether a token stands anywhere in the text. */
export const holdsToken = (text: string): boolean => text.search(tokenPattern) >= 0;

function digestOf(token: string): string {
  return sha256Hex(encoder.encode(token));
}

function isRole(value: string): value is Role {
  return (roles as readonly string[]).includes(value);
}

function viewOf(row: TokenRow): TokenView {
  if (!isRole(row.role))
    throw new FleetError('state-corrupt', `token ${row.id} has the unknown role ${row.role}`);
  return {
    id: row.id,
    user: row.user,
    role: row.role,
    namespace: row.namespace,
    atRegion: row.at_region,
    createdAtMs: row.created_at_ms,
    expiresAtMs: row.expires_at_ms,
    revokedAtMs: row.revoked_at_ms,
  };
}

export function createAccess(parts: { store: RegistryStore; clock: Clock; entropy: Entropy }): Access {
  const { store, clock, entropy } = parts;
  const { qb } = store;

  const usable = (row: TokenRow | undefined): row is TokenRow =>
    row !== undefined &&
    row.revoked_at_ms === null &&
    (row.expires_at_ms === null || clock.wall() < row.expires_at_ms);

  // Looked up by digest: comparing secrets byte by byte would tell how many bytes were right.
  const find = (db: RegistryDb, token: string): TokenRow | undefined =>
    db.first(qb.selectFrom('tokens').selectAll().where('secret_sha256', '=', digestOf(token)));

  function insert(db: RegistryDb, token: string, options: Parameters<Access['create']>[0]): TokenView {
    const now = clock.wall();
    const row: TokenRow = {
      id: Buffer.from(entropy.bytes(8)).toString('hex'),
      user: options.user,
      role: options.role,
      namespace: options.namespace,
      at_region: options.atRegion ?? null,
      secret_sha256: digestOf(token),
      created_at_ms: now,
      expires_at_ms: options.ttlMs === null ? null : now + options.ttlMs,
      revoked_at_ms: null,
    };
    db.run(qb.insertInto('tokens').values(row));
    return viewOf(row);
  }

  const newToken = (): string => tokenPrefix + Buffer.from(entropy.bytes(tokenBytes)).toString('base64url');

  return {
    async authenticate(token) {
      const row = await store.tx((db) => find(db, token));
      if (!usable(row)) return refuse('token-invalid', 'the token is unknown, expired or revoked');
      const { id: tokenId, user, role, namespace, atRegion } = viewOf(row);
      return ok({ tokenId, user, role, namespace, atRegion });
    },

    async create(options) {
      const token = newToken();
      return { token, view: await store.tx((db) => insert(db, token, options)) };
    },

    async list() {
      const rows = await store.tx((db) =>
        db.all(qb.selectFrom('tokens').selectAll().orderBy('created_at_ms').orderBy('id')),
      );
      return rows.map(viewOf);
    },

    async revoke(id) {
      return store.tx((db) => {
        const row = db.first(qb.selectFrom('tokens').selectAll().where('id', '=', id));
        if (row === undefined) return refuse('not-found', `there is no token ${id}`);
        const revokedAtMs = row.revoked_at_ms ?? clock.wall();
        db.run(qb.updateTable('tokens').set({ revoked_at_ms: revokedAtMs }).where('id', '=', id));
        return ok(viewOf({ ...row, revoked_at_ms: revokedAtMs }));
      });
    },

    async ensureAdmin(present) {
      return store.tx((db) => {
        if (present !== null) {
          const row = find(db, present);
          if (usable(row) && row.role === 'admin' && row.namespace === null) return present;
        }
        const token = newToken();
        insert(db, token, { user: 'admin', role: 'admin', namespace: null, ttlMs: null });
        return token;
      });
    },
  };
}
