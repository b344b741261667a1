// Why: the catalogue's TUF repository and the region's root, as this registry makes, signs and serves them.
// Trusts: the store, the keyring. Must never: serve a file that is not durable, or sign what a publisher did not.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { checkPublicKey } from '../../shared/crypto/ed25519.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { isNamespace } from '../../shared/trust/tuf/namespaces.ts';
import type { RegistryDb, RegistryQueries, RegistryStore } from '../store/open.ts';
import { createKeyDesk, type KeyDesk } from './key-desk.ts';
import type { Keyring } from './keys.ts';
import { createParsedTargets } from './parsed-targets.ts';
import { counterFloorsIn, raiseCounterFloorIn, raiseVersionFloorIn } from './publisher-floors.ts';
import { type InspectedPush, inspectPublisherMetadata } from './publisher-metadata.ts';
import { createRoleFiles, namespaceRole, type RoleFiles } from './role-files.ts';

export interface Publisher {
  namespace: string;
  /** Raw Ed25519 public keys, hex. */
  keys: string[];
  threshold: number;
  /** Version of the namespace's current targets metadata, 0 before the first push. */
  metadataVersion: number;
  /** Versions up to this one were given out and lost with a backup: the next is above. 0: none. */
  versionFloor: number;
  /** The same for the counters of new releases, by model name; models without one are left out. */
  counterFloors: Record<string, number>;
}

export interface CatalogueRepository {
  /** Exact bytes of `timestamp.json`, `N.root.json`, `N.targets.json`, `N.NS.json`, `region/N.root.json`; null where absent. */
  file(name: string): Promise<Uint8Array | null>;
  /** The root that a new device starts from. */
  catalogueRoot(): Promise<Uint8Array>;
  catalogueRootSha256(): Promise<string>;
  regionRoot(): Promise<Uint8Array>;
  regionRootSha256(): Promise<string>;
  /** Which roots are in force, both as of one moment. */
  roots(): Promise<Record<'catalogue' | 'region', { version: number; sha256: string }>>;
  publishers(): Promise<Publisher[]>;
  publisher(namespace: string): Promise<Publisher | null>;
  /**
   * Names the keys (hex) of a namespace: new targets, snapshot and timestamp in one transaction. Idempotent.
   * Refusals: `input-invalid`, `key-invalid`, `conflict` where the namespace's present metadata would no
   * longer be signed by enough of its keys, `keys-offline` where others hold the keys of targets.
   */
  delegate(namespace: string, keys: string[], threshold: number): Promise<Result<Publisher>>;
  /**
   * Checks a namespace's next targets metadata, however many signatures it has, without taking it.
   * Refusals: `namespace-unknown`, and those of `inspectPublisherMetadata`.
   */
  inspect(namespace: string, bytes: Uint8Array): Promise<Result<InspectedPush>>;
  /**
   * Takes a namespace's next targets metadata, signed by its publishers; makes the new snapshot and
   * timestamp in the same transaction, together with `alongside`. Refusals: as `inspect`, and
   * `release-not-signed` below the threshold.
   */
  acceptPublisherMetadata(
    namespace: string,
    bytes: Uint8Array,
    alongside?: (db: RegistryDb, accepted: InspectedPush) => void,
  ): Promise<Result<InspectedPush>>;
  /** Only rises; what lies above is not changed. Refusal: `namespace-unknown`. */
  raiseVersionFloor(namespace: string, version: number): Promise<Result<void>>;
  /** Only rises. The namespace need not know the model yet. Refusal: `namespace-unknown`. */
  raiseCounterFloor(model: { namespace: string; name: string }, counter: number): Promise<Result<void>>;
  /**
   * For fleet/restore.ts and regions/: runs `work` on the role files in one transaction and rings the doorbell where a
   * new timestamp came out of it. Whoever uses it decides what is stored; nothing is checked here. `reason`: why it is
   * signed; null where others signed it.
   */
  withFiles<T>(reason: string | null, work: (db: RegistryDb, files: RoleFiles) => T): Promise<T>;
  /**
   * Signs again what would expire soon, as far as this registry holds the keys, and warns of the rest; from a
   * timer. True where something was signed.
   */
  resign(nowMs: number): Promise<boolean>;
  /** Version and expiry of a role's file in force. */
  current(
    role: 'root' | 'targets' | 'snapshot' | 'timestamp',
  ): Promise<{ version: number; expiresAtMs: number }>;
  /** Whether this registry signs the catalogue; false where it mirrors another region's. */
  isHome(): Promise<boolean>;
  /** After other roots than before came into force from elsewhere: signs with their keys, and forgets what nothing names. */
  followRoots(): Promise<void>;
  /** Plans, installs and shows keys. */
  keys: KeyDesk;
  /** Called with the exact timestamp bytes after each new one is durable. Returns how to stop. */
  onTimestamp(listener: (bytes: Uint8Array) => void): () => void;
}

