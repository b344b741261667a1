// Why: the client workflow of TUF 1.0.34 §5.3–5.6 for the top-level roles, in its order, under any policy.
// Trusts: the stored root; the fetcher for nothing but bytes. Must never: step back from a number it has seen,
// whether or not the file it stood in is still whole.

import { limits } from '../../kernel/limits.ts';
import { ok, type Refusal, type Result, refuse } from '../../kernel/result.ts';
import { type Bounds, boundsOf, noBounds, onlineKeysOf, raisedFloors, type VersionFloors } from './floors.ts';
import type { MetadataHead, MetaFile, RootFile, SnapshotMetadata, TimestampMetadata } from './format.ts';
import type { AnyTargets, TufPolicy } from './policy.ts';
import {
  acceptTopTargets,
  checkFresh,
  followRoot,
  followSnapshot,
  followTimestamp,
  hasRotatedOnlineKeys,
  readHeldSnapshot,
  readHeldTimestamp,
  trustRoot,
} from './trusted-set.ts';

export interface MetadataFetcher {
  /**
   * The file of that name: `2.root.json`, `timestamp.json`, `5.snapshot.json`, `3.targets.json`, `7.acme.json`.
   * Gives up beyond `bytesMax` (`metadata-too-large`); `metadata-missing` only where the registry says that it
   * has no such file, never where it could not be asked.
   */
  fetch(name: string, bytesMax: number): Promise<Result<Uint8Array>>;
}

/** Exact bytes of what is held; null where there is none. Any of them may be torn. */
export interface HeldFiles {
  root: Uint8Array;
  timestamp: Uint8Array | null;
  snapshot: Uint8Array | null;
  targets: Uint8Array | null;
  floors: VersionFloors | null;
}

export type KeptRole = 'root' | 'timestamp' | 'snapshot' | 'targets';

export interface UpdateParts<T extends AnyTargets> {
  policy: TufPolicy<T>;
  held: HeldFiles;
  fetcher: MetadataFetcher;
  /** §5.1: the fixed start time of the update; every expiry is judged by it. */
  nowMs: number;
  /** Each root (§5.3.8), stored before the next is asked for, so that a rotation is never walked twice. */
  saveRoot(bytes: Uint8Array): Promise<void>;
  /**
   * §5.4.5, §5.5.7, §5.6.6: each other file as soon as it is trusted, with the numbers that bind from then on.
   * Absent where the caller stores the whole at the end, in one transaction.
   */
  save?(role: KeptRole, bytes: Uint8Array, floors: VersionFloors): Promise<void>;
}

export interface Updated<T> {
  root: RootFile;
  timestamp: TimestampMetadata;
  snapshot: SnapshotMetadata;
  targets: T;
  floors: VersionFloors;
}

/**
 * The top-level metadata as it stands now. Refusals: every `metadata-…` code, `state-corrupt` (no root to start
 * from), and the fetcher's own, such as `bus-offline`.
 */
export async function updateTopLevel<T extends AnyTargets>(
  parts: UpdateParts<T>,
): Promise<Result<Updated<T>>> {
  const rooted = await updateRoot(parts);
  if (!rooted.ok) return rooted;
  const { root } = rooted.value;
  const held = rooted.value.rotated ? forgotten : readHeld(parts, root);

  const timestamp = await updateTimestamp(parts, root, held);
  if (!timestamp.ok) return timestamp;
  const announced = raisedFloors(root, held.bounds, timestamp.value, null);
  await saveNew(parts, 'timestamp', timestamp.value, announced);

  const snapshot = await updateSnapshot(parts, root, timestamp.value, held);
  if (!snapshot.ok) return snapshot;
  const floors = raisedFloors(root, held.bounds, timestamp.value, snapshot.value);
  await saveNew(parts, 'snapshot', snapshot.value, floors);

  const targets = await updateTargets(parts, root, snapshot.value);
  if (!targets.ok) return targets;
  await saveNew(parts, 'targets', targets.value, floors);
  return ok({
    root,
    timestamp: timestamp.value,
    snapshot: snapshot.value,
    targets: targets.value,
    floors,
  });
}

