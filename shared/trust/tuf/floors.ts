// Why: the version numbers a device has seen, kept apart from the files they stood in: a file that was torn or
// lost takes its number with it, and with that the protection against rollback (TUF 1.0.34 §5.4.3, §5.5.5).
// Trusts: numbers taken from files that were verified. Must never: let a number fall while its keys stand.

import { sha256Hex } from '../../crypto/digests.ts';
import type { RoleKeys, RootFile, SnapshotMetadata, TimestampMetadata } from './format.ts';

export interface VersionFloors {
  /** Version of the root that was in force. */
  root: number;
  /** Digest of the timestamp and snapshot keys that root names: the numbers bind as long as they do. */
  onlineKeys: string;
  timestamp: number;
  /** Version of the snapshot that the timestamp listed. */
  snapshot: number;
  /** Version of each file that the last snapshot listed, by file name without version. */
  files: ReadonlyMap<string, number>;
}

/** What names the online keys of a root, whatever ids and order they come in. */
export function onlineKeysOf(root: RootFile): string {
  const spelled = ['timestamp', 'snapshot'].map((role) => spellRole(root.roles.get(role))).join('\n');
  return sha256Hex(new TextEncoder().encode(spelled));
}

function spellRole(role: RoleKeys | undefined): string {
  const keys = (role?.keys ?? []).map((key) => Buffer.from(key.publicKey).toString('hex'));
  return [...new Set(keys)].sort().join(' ');
}

/** The numbers below which nothing is accepted. */
export type Bounds = Pick<VersionFloors, 'timestamp' | 'snapshot' | 'files'>;

export const noBounds: Bounds = { timestamp: 0, snapshot: 0, files: new Map() };

/** The higher number of each, from the floors and from the stored files that still verify. */
export function boundsOf(
  floors: VersionFloors | null,
  timestamp: TimestampMetadata | null,
  snapshot: SnapshotMetadata | null,
): Bounds {
  const files = new Map(floors?.files ?? []);
  for (const [name, file] of snapshot?.files ?? []) {
    files.set(name, Math.max(file.version, files.get(name) ?? 0));
  }
  return {
    timestamp: Math.max(floors?.timestamp ?? 0, timestamp?.version ?? 0),
    snapshot: Math.max(floors?.snapshot ?? 0, timestamp?.snapshot.version ?? 0, snapshot?.version ?? 0),
    files,
  };
}

/** What to keep once this timestamp is trusted, and this snapshot; null while it is not fetched yet. */
export function raisedFloors(
  root: RootFile,
  bounds: Bounds,
  timestamp: TimestampMetadata,
  snapshot: SnapshotMetadata | null,
): VersionFloors {
  return {
    root: root.version,
    onlineKeys: onlineKeysOf(root),
    timestamp: timestamp.version,
    snapshot: timestamp.snapshot.version,
    files:
      snapshot === null
        ? bounds.files
        : new Map([...snapshot.files].map(([name, file]) => [name, file.version])),
  };
}
