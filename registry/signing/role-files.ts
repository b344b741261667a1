// Why: makes, signs and stores the files of each role: which version is current, what lists what.
// Trusts: the keyring for who holds what; the root in the same transaction for whose signature counts.
// Must never: sign outside the transaction that stores what was signed, or with a key that the root does not name.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { type RoleName, type Roles, rolesOf } from '../../shared/trust/ceremony/standing.ts';
import { makeRegionRoot, regionRoles } from '../../shared/trust/region.ts';
import { parseRoot, parseTargets, type RootMetadata } from '../../shared/trust/tuf/metadata.ts';
import {
  countValidSignatures,
  type MetaFile,
  makeRoot,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  parseRootFile,
  type RoleSpec,
} from '../../shared/trust/tuf/repository.ts';
import { fixed, type RegistryDb, type RegistryQueries } from '../store/open.ts';
import type { DevelopmentRole, KeyRole, Keyring } from './keys.ts';

const dayMs = 86_400_000;

/** How long each role's file lives, and with how much of that left it is signed again (DESIGN 3). */
const lives = {
  root: { lifeMs: 365 * dayMs, renewMs: 60 * dayMs },
  targets: { lifeMs: 90 * dayMs, renewMs: 30 * dayMs },
  snapshot: { lifeMs: 7 * dayMs, renewMs: 6 * dayMs },
  timestamp: { lifeMs: 7 * dayMs, renewMs: 6 * dayMs },
} as const;

/** Superseded snapshots and targets that are kept for devices in mid-refresh. */
const versionsKept = 16;

export interface CurrentFile {
  version: number;
  file: string;
  expiresAtMs: number;
  bytes: Uint8Array;
}

export interface RoleFile {
  role: string;
  file: string;
  version: number;
  expiresAtMs: number;
  bytes: Uint8Array;
  nowMs: number;
}

export interface RoleFiles {
  read(db: RegistryDb, name: string): Uint8Array | null;
  /** The current file of `root`, `targets`, `snapshot`, `timestamp`, `region/root` or `ns/<namespace>`. */
  current(db: RegistryDb, role: string): CurrentFile | null;
  /** The same where it must be there; fault `state-corrupt`. */
  expect(db: RegistryDb, role: string): CurrentFile;
  save(db: RegistryDb, file: RoleFile): void;
  countSignatures(bytes: Uint8Array, keysHex: string[]): number;
  signTargets(db: RegistryDb, nowMs: number): void;
  signSnapshot(db: RegistryDb, nowMs: number): void;
  signTimestamp(db: RegistryDb, nowMs: number): void;
  /** Signs whatever does not exist yet. */
  createMissing(db: RegistryDb, nowMs: number): void;
  /** Signs the region's root alone, where there is none: the first step of a region that joins others. */
  createRegionRoot(db: RegistryDb, nowMs: number): void;
  /** Signs again what would expire soon and what this registry holds the keys of. True where something was. */
  resign(db: RegistryDb, nowMs: number): boolean;
  /** Who may sign what, as the documents in force say. */
  roles(db: RegistryDb): Roles;
  /** Whether this registry holds enough keys of the role. */
  canSign(db: RegistryDb, role: RoleName): boolean;
  /** Whether this registry signs the catalogue: it alone takes pushes, and other regions mirror it. */
  isHome(db: RegistryDb): boolean;
  /** Whether this registry would sign the catalogue under this root. */
  signsUnder(root: Pick<RootMetadata, 'roles'>): boolean;
  /** Whether there are other regions, so that the catalogue may be signed elsewhere. */
  hasRegions(db: RegistryDb): boolean;
}

const namespacePrefix = 'ns/';
export const namespaceRole = (namespace: string): string => namespacePrefix + namespace;

const currentQuery = fixed((qb, role: string) =>
  qb
    .selectFrom('metadata_roles')
    .innerJoin('metadata_files', 'metadata_files.name', 'metadata_roles.file')
    .select(['version', 'file', 'expires_at_ms', 'bytes'])
    .where('role', '=', role),
);

