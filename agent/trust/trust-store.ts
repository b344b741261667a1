// Why: what this device has verified, kept over restarts: metadata as exact bytes, the version numbers that bind
// where a file is torn, every root that led here, the assignment in force.
// Trusts: its own database, and callers to have verified what they store. Must never: hold half of a refresh;
// every change is one transaction.

import type { Migration } from '../../shared/host/sqlite.ts';
import type { SqlTx, Store } from '../../shared/kernel/ports.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { TrustState, VersionFloors } from '../../shared/trust/tuf/client.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import { type Envelope, envelopeSchema, parseMessage } from '../../shared/wire/messages.ts';

export const trustMigrations: readonly Migration[] = [
  {
    name: 'agent-trust-001',
    sql: `
      CREATE TABLE trust_files (
        name TEXT PRIMARY KEY,
        bytes BLOB NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE trust_assignment (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch INTEGER NOT NULL,
        payload_sha256 TEXT NOT NULL,
        envelope TEXT NOT NULL
      ) STRICT;
      CREATE TABLE trust_time (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        verified_ms INTEGER NOT NULL
      ) STRICT;
      INSERT INTO trust_time (id, verified_ms) VALUES (1, 0);
    `,
  },
  {
    name: 'agent-trust-002',
    sql: `
      -- The highest versions seen: 'timestamp', 'snapshot', and 'file/' with the name of each file listed.
      CREATE TABLE trust_floors (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
      -- The root and its online keys under which they were seen.
      CREATE TABLE trust_floor_keys (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        root_version INTEGER NOT NULL,
        online_keys TEXT NOT NULL
      ) STRICT;
      -- Roots in the order in which they were accepted, so that a torn one is not the end: every one of the
      -- catalogue, and a second copy of the region's that is in force.
      CREATE TABLE trust_roots (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('catalogue', 'region')),
        bytes BLOB NOT NULL
      ) STRICT;
      INSERT INTO trust_roots (kind, bytes) SELECT 'catalogue', bytes FROM trust_files WHERE name = 'root';
      INSERT INTO trust_roots (kind, bytes) SELECT 'region', bytes FROM trust_files WHERE name = 'region-root';
    `,
  },
];

export interface HeldAssignment {
  epoch: number;
  payloadSha256: string;
  /** JSON text of the DSSE envelope as it was verified; returned to a registry that was restored. */
  envelope: string;
}

export interface TrustRecord {
  catalogue: TrustState;
  regionRoot: Uint8Array;
  assignment: HeldAssignment | null;
}

/** The envelope in a text that is held; null where a dying disk left none, which must not keep a device from starting. */
export function heldEnvelope(text: string): Envelope | null {
  const read = parseMessage(envelopeSchema, new TextEncoder().encode(text));
  return read.ok ? read.value : null;
}

const topFiles = ['timestamp', 'snapshot', 'targets'] as const;
const delegatedPrefix = 'delegated/';

export function putFile(db: SqlTx, name: string, bytes: Uint8Array): void {
  db.run(
    'INSERT INTO trust_files (name, bytes) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes',
    name,
    bytes,
  );
}

export function fileBytes(db: SqlTx, name: string): Uint8Array | null {
  const row = db.get<{ bytes: Uint8Array }>('SELECT bytes FROM trust_files WHERE name = ?', name);
  return row === undefined ? null : new Uint8Array(row.bytes);
}

const filePrefix = 'file/';

function putFloors(db: SqlTx, floors: VersionFloors): void {
  db.run('DELETE FROM trust_floors');
  const put = (name: string, version: number): void => {
    db.run('INSERT INTO trust_floors (name, version) VALUES (?, ?)', name, version);
  };
  put('timestamp', floors.timestamp);
  put('snapshot', floors.snapshot);
  for (const [name, version] of floors.files) put(filePrefix + name, version);
  db.run(
    `INSERT INTO trust_floor_keys (id, root_version, online_keys) VALUES (1, ?, ?)
     ON CONFLICT (id) DO UPDATE SET root_version = excluded.root_version, online_keys = excluded.online_keys`,
    floors.root,
    floors.onlineKeys,
  );
}