async function saveNew(
  parts: UpdateParts<AnyTargets>,
  role: Exclude<KeptRole, 'root'>,
  metadata: MetadataHead,
  floors: VersionFloors,
): Promise<void> {
  const { floors: before, [role]: held } = parts.held;
  const isHeld = held !== null && Buffer.compare(held, metadata.bytes) === 0;
  // The numbers may be new although the file is not: an old store has none yet, a new root renames their keys.
  if (!isHeld || before?.root !== floors.root) await parts.save?.(role, metadata.bytes, floors);
}

/** §5.3: walks the chain of roots to the last one the registry has. */
async function updateRoot(
  parts: UpdateParts<AnyTargets>,
): Promise<Result<{ root: RootFile; rotated: boolean }>> {
  const { policy, held } = parts;
  const pinned = trustRoot(policy, held.root);
  if (!pinned.ok) return corrupt(pinned);
  let root = pinned.value;
  let rotated = false;
  for (let walked = 0; ; walked += 1) {
    // §5.3.3: the number of roots in one refresh is bounded.
    if (walked === limits.rootRotationsMax)
      return refuse('metadata-too-large', 'more root rotations than the limit');
    const bytes = await fetchFile(parts, `${root.version + 1}.root.json`, limits.rootBytesMax);
    if (!bytes.ok && bytes.refusal.code === 'metadata-missing') break;
    if (!bytes.ok) return bytes;
    const next = followRoot(policy, root, bytes.value);
    if (!next.ok) return next;
    // After a torn root the walk begins further back: rotations seen before do not free the numbers again.
    if (held.floors === null || next.value.version > held.floors.root)
      rotated ||= hasRotatedOnlineKeys(root, next.value);
    root = next.value;
    // §5.3.8: kept at once, whatever comes of the rest.
    await parts.saveRoot(root.bytes);
  }
  // Whoever serves no more than an older root would bring back keys that were rotated out since.
  if (held.floors !== null && root.version < held.floors.root)
    return refuse(
      'metadata-rollback',
      `root ${root.version} is the last one served, after ${held.floors.root}`,
    );
  // §5.3.10: freeze attack; only the last root's expiry counts.
  const fresh = checkFresh(root, parts.nowMs, 'root');
  return fresh.ok ? ok({ root, rotated }) : fresh;
}

/** What was stored was verified before: if it does not even parse now, the disk failed, nobody attacked. */
function corrupt(result: { ok: false; refusal: Refusal }): { ok: false; refusal: Refusal } {
  if (result.refusal.code !== 'metadata-malformed') return result;
  return refuse('state-corrupt', `stored metadata: ${result.refusal.detail}`);
}

interface HeldNumbers {
  timestamp: TimestampMetadata | null;
  bounds: Bounds;
}

const forgotten: HeldNumbers = { timestamp: null, bounds: noBounds };

/**
 * What may not be undercut: the numbers kept apart and those of the stored files that still verify. A file that
 * is torn is fetched again and its number goes on binding. Both kinds are forgotten where the online keys are no
 * longer those they were kept under (§5.3.11, recovery from a fast-forward attack), also when the power failed
 * between the new root and the rest.
 */
function readHeld(parts: UpdateParts<AnyTargets>, root: RootFile): HeldNumbers {
  const { policy, held } = parts;
  if (held.floors !== null && held.floors.onlineKeys !== onlineKeysOf(root)) return forgotten;
  const timestamp = held.timestamp === null ? null : readHeldTimestamp(policy, root, held.timestamp);
  const snapshot = held.snapshot === null ? null : readHeldSnapshot(policy, root, held.snapshot);
  if (held.floors === null && (timestamp?.is === 'unsigned' || snapshot?.is === 'unsigned')) {
    // A store from before there were floors: only the signatures tell that the keys have changed.
    return forgotten;
  }
  const signedTimestamp = timestamp?.is === 'signed' ? timestamp.metadata : null;
  const signedSnapshot = snapshot?.is === 'signed' ? snapshot.metadata : null;
  return { timestamp: signedTimestamp, bounds: boundsOf(held.floors, signedTimestamp, signedSnapshot) };
}