export function createRoleFiles(parts: { qb: RegistryQueries; keyring: Keyring; region: string }): RoleFiles {
  const { qb, keyring, region } = parts;

  const read = (db: RegistryDb, name: string): Uint8Array | null =>
    db.first(qb.selectFrom('metadata_files').select('bytes').where('name', '=', name))?.bytes ?? null;

  function current(db: RegistryDb, role: string): CurrentFile | null {
    const row = db.first(currentQuery(qb, role));
    if (row === undefined) return null;
    return { version: row.version, file: row.file, expiresAtMs: row.expires_at_ms, bytes: row.bytes };
  }

  function expect(db: RegistryDb, role: string): CurrentFile {
    const file = current(db, role);
    if (file === null) throw new FleetError('state-corrupt', `the registry has no ${role} metadata`);
    return file;
  }

  function save(db: RegistryDb, file: RoleFile): void {
    db.run(
      qb
        .insertInto('metadata_files')
        .values({ name: file.file, bytes: file.bytes, created_at_ms: file.nowMs })
        // Only timestamp.json has one name for every version.
        .onConflict((conflict) =>
          conflict.column('name').doUpdateSet({ bytes: file.bytes, created_at_ms: file.nowMs }),
        ),
    );
    const row = { version: file.version, file: file.file, expires_at_ms: file.expiresAtMs };
    db.run(
      qb
        .insertInto('metadata_roles')
        .values({ role: file.role, ...row })
        .onConflict((conflict) => conflict.column('role').doUpdateSet(row)),
    );
    // Roots are kept for ever: a device walks them one by one (TUF 1.0.34 §5.3.3).
    if (file.role === 'targets' || file.role === 'snapshot' || file.role.startsWith(namespacePrefix)) {
      const old = file.version - versionsKept;
      const name = file.file.slice(file.file.indexOf('.') + 1);
      if (old > 0) db.run(qb.deleteFrom('metadata_files').where('name', '=', `${old}.${name}`));
    }
  }

  /** Parsing a root takes about a millisecond; it changes once a year. Kept by its bytes' digest. */
  let parsedRoots: { key: string; root: RootMetadata; regionRoot: RootMetadata } | null = null;

  function roots(db: RegistryDb): { root: RootMetadata; regionRoot: RootMetadata } {
    const [root, regionRoot] = [expect(db, 'root'), expect(db, 'region/root')];
    const key = `${sha256Hex(root.bytes)} ${sha256Hex(regionRoot.bytes)}`;
    if (parsedRoots?.key !== key) {
      parsedRoots = {
        key,
        root: unwrap(parseRootFile(root.bytes)),
        regionRoot: unwrap(parseRoot(regionRoot.bytes, regionRoles)),
      };
    }
    return parsedRoots;
  }

  function specOf(root: Pick<RootMetadata, 'roles'>, role: string): RoleSpec {
    const { keys = [], threshold = 1 } = root.roles.get(role) ?? {};
    return { keys: keys.map((key) => key.publicKey), threshold };
  }

  /** Held keys of a role, as many as must sign; fewer where this registry does not hold them. */
  function heldOf(spec: RoleSpec): Signer[] {
    return spec.keys.flatMap((key) => keyring.held(key) ?? []).slice(0, spec.threshold);
  }

  function signersOf(db: RegistryDb, role: 'targets' | 'snapshot' | 'timestamp'): Signer[] {
    const spec = specOf(roots(db).root, role);
    const signers = heldOf(spec);
    if (signers.length < spec.threshold)
      throw new FleetError('keys-offline', `this registry does not hold the keys of ${role}`);
    return signers;
  }

  const describe = (file: CurrentFile): MetaFile => ({
    version: file.version,
    bytes: file.bytes.length,
    sha256: sha256Hex(file.bytes),
  });

  /** Makes the next version of a role's file and stores it. */
  function sign(
    db: RegistryDb,
    role: 'root' | 'targets' | 'snapshot' | 'timestamp' | 'region/root',
    nowMs: number,
    make: (head: { version: number; expiresAtMs: number }) => Uint8Array,
  ): void {
    const version = (current(db, role)?.version ?? 0) + 1;
    const { lifeMs } = lives[role === 'region/root' ? 'root' : role];
    const expiresAtMs = nowMs + lifeMs;
    const file =
      role === 'timestamp'
        ? 'timestamp.json'
        : role === 'region/root'
          ? `region/${version}.root.json`
          : `${version}.${role}.json`;
    save(db, { role, file, version, expiresAtMs, bytes: make({ version, expiresAtMs }), nowMs });
  }

  const first = (...roles: (DevelopmentRole | KeyRole)[]): Signer[] => roles.map(keyring.firstStart);
  const spec = (threshold: number, signers: Signer[]): RoleSpec => ({
    keys: signers.map((signer) => signer.publicKey),
    threshold,
  });

  function firstRoot(db: RegistryDb, nowMs: number): void {
    const holders = first('root-1', 'root-2', 'root-3');
    sign(db, 'root', nowMs, (head) =>
      makeRoot({
        ...head,
        roles: {
          root: spec(2, holders),
          targets: spec(1, first('targets')),
          snapshot: spec(1, first('snapshot')),
          timestamp: spec(1, first('timestamp')),
        },
        signers: holders.slice(0, 2),
      }),
    );
  }

  function firstRegionRoot(db: RegistryDb, nowMs: number): void {
    const holders = first('region-root-1', 'region-root-2', 'region-root-3');
    sign(db, 'region/root', nowMs, (head) =>
      makeRegionRoot({
        ...head,
        region,
        roles: {
          root: spec(2, holders),
          director: spec(1, first('director')),
          time: spec(1, first('time')),
          ack: spec(1, first('ack')),
          command: spec(1, first('command')),
        },
        signers: holders.slice(0, 2),
      }),
    );
  }

  /** The same root with a new date. Only in development does the registry hold the keys for it. */
  function renewRoot(db: RegistryDb, nowMs: number): void {
    const { root } = roots(db);
    sign(db, 'root', nowMs, (head) =>
      makeRoot({
        ...head,
        roles: {
          root: specOf(root, 'root'),
          targets: specOf(root, 'targets'),
          snapshot: specOf(root, 'snapshot'),
          timestamp: specOf(root, 'timestamp'),
        },
        holders: root.holders,
        signers: heldOf(specOf(root, 'root')),
      }),
    );
  }

  function renewRegionRoot(db: RegistryDb, nowMs: number): void {
    const { regionRoot } = roots(db);
    sign(db, 'region/root', nowMs, (head) =>
      makeRegionRoot({
        ...head,
        region,
        roles: {
          root: specOf(regionRoot, 'root'),
          director: specOf(regionRoot, 'director'),
          time: specOf(regionRoot, 'time'),
          ack: specOf(regionRoot, 'ack'),
          command: specOf(regionRoot, 'command'),
        },
        holders: regionRoot.holders,
        signers: heldOf(specOf(regionRoot, 'root')),
      }),
    );
  }

  function signTargets(db: RegistryDb, nowMs: number): void {
    const publishers = db.all(qb.selectFrom('publishers').selectAll().orderBy('namespace'));
    const delegations = publishers.map((row) => {
      const keys: string[] = JSON.parse(row.keys);
      return {
        namespace: row.namespace,
        keys: keys.map((key) => new Uint8Array(Buffer.from(key, 'hex'))),
        threshold: row.threshold,
      };
    });
    sign(db, 'targets', nowMs, (head) =>
      makeTargets({ ...head, delegations, signers: signersOf(db, 'targets') }),
    );
  }

  function signSnapshot(db: RegistryDb, nowMs: number): void {
    const files = new Map([['targets.json', describe(expect(db, 'targets'))]]);
    const rows = db.all(
      qb
        .selectFrom('metadata_roles')
        .select('role')
        .where('role', 'like', `${namespacePrefix}%`)
        .orderBy('role'),
    );
    for (const { role } of rows) {
      files.set(`${role.slice(namespacePrefix.length)}.json`, describe(expect(db, role)));
    }
    sign(db, 'snapshot', nowMs, (head) =>
      makeSnapshot({ ...head, files, signers: signersOf(db, 'snapshot') }),
    );
  }

  function signTimestamp(db: RegistryDb, nowMs: number): void {
    const snapshot = describe(expect(db, 'snapshot'));
    sign(db, 'timestamp', nowMs, (head) =>
      makeTimestamp({ ...head, snapshot, signers: signersOf(db, 'timestamp') }),
    );
  }

  function roles(db: RegistryDb): Roles {
    const { root, regionRoot } = roots(db);
    return rolesOf(root, regionRoot, unwrap(parseTargets(expect(db, 'targets').bytes)));
  }

  const holds = (wanted: RoleSpec): boolean => heldOf(wanted).length >= wanted.threshold;

  function canSign(db: RegistryDb, role: RoleName): boolean {
    const { root, regionRoot } = roots(db);
    return holds(role === 'region-root' ? specOf(regionRoot, 'root') : specOf(root, role));
  }

  const signsUnder = (root: Pick<RootMetadata, 'roles'>): boolean =>
    holds(specOf(root, 'snapshot')) && holds(specOf(root, 'timestamp'));
  const isHome = (db: RegistryDb): boolean => signsUnder(roots(db).root);
  const hasRegions = (db: RegistryDb): boolean =>
    db.first(qb.selectFrom('region_list').select('version')) !== undefined;

  return {
    isHome,
    signsUnder,
    hasRegions,
    read,
    current,
    expect,
    save,
    roles,
    canSign,
    countSignatures: (bytes, keysHex) =>
      countValidSignatures(
        bytes,
        keysHex.map((key) => new Uint8Array(Buffer.from(key, 'hex'))),
      ),
    signTargets,
    signSnapshot,
    signTimestamp,

    createRegionRoot(db, nowMs) {
      if (current(db, 'region/root') === null) firstRegionRoot(db, nowMs);
    },

    createMissing(db, nowMs) {
      if (current(db, 'root') === null && current(db, 'region/root') !== null) {
        throw new FleetError('region-not-joined', 'this region has not joined the others yet');
      }
      if (current(db, 'root') === null) firstRoot(db, nowMs);
      if (current(db, 'region/root') === null) firstRegionRoot(db, nowMs);
      if (current(db, 'targets') === null) signTargets(db, nowMs);
      if (current(db, 'snapshot') === null) signSnapshot(db, nowMs);
      if (current(db, 'timestamp') === null) signTimestamp(db, nowMs);
    },

    resign(db, nowMs) {
      const due = (role: string, life: { renewMs: number }): boolean =>
        expect(db, role).expiresAtMs - nowMs < life.renewMs;
      // What is signed offline is its holders' to renew; key-watch.ts says so ahead of time.
      const regionRoot = due('region/root', lives.root) && canSign(db, 'region-root');
      if (regionRoot) renewRegionRoot(db, nowMs);
      const root = due('root', lives.root) && canSign(db, 'root');
      if (root) renewRoot(db, nowMs);
      const targets = due('targets', lives.targets) && canSign(db, 'targets');
      if (targets) signTargets(db, nowMs);
      // Signed at another region, which is asked again and again.
      if (!isHome(db)) return false;
      const snapshot = targets || due('snapshot', lives.snapshot);
      if (snapshot) signSnapshot(db, nowMs);
      // A device learns of new roots when it refreshes, so each of them rings the doorbell too.
      const timestamp = snapshot || root || regionRoot || due('timestamp', lives.timestamp);
      if (timestamp) signTimestamp(db, nowMs);
      return timestamp;
    },
  };
}