function heldFloors(db: SqlTx): VersionFloors | null {
  const keys = db.get<{ root_version: number; online_keys: string }>(
    'SELECT root_version, online_keys FROM trust_floor_keys WHERE id = 1',
  );
  if (keys === undefined) return null;
  const rows = db.all<{ name: string; version: number }>(
    'SELECT name, version FROM trust_floors ORDER BY name',
  );
  const versions = new Map(rows.map((row) => [row.name, row.version]));
  const files = rows.flatMap(({ name, version }): [string, number][] =>
    name.startsWith(filePrefix) ? [[name.slice(filePrefix.length), version]] : [],
  );
  return {
    root: keys.root_version,
    onlineKeys: keys.online_keys,
    timestamp: versions.get('timestamp') ?? 0,
    snapshot: versions.get('snapshot') ?? 0,
    files: new Map(files),
  };
}

type RootKind = 'catalogue' | 'region';

/** Newest first. */
function acceptedRoots(db: SqlTx, kind: RootKind): Uint8Array[] {
  const sql = 'SELECT bytes FROM trust_roots WHERE kind = ? ORDER BY id DESC';
  return db.all<{ bytes: Uint8Array }>(sql, kind).map((row) => new Uint8Array(row.bytes));
}

function isAmong(roots: readonly Uint8Array[], root: Uint8Array): boolean {
  return roots.some((one) => Buffer.compare(one, root) === 0);
}

function putRoot(db: SqlTx, kind: RootKind, root: Uint8Array): void {
  // An older region root is not kept: its director's key may have been rotated out since, and no number in the
  // store would keep such a key from commanding the device again.
  if (kind === 'region') db.run("DELETE FROM trust_roots WHERE kind = 'region'");
  else if (isAmong(acceptedRoots(db, kind), root)) return;
  db.run('INSERT INTO trust_roots (kind, bytes) VALUES (?, ?)', kind, root);
}

/**
 * The root to start from: the one in force, or where it is torn or lost the newest one that still verifies. From
 * an older one the chain is walked again, and the floors see to it that it is walked to its end.
 */
function usableRoot(
  inForce: Uint8Array | null,
  accepted: readonly Uint8Array[],
  isWhole: (root: Uint8Array) => boolean,
): Uint8Array | null {
  const candidates = inForce === null ? accepted : [inForce, ...accepted];
  return candidates.find(isWhole) ?? candidates[0] ?? null;
}

/** `lepton-agent status` opens a store read-only, also one that no daemon has migrated yet. */
function hasNumbersAndRoots(db: SqlTx): boolean {
  return db.get("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'trust_roots'") !== undefined;
}

/** All that is held, or null before enrolment. */
export function loadTrust(store: Store): Promise<TrustRecord | null> {
  return store.tx((db) => {
    const isMigrated = hasNumbersAndRoots(db);
    const root = usableRoot(
      fileBytes(db, 'root'),
      isMigrated ? acceptedRoots(db, 'catalogue') : [],
      (bytes) => trustRoot(housePolicy, bytes).ok,
    );
    const regionRoot = usableRoot(
      fileBytes(db, 'region-root'),
      isMigrated ? acceptedRoots(db, 'region') : [],
      (bytes) => parseRegionRoot(bytes).ok,
    );
    if (root === null || regionRoot === null) return null;
    const [timestamp, snapshot, targets] = topFiles.map((name) => fileBytes(db, name));
    const delegated: Record<string, Uint8Array> = {};
    for (const row of db.all<{ name: string; bytes: Uint8Array }>(
      'SELECT name, bytes FROM trust_files WHERE substr(name, 1, ?) = ? ORDER BY name',
      delegatedPrefix.length,
      delegatedPrefix,
    )) {
      delegated[row.name.slice(delegatedPrefix.length)] = new Uint8Array(row.bytes);
    }
    const held = db.get<{ epoch: number; payload_sha256: string; envelope: string }>(
      'SELECT epoch, payload_sha256, envelope FROM trust_assignment WHERE id = 1',
    );
    const floors = isMigrated ? heldFloors(db) : null;
    return {
      catalogue: {
        root,
        timestamp: timestamp ?? null,
        snapshot: snapshot ?? null,
        targets: targets ?? null,
        delegated,
        ...(floors === null ? {} : { numbers: floors }),
      },
      regionRoot,
      assignment:
        held === undefined
          ? null
          : { epoch: held.epoch, payloadSha256: held.payload_sha256, envelope: held.envelope },
    };
  });
}