export type { InspectedPush };

function publisherOf(
  files: RoleFiles,
  db: RegistryDb,
  qb: RegistryQueries,
  row: { namespace: string; keys: string; threshold: number; version_floor?: number },
): Publisher {
  const keys: string[] = JSON.parse(row.keys);
  const metadataVersion = files.current(db, namespaceRole(row.namespace))?.version ?? 0;
  const counterFloors = Object.fromEntries(counterFloorsIn(db, qb, row.namespace));
  const { namespace, threshold, version_floor: versionFloor = 0 } = row;
  return { namespace, keys, threshold, metadataVersion, versionFloor, counterFloors };
}

const notHome = refuse('not-home', 'this region mirrors the catalogue of another');

function checkPublisherKeys(namespace: string, keys: string[], threshold: number): Result<void> {
  if (!isNamespace(namespace)) return refuse('input-invalid', `${namespace} cannot be a namespace`);
  if (threshold < 1 || threshold > keys.length) {
    return refuse(
      'input-invalid',
      `a threshold of ${threshold} cannot be met by ${keys.length} different keys`,
    );
  }
  for (const key of keys) {
    const checked = checkPublicKey(new Uint8Array(Buffer.from(key, 'hex')));
    if (!checked.ok) return refuse('key-invalid', `${key}: ${checked.refusal.detail}`);
  }
  return ok();
}

