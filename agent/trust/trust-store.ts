// Why: what this device has verified, kept over restarts: metadata as exact bytes, the assignment in
// force. Trusts: its own database, and callers to have verified what they store.
// Must never: hold half of a refresh; every change is one transaction.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Migration } from '../../shared/host/sqlite.ts';
import type { SqlTx, Store } from '../../shared/kernel/ports.ts';
import type { TrustState } from '../../shared/trust/tuf/client.ts';

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

/** All that is held, or null before enrolment. */
export function loadTrust(store: Store): Promise<TrustRecord | null> {
  return store.tx((db) => {
    const root = fileBytes(db, 'root');
    const regionRoot = fileBytes(db, 'region-root');
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
    return {
      catalogue: {
        root,
        timestamp: timestamp ?? null,
        snapshot: snapshot ?? null,
        targets: targets ?? null,
        delegated,
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
 * the one already held, so that enrolling again does not undo the protection against rollback.
 */
export function pinRoots(db: SqlTx, roots: { catalogue: Uint8Array; region: Uint8Array }): void {
  const held = fileBytes(db, 'root');
  if (held === null || sha256Hex(held) !== sha256Hex(roots.catalogue)) {
    db.run('DELETE FROM trust_files');
    putFile(db, 'root', roots.catalogue);
  }
  putFile(db, 'region-root', roots.region);
  db.run('DELETE FROM trust_assignment');
}

/** A verified successor of the catalogue's root. TUF 1.0 §5.3.8: stored before the next is asked for. */
export function saveRoot(store: Store, root: Uint8Array): Promise<void> {
  return store.tx((db) => putFile(db, 'root', root));
}

/** A verified successor of the region's root. */
export function saveRegionRoot(store: Store, root: Uint8Array): Promise<void> {
  return store.tx((db) => putFile(db, 'region-root', root));
}

/** One refresh of the catalogue in one transaction. What the new state no longer has is forgotten. */
export function saveCatalogue(store: Store, state: TrustState): Promise<void> {
  return store.tx((db) => {
    db.run("DELETE FROM trust_files WHERE name <> 'region-root'");
    putFile(db, 'root', state.root);
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