/**
 * Pins the roots received at enrolment, inside the transaction that stores the identity. A new identity
 * starts without an assignment: epochs are counted per device. Other metadata is kept where the root is
 * one that this device has accepted before, so that enrolling again does not undo the protection against
 * rollback; the newest root stays in force then.
 */
export function pinRoots(db: SqlTx, roots: { catalogue: Uint8Array; region: Uint8Array }): void {
  if (!isAmong(acceptedRoots(db, 'catalogue'), roots.catalogue)) {
    db.run('DELETE FROM trust_files');
    db.run('DELETE FROM trust_floors');
    db.run('DELETE FROM trust_floor_keys');
    db.run("DELETE FROM trust_roots WHERE kind = 'catalogue'");
    putFile(db, 'root', roots.catalogue);
    putRoot(db, 'catalogue', roots.catalogue);
  }
  pinRegion(db, roots.region);
}

/** Another region: its root, and no assignment, for epochs are counted in each. What was verified of the catalogue stays. */
export function pinRegion(db: SqlTx, root: Uint8Array): void {
  putFile(db, 'region-root', root);
  putRoot(db, 'region', root);
  db.run('DELETE FROM trust_assignment');
}

/** A verified successor of the catalogue's root. TUF 1.0 §5.3.8: stored before the next is asked for. */
export function saveRoot(store: Store, root: Uint8Array): Promise<void> {
  return store.tx((db) => {
    putFile(db, 'root', root);
    putRoot(db, 'catalogue', root);
  });
}

/** A verified successor of the region's root. */
export function saveRegionRoot(store: Store, root: Uint8Array): Promise<void> {
  return store.tx((db) => {
    putFile(db, 'region-root', root);
    putRoot(db, 'region', root);
  });
}

/** One refresh of the catalogue in one transaction. What the new state no longer has is forgotten. */
export function saveCatalogue(store: Store, state: TrustState): Promise<void> {
  return store.tx((db) => {
    db.run("DELETE FROM trust_files WHERE name <> 'region-root'");
    putFile(db, 'root', state.root);
    putRoot(db, 'catalogue', state.root);
    if (state.numbers !== undefined) putFloors(db, state.numbers);
    for (const name of topFiles) {
      const bytes = state[name];
      if (bytes !== null) putFile(db, name, bytes);
    }
    for (const [namespace, bytes] of Object.entries(state.delegated))
      putFile(db, delegatedPrefix + namespace, bytes);
  });
}

/** Puts an assignment in force. */
export function saveAssignment(store: Store, assignment: HeldAssignment): Promise<void> {
  return store.tx((db) => putAssignment(db, assignment));
}

export function putAssignment(db: SqlTx, assignment: HeldAssignment): void {
  db.run(
    `INSERT INTO trust_assignment (id, epoch, payload_sha256, envelope) VALUES (1, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, payload_sha256 = excluded.payload_sha256,
       envelope = excluded.envelope`,
    assignment.epoch,
    assignment.payloadSha256,
    assignment.envelope,
  );
}