/** Opens the repository; the first time it makes and signs everything. */
export async function openRepository(parts: {
  store: RegistryStore;
  keyring: Keyring;
  region: string;
  clock: Clock;
  log: Log;
}): Promise<CatalogueRepository> {
  const { store, keyring, region, clock, log } = parts;
  const { qb } = store;
  const files = createRoleFiles({ qb, keyring, region });
  const listeners = new Set<(bytes: Uint8Array) => void>();
  const parsed = createParsedTargets();

  /** Runs `work`; where it signed, tells the log and, after the commit, the doorbell. Null: it stores what others signed. */
  async function signing<T>(reason: string | null, work: (db: RegistryDb) => T): Promise<T> {
    let timestamp: Uint8Array | undefined;
    let before = 0;
    let after = 0;
    const value = await store.tx((db) => {
      before = files.current(db, 'timestamp')?.version ?? 0;
      const result = work(db);
      const current = files.current(db, 'timestamp');
      after = current?.version ?? 0;
      timestamp = current?.bytes;
      return result;
    });
    if (after !== before && timestamp !== undefined) {
      if (reason !== null) log.emit('info', 'metadata.signed', { reason, timestampVersion: after });
      for (const listener of listeners) listener(timestamp);
    }
    return value;
  }

  const read = (db: RegistryDb, namespace: string) =>
    db.first(qb.selectFrom('publishers').selectAll().where('namespace', '=', namespace));

  function inspectIn(db: RegistryDb, namespace: string, bytes: Uint8Array): Result<InspectedPush> {
    const row = read(db, namespace);
    if (row === undefined) return refuse('namespace-unknown', `nobody may sign for ${namespace} yet`);
    const { keys, threshold, versionFloor } = publisherOf(files, db, qb, row);
    const inForce = files.current(db, namespaceRole(namespace));
    const current = inForce === null ? ok(null) : parsed.read(inForce.bytes);
    if (!current.ok) return current;
    const next = parsed.read(bytes);
    if (!next.ok) return next;
    return inspectPublisherMetadata({
      namespace,
      bytes: next.value,
      keys: keys.map((key) => new Uint8Array(Buffer.from(key, 'hex'))),
      threshold,
      current: current.value,
      nowMs: clock.wall(),
      versionFloor,
      counterFloors: counterFloorsIn(db, qb, namespace),
    });
  }

  function delegateIn(
    db: RegistryDb,
    namespace: string,
    keys: string[],
    threshold: number,
  ): Result<Publisher> {
    const present = read(db, namespace);
    const row = { namespace, keys: JSON.stringify(keys), threshold, created_at_ms: clock.wall() };
    if (present?.keys === row.keys && present.threshold === threshold)
      return ok(publisherOf(files, db, qb, present));
    if (!files.isHome(db)) return notHome;
    if (!files.canSign(db, 'targets')) {
      return refuse(
        'keys-offline',
        `targets is signed offline; lepton keys plan --out plan.json, then lepton publishers add ${namespace} with --plan plan.json --out bundle.json`,
      );
    }
    const current = files.current(db, namespaceRole(namespace));
    if (current !== null) {
      const signatures = files.countSignatures(current.bytes, keys);
      // Devices would refuse everything of the namespace until the next push.
      if (signatures < threshold) {
        return refuse(
          'conflict',
          `version ${current.version} of ${namespace} is signed by ${signatures} of these keys; add keys, push, then remove keys`,
        );
      }
    }
    db.run(
      qb
        .insertInto('publishers')
        .values(row)
        .onConflict((conflict) => conflict.column('namespace').doUpdateSet({ keys: row.keys, threshold })),
    );
    files.signTargets(db, clock.wall());
    files.signSnapshot(db, clock.wall());
    files.signTimestamp(db, clock.wall());
    return ok(publisherOf(files, db, qb, { ...row, version_floor: present?.version_floor ?? 0 }));
  }

  await signing('first start', (db) => files.createMissing(db, clock.wall()));
  // Before anything is deleted: a registry that lacks a key it needs must not start, and must not tidy up.
  const follow = async (): Promise<void> => {
    const { roles, mirrors } = await store.tx((db) => ({
      roles: files.roles(db),
      mirrors: files.hasRegions(db),
    }));
    keyring.follow(roles, mirrors);
  };
  await follow();
  const keys = createKeyDesk({ store, files, keyring, region, clock, log, signing, follow });
  await keys.tidy();

  const bytesOf = (role: string): Promise<Uint8Array> => store.tx((db) => files.expect(db, role).bytes);
  return {
    file: (name) => store.tx((db) => files.read(db, name)),
    catalogueRoot: () => bytesOf('root'),
    catalogueRootSha256: async () => sha256Hex(await bytesOf('root')),
    regionRoot: () => bytesOf('region/root'),
    regionRootSha256: async () => sha256Hex(await bytesOf('region/root')),
    roots: () =>
      store.tx((db) => {
        const of = (role: string) => {
          const { version, bytes } = files.expect(db, role);
          return { version, sha256: sha256Hex(bytes) };
        };
        return { catalogue: of('root'), region: of('region/root') };
      }),

    publishers: () =>
      store.tx((db) =>
        db
          .all(qb.selectFrom('publishers').selectAll().orderBy('namespace'))
          .map((row) => publisherOf(files, db, qb, row)),
      ),
    publisher: (namespace) =>
      store.tx((db) => {
        const row = read(db, namespace);
        return row === undefined ? null : publisherOf(files, db, qb, row);
      }),

    async delegate(namespace, keys, threshold) {
      const distinct = [...new Set(keys.map((key) => key.toLowerCase()))].sort();
      const checked = checkPublisherKeys(namespace, distinct, threshold);
      if (!checked.ok) return checked;
      return signing(`delegation ${namespace}`, (db) => delegateIn(db, namespace, distinct, threshold));
    },

    inspect: (namespace, bytes) =>
      store.tx((db) => (files.isHome(db) ? inspectIn(db, namespace, bytes) : notHome)),

    acceptPublisherMetadata: (namespace, bytes, alongside) =>
      signing(`push ${namespace}`, (db) => {
        if (!files.isHome(db)) return notHome;
        const inspected = inspectIn(db, namespace, bytes);
        if (!inspected.ok) return inspected;
        const { signatures, threshold, version, expiresAtMs } = inspected.value;
        if (signatures < threshold) {
          return refuse('release-not-signed', `${signatures} of ${threshold} needed signatures are valid`);
        }
        const nowMs = clock.wall();
        files.save(db, {
          role: namespaceRole(namespace),
          file: `${version}.${namespace}.json`,
          version,
          expiresAtMs,
          bytes,
          nowMs,
        });
        alongside?.(db, inspected.value);
        files.signSnapshot(db, nowMs);
        files.signTimestamp(db, nowMs);
        return inspected;
      }),

    withFiles: (reason, work) => signing(reason, (db) => work(db, files)),

    raiseVersionFloor: (namespace, version) =>
      store.tx((db) => {
        if (read(db, namespace) === undefined)
          return refuse('namespace-unknown', `there is no namespace ${namespace}`);
        raiseVersionFloorIn(db, qb, namespace, version);
        return ok();
      }),

    raiseCounterFloor: (model, counter) =>
      store.tx((db) => {
        if (read(db, model.namespace) === undefined)
          return refuse('namespace-unknown', `there is no namespace ${model.namespace}`);
        raiseCounterFloorIn(db, qb, { namespace: model.namespace, name: model.name }, counter);
        return ok();
      }),

    async resign(nowMs) {
      const signed = await signing('before expiry', (db) => files.resign(db, nowMs));
      await keys.watch();
      return signed;
    },
    current: (role) =>
      store.tx((db) => {
        const { version, expiresAtMs } = files.expect(db, role);
        return { version, expiresAtMs };
      }),
    isHome: () => store.tx((db) => files.isHome(db)),
    async followRoots() {
      await follow();
      await keys.tidy();
    },
    keys,

    onTimestamp(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
