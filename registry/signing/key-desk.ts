// Why: everything about keys that people do with a registry: plan, install, look, and what is tidied after them.
// Trusts: install.ts for what may be in force. Must never: delete a key that a document in force names, or let
// two of these things happen at once: one would take the other's fresh files for nobody's.

import { X509Certificate } from 'node:crypto';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { tufKeyId } from '../../shared/crypto/ed25519.ts';
import { publicKeyFromSpki } from '../../shared/crypto/spki.ts';
import { asFleetError, FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { publisherRole, type RoleName, type Roles } from '../../shared/trust/ceremony/standing.ts';
import type { KeysStatus } from '../../shared/wire/http.ts';
import {
  type KeyBundle,
  type KeyPlan,
  type OnlineKeys,
  type OnlineRole,
  onlineRoles,
} from '../../shared/wire/key-plan.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { type Installed, installIn, standingIn } from './install.ts';
import { type DocumentStatus, expiringOffline, keysStatus } from './key-status.ts';
import type { KeptKey, Keyring } from './keys.ts';
import { namespaceRole, type RoleFiles } from './role-files.ts';

export interface KeyDesk {
  /** What is in force, for machines without a network; with fresh online keys where they are wanted. */
  plan(options: { newOnline: boolean }): Promise<KeyPlan>;
  /**
   * Puts a bundle in force in one transaction and deletes the keys that nothing names any more. Idempotent.
   * Refusals: those of `installIn`.
   */
  install(bundle: KeyBundle): Promise<Result<Installed & { deleted: KeptKey[] }>>;
  status(): Promise<KeysStatus>;
  /** After a start: deletes what a crash left between a commit and the deletion of files. */
  tidy(): Promise<void>;
  /** Says once a day in the log what its holders must sign again soon. */
  watch(): Promise<void>;
}

const dayMs = 86_400_000;
const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function onlineKeysOf(publicKeyOf: (role: OnlineRole) => Uint8Array): OnlineKeys {
  const key = (role: OnlineRole): string => toHex(publicKeyOf(role));
  return {
    snapshot: key('snapshot'),
    timestamp: key('timestamp'),
    director: key('director'),
    time: key('time'),
    ack: key('ack'),
    command: key('command'),
  };
}

export function createKeyDesk(parts: {
  store: RegistryStore;
  files: RoleFiles;
  keyring: Keyring;
  region: string;
  clock: Clock;
  log: Log;
  /** The keyring follows the roots in force. */
  follow(): Promise<void>;
  /** Runs a transaction that signs; afterwards the doorbell rings. */
  signing<T>(reason: string, work: (db: RegistryDb) => T): Promise<T>;
}): KeyDesk {
  const { store, files, keyring, region, clock, log, signing } = parts;
  const { qb } = store;
  let last: Promise<unknown> = Promise.resolve();
  let watchedMs = Number.NEGATIVE_INFINITY;

  function exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = last.then(work, work);
    last = next.catch(() => undefined);
    return next;
  }

  const pendingIn = (db: RegistryDb) => db.all(qb.selectFrom('pending_keys').selectAll().orderBy('role'));

  /** Deletes the keys that neither a document in force nor a plan names. A disk that fails is asked again at the next start. */
  async function tidy(): Promise<KeptKey[]> {
    const keep = await store.tx((db) => {
      const named = [...files.roles(db).values()].flatMap((role) => role.keys.map(tufKeyId));
      return new Set([...named, ...pendingIn(db).map((row) => row.key_id)]);
    });
    try {
      const deleted = await keyring.keepOnly(keep);
      for (const { role, keyId } of deleted) log.emit('info', 'registry.keys.deleted', { role, keyId });
      return deleted;
    } catch (thrown) {
      const error = asFleetError(thrown);
      log.emit('error', 'registry.failed', {
        while: 'deleting keys',
        code: error.code,
        detail: error.message,
      });
      return [];
    }
  }

  async function plan(newOnline: boolean): Promise<KeyPlan> {
    let fresh: OnlineKeys | null = null;
    if (newOnline) {
      // The files first: a row whose key is lost would be worse than a file that no row names.
      const made = await keyring.makeOnline();
      fresh = onlineKeysOf((role) => made[role].publicKey);
      const nowMs = clock.wall();
      await store.tx((db) => {
        db.run(qb.deleteFrom('pending_keys'));
        for (const role of onlineRoles) {
          const { keyId, publicKey } = made[role];
          const row = { role, key_id: keyId, public_key: toHex(publicKey), made_at_ms: nowMs };
          db.run(qb.insertInto('pending_keys').values(row));
        }
      });
      await tidy();
      log.emit('info', 'registry.keys.planned', { roles: onlineRoles });
    }
    return store.tx((db) => {
      const standing = standingIn({ db, qb, files });
      const publishers = [...standing.roles].flatMap(([name, role]) =>
        name.startsWith('publisher:') ? [{ namespace: name.slice('publisher:'.length), role }] : [],
      );
      return {
        schemaVersion: 1,
        kind: 'lepton-key-plan',
        region,
        madeAtMs: clock.wall(),
        keys: keyring.kind,
        root: toBase64(standing.root.bytes),
        regionRoot: toBase64(standing.regionRoot.bytes),
        targets: toBase64(standing.targets.bytes),
        publishers: publishers.map(({ namespace, role }) => {
          const metadata = standing.publishers.get(namespace);
          return {
            namespace,
            keys: role.keys.map(toHex),
            threshold: role.threshold,
            metadata: metadata === undefined ? null : toBase64(metadata),
            versionFloor: standing.versionFloors.get(namespace) ?? 0,
          };
        }),
        // Of a role that another region signs for, the key that the root in force names.
        online: onlineKeysOf((role) => {
          const named = standing.roles.get(role)?.keys ?? [];
          return (
            named.find((key) => keyring.held(key) !== null) ?? named[0] ?? keyring.signer(role).publicKey
          );
        }),
        holders: Object.fromEntries(standing.holders),
        newOnline: fresh,
      };
    });
  }

  async function install(bundle: KeyBundle): Promise<Result<Installed & { deleted: KeptKey[] }>> {
    const installed = await signing('new keys', (db) =>
      installIn({ db, qb, files, keyring, nowMs: clock.wall() }, bundle),
    );
    if (!installed.ok) return installed;
    await parts.follow();
    const deleted = await tidy();
    const { status, documents, signedHere } = installed.value;
    if (status === 'installed') {
      log.emit('warn', 'registry.keys.installed', {
        documents,
        signedHere,
        keys: keyring.kind,
        deleted: deleted.map(({ role, keyId }) => `${role} ${keyId.slice(0, 16)}`),
      });
    }
    return { ok: true, value: { ...installed.value, deleted } };
  }

  function documentsIn(db: RegistryDb, roles: Roles): Map<RoleName, DocumentStatus> {
    const documents = new Map<RoleName, DocumentStatus>();
    const note = (role: RoleName, file: string): void => {
      const current = files.current(db, file);
      if (current !== null) documents.set(role, current);
    };
    for (const role of ['root', 'targets', 'snapshot', 'timestamp'] as const) note(role, role);
    for (const role of ['region-root', 'director', 'time', 'ack', 'command'] as const)
      note(role, 'region/root');
    for (const name of roles.keys()) {
      const namespace = name.startsWith('publisher:') ? name.slice('publisher:'.length) : null;
      if (namespace !== null) note(publisherRole(namespace), namespaceRole(namespace));
    }
    return documents;
  }

  function fleetCa(): { keyId: string; publicKey: string; expiresAtMs: number } {
    const certificate = new X509Certificate(keyring.fleetCa.certificatePem);
    const der = new Uint8Array(certificate.publicKey.export({ type: 'spki', format: 'der' }));
    const publicKey = unwrap(publicKeyFromSpki(der));
    const expiresAtMs = Date.parse(certificate.validTo);
    if (!Number.isSafeInteger(expiresAtMs)) throw new FleetError('state-corrupt', 'the fleet CA has no end');
    return { keyId: tufKeyId(publicKey), publicKey: toHex(publicKey), expiresAtMs };
  }

  const status = (): Promise<KeysStatus> =>
    store.tx((db) => {
      const standing = standingIn({ db, qb, files });
      const keys = [...standing.roles.values()].flatMap((role) => role.keys);
      return keysStatus({
        region,
        kind: keyring.kind,
        catalogueRootSha256: sha256Hex(standing.root.bytes),
        regionRootSha256: sha256Hex(standing.regionRoot.bytes),
        roles: standing.roles,
        holders: standing.holders,
        held: new Set(keys.filter((key) => keyring.held(key) !== null).map(tufKeyId)),
        documents: documentsIn(db, standing.roles),
        fleetCa: fleetCa(),
        pending: pendingIn(db).map((row) => ({
          role: row.role,
          keyId: row.key_id,
          madeAtMs: row.made_at_ms,
        })),
        nowMs: clock.wall(),
      });
    });

  return {
    plan: ({ newOnline }) => exclusive(() => plan(newOnline)),
    install: (bundle) => exclusive(() => install(bundle)),
    status,
    tidy: () =>
      exclusive(async () => {
        await tidy();
      }),

    async watch() {
      const nowMs = clock.wall();
      if (nowMs - watchedMs < dayMs) return;
      watchedMs = nowMs;
      const { roles } = await status();
      for (const { role, version, expiresAtMs } of expiringOffline(roles, nowMs)) {
        const daysLeft = Math.floor((expiresAtMs - nowMs) / dayMs);
        log.emit('warn', 'registry.keys.expiring', {
          role,
          version,
          expiresAtMs,
          daysLeft,
          next: 'lepton keys ceremony renew',
        });
      }
    },
  };
}