/** §5.4 */
async function updateTimestamp(
  parts: UpdateParts<AnyTargets>,
  root: RootFile,
  held: HeldNumbers,
): Promise<Result<TimestampMetadata>> {
  const bytes = await fetchFile(parts, 'timestamp.json', limits.timestampBytesMax);
  if (!bytes.ok) return bytes;
  const timestamp = followTimestamp(parts.policy, root, held.timestamp, held.bounds, bytes.value);
  if (!timestamp.ok) return timestamp;
  const fresh = checkFresh(timestamp.value, parts.nowMs, 'timestamp');
  return fresh.ok ? timestamp : fresh;
}

/** §5.5 */
async function updateSnapshot(
  parts: UpdateParts<AnyTargets>,
  root: RootFile,
  timestamp: TimestampMetadata,
  held: HeldNumbers,
): Promise<Result<SnapshotMetadata>> {
  const accept = (bytes: Uint8Array): Result<SnapshotMetadata> =>
    followSnapshot(parts.policy, root, timestamp, held.bounds, bytes);
  const file = { name: 'snapshot', meta: timestamp.snapshot, bytesMax: limits.snapshotBytesMax };
  return fetchListed(parts, root, file, parts.held.snapshot, accept);
}

/** §5.6 for the top-level role */
async function updateTargets<T extends AnyTargets>(
  parts: UpdateParts<T>,
  root: RootFile,
  snapshot: SnapshotMetadata,
): Promise<Result<T>> {
  const meta = snapshot.files.get('targets.json');
  if (meta === undefined) return refuse('metadata-malformed', 'snapshot does not list targets.json');
  const accept = (bytes: Uint8Array): Result<T> => acceptTopTargets(parts.policy, root, snapshot, bytes);
  const file = { name: 'targets', meta, bytesMax: limits.targetsBytesMax };
  return fetchListed(parts, root, file, parts.held.targets, accept);
}

/**
 * A file that another one lists: the stored bytes where they still are what is listed, else fetched, with
 * consistent snapshots under its versioned name (§5.5.1, §5.6.1). Its expiry is checked either way.
 */
export async function fetchListed<T extends MetadataHead>(
  parts: Pick<UpdateParts<AnyTargets>, 'fetcher' | 'nowMs'>,
  root: RootFile,
  file: { name: string; meta: MetaFile; bytesMax: number },
  held: Uint8Array | null,
  accept: (bytes: Uint8Array) => Result<T>,
): Promise<Result<T>> {
  const { name, meta } = file;
  let accepted: Result<T> =
    held === null ? refuse('metadata-missing', `${name} is not stored`) : accept(held);
  if (!accepted.ok) {
    if (meta.bytes !== null && meta.bytes > file.bytesMax) {
      return refuse(
        'metadata-too-large',
        `${name}: ${meta.bytes} bytes are listed, ${file.bytesMax} are the limit`,
      );
    }
    const served = root.consistentSnapshots ? `${meta.version}.${name}.json` : `${name}.json`;
    const bytes = await fetchFile(parts, served, meta.bytes ?? file.bytesMax);
    if (!bytes.ok) return bytes;
    accepted = accept(bytes.value);
  }
  if (!accepted.ok) return accepted;
  const fresh = checkFresh(accepted.value, parts.nowMs, name);
  return fresh.ok ? accepted : fresh;
}

/** Endless data attack: a fetcher that gives more than it was asked for is not believed. */
async function fetchFile(
  parts: Pick<UpdateParts<AnyTargets>, 'fetcher'>,
  name: string,
  bytesMax: number,
): Promise<Result<Uint8Array>> {
  const fetched = await parts.fetcher.fetch(name, bytesMax);
  if (!fetched.ok || fetched.value.length <= bytesMax) return fetched;
  return refuse('metadata-too-large', `${name}: more than ${bytesMax} bytes`);
}
