// Why: one refresh of the catalogue: the client workflow of TUF 1.0.34 §5.3–5.6 in its order.
// Trusts: the stored state's root; the fetcher for nothing but bytes.
// Must never: hand back a state of which one file was not verified, or step back from a stored number.

import { limits } from '../../kernel/limits.ts';
import { ok, type Refusal, type Result, refuse } from '../../kernel/result.ts';
import { acceptNamespace, acceptTopTargets, type TrustState } from './catalogue.ts';
import {
  type MetaFile,
  parseSnapshot,
  parseTimestamp,
  type RootMetadata,
  type SnapshotMetadata,
  type TargetsMetadata,
  type TimestampMetadata,
} from './metadata.ts';
import { delegationOf, namespaceFile } from './namespaces.ts';
import { checkThreshold } from './signatures.ts';
import {
  checkFresh,
  followRoot,
  followSnapshot,
  followTimestamp,
  hasRotatedOnlineKeys,
  trustRoot,
} from './trusted-set.ts';

export {
  type CatalogueRelease,
  findRelease,
  type TrustState,
  type VerifiedCatalogue,
  verifyStoredCatalogue,
} from './catalogue.ts';

export interface MetadataFetcher {
  /**
   * The file of that name: `2.root.json`, `timestamp.json`, `5.snapshot.json`, `3.targets.json`, `7.acme.json`.
   * Gives up beyond `bytesMax` (`metadata-too-large`); `metadata-missing` only where the registry says that it
   * has no such file, never where it could not be asked.
   */
  fetch(name: string, bytesMax: number): Promise<Result<Uint8Array>>;
}

export interface RefreshParts {
  state: TrustState;
  fetcher: MetadataFetcher;
  nowMs: number;
  /** Namespaces whose releases are wanted. Those that the catalogue does not have are left out. */
  namespaces: readonly string[];
  /** Stores each new root at once (§5.3.8), so that a rotation is never walked twice. */
  saveRoot: (root: Uint8Array) => Promise<void>;
}

/**
 * Refreshes the catalogue. The state that comes back is whole and verified; store it in one transaction. A
 * namespace whose own metadata is refused (expired, forged) does not hold up the others: it is in `refused`.
 * Refusals: every `metadata-…` code, `state-corrupt` (a stored file that is no metadata any more: without it a
 * rollback could not be seen), and the fetcher's own, such as `bus-offline`.
 */
export async function refreshCatalogue(parts: RefreshParts): Promise<Result<TrustState>> {
  const rooted = await refreshRoot(parts);
  if (!rooted.ok) return rooted;
  const { root } = rooted.value;
  const stored = rooted.value.rotated ? ok(nothing) : readStored(root, parts.state);
  if (!stored.ok) return stored;

  const timestamp = await refreshTimestamp(parts, root, stored.value.timestamp);
  if (!timestamp.ok) return timestamp;
  const snapshot = await refreshSnapshot(parts, root, timestamp.value, stored.value.snapshot);
  if (!snapshot.ok) return snapshot;
  const targets = await refreshTargets(parts, root, snapshot.value);
  if (!targets.ok) return targets;
  const delegated = await refreshNamespaces(parts, snapshot.value, targets.value);
  if (!delegated.ok) return delegated;
  return ok({
    root: root.bytes,
    timestamp: timestamp.value.bytes,
    snapshot: snapshot.value.bytes,
    targets: targets.value.bytes,
    ...delegated.value,
  });
}

/** §5.3: walks the chain of roots to the last one the registry has. */
async function refreshRoot(parts: RefreshParts): Promise<Result<{ root: RootMetadata; rotated: boolean }>> {
  const pinned = trustRoot(parts.state.root);
  if (!pinned.ok) return stored(pinned);
  let root = pinned.value;
  let rotated = false;
  for (let walked = 0; ; walked += 1) {
    // §5.3.3: the number of roots in one refresh is bounded.
    if (walked === limits.rootRotationsMax)
      return refuse('metadata-too-large', 'more root rotations than the limit');
    const bytes = await fetchFile(parts, `${root.version + 1}.root.json`, limits.rootBytesMax);
    if (!bytes.ok && bytes.refusal.code === 'metadata-missing') break;
    if (!bytes.ok) return bytes;
    const next = followRoot(root, bytes.value);
    if (!next.ok) return next;
    rotated ||= hasRotatedOnlineKeys(root, next.value);
    root = next.value;
    // §5.3.8: kept at once, whatever comes of the rest.
    await parts.saveRoot(root.bytes);
  }
  // §5.3.10: freeze attack; only the last root's expiry counts.
  const fresh = checkFresh(root, parts.nowMs, 'root');
  return fresh.ok ? ok({ root, rotated }) : fresh;
}

interface StoredNumbers {
  timestamp: TimestampMetadata | null;
  snapshot: SnapshotMetadata | null;
}

const nothing: StoredNumbers = { timestamp: null, snapshot: null };

/**
 * The stored timestamp and snapshot, whose numbers may not be undercut. Where the current root's keys did not
 * sign them, the root was rotated and saved and the power failed before the rest: §5.3.11 forgets both.
 */
function readStored(root: RootMetadata, state: TrustState): Result<StoredNumbers> {
  const timestamp = state.timestamp === null ? ok(null) : parseTimestamp(state.timestamp);
  if (!timestamp.ok) return stored(timestamp);
  const snapshot = state.snapshot === null ? ok(null) : parseSnapshot(state.snapshot);
  if (!snapshot.ok) return stored(snapshot);
  const numbers = { timestamp: timestamp.value, snapshot: snapshot.value };
  const isSigned = [
    numbers.timestamp === null ||
      checkThreshold(numbers.timestamp, root.roles.get('timestamp'), 'timestamp').ok,
    numbers.snapshot === null || checkThreshold(numbers.snapshot, root.roles.get('snapshot'), 'snapshot').ok,
  ];
  return ok(isSigned.every(Boolean) ? numbers : nothing);
}

/** What was stored was verified before: if it does not even parse now, the disk failed, nobody attacked. */
function stored(result: { ok: false; refusal: Refusal }): { ok: false; refusal: Refusal } {
  if (result.refusal.code !== 'metadata-malformed') return result;
  return refuse('state-corrupt', `stored metadata: ${result.refusal.detail}`);
}

/** §5.4 */
async function refreshTimestamp(
  parts: RefreshParts,
  root: RootMetadata,
  trusted: TimestampMetadata | null,
): Promise<Result<TimestampMetadata>> {
  const bytes = await fetchFile(parts, 'timestamp.json', limits.timestampBytesMax);
  if (!bytes.ok) return bytes;
  const timestamp = followTimestamp(root, trusted, bytes.value);
  if (!timestamp.ok) return timestamp;
  const fresh = checkFresh(timestamp.value, parts.nowMs, 'timestamp');
  return fresh.ok ? timestamp : fresh;
}

/** §5.5 */
async function refreshSnapshot(
  parts: RefreshParts,
  root: RootMetadata,
  timestamp: TimestampMetadata,
  trusted: SnapshotMetadata | null,
): Promise<Result<SnapshotMetadata>> {
  const follow = (bytes: Uint8Array): Result<SnapshotMetadata> =>
    followSnapshot(root, timestamp, trusted, bytes);
  const file = { name: 'snapshot', meta: timestamp.snapshot, bytesMax: limits.snapshotBytesMax };
  return fetchListed(parts, file, trusted?.bytes ?? null, follow);
}

/** §5.6 for the top-level role */
async function refreshTargets(
  parts: RefreshParts,
  root: RootMetadata,
  snapshot: SnapshotMetadata,
): Promise<Result<TargetsMetadata>> {
  const meta = snapshot.files.get('targets.json');
  if (meta === undefined) return refuse('metadata-malformed', 'snapshot does not list targets.json');
  const accept = (bytes: Uint8Array): Result<TargetsMetadata> => acceptTopTargets(root, snapshot, bytes);
  const file = { name: 'targets', meta, bytesMax: limits.targetsBytesMax };
  return fetchListed(parts, file, parts.state.targets, accept);
}

/** §5.6 for the delegated roles. What the device holds of other namespaces is kept while it is still listed. */
async function refreshNamespaces(
  parts: RefreshParts,
  snapshot: SnapshotMetadata,
  targets: TargetsMetadata,
): Promise<Result<Required<Pick<TrustState, 'delegated' | 'refused'>>>> {
  const delegated: Record<string, Uint8Array> = {};
  const refused: Record<string, Refusal> = {};
  for (const [namespace, bytes] of Object.entries(parts.state.delegated)) {
    if (parts.namespaces.includes(namespace)) continue;
    if (acceptNamespace(snapshot, targets, namespace, bytes).ok) delegated[namespace] = bytes;
  }
  for (const namespace of new Set(parts.namespaces)) {
    const meta = snapshot.files.get(namespaceFile(namespace));
    if (meta === undefined || delegationOf(targets, namespace) === null) continue;
    const held = Object.hasOwn(parts.state.delegated, namespace)
      ? (parts.state.delegated[namespace] ?? null)
      : null;
    const accept = (bytes: Uint8Array): Result<TargetsMetadata> =>
      acceptNamespace(snapshot, targets, namespace, bytes);
    const file = { name: namespace, meta, bytesMax: limits.targetsBytesMax };
    const accepted = await fetchListed(parts, file, held, accept);
    if (accepted.ok) delegated[namespace] = accepted.value.bytes;
    else if (accepted.refusal.code.startsWith('metadata-')) refused[namespace] = accepted.refusal;
    else return accepted;
  }
  return ok({ delegated, refused });
}

/**
 * A file that another one lists: the stored bytes where they still are what is listed, else fetched under its
 * versioned name (consistent snapshots, §5.5.1, §5.6.1). Its expiry is checked either way.
 */
async function fetchListed<T extends TargetsMetadata | SnapshotMetadata>(
  parts: RefreshParts,
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
    const bytes = await fetchFile(parts, `${meta.version}.${name}.json`, meta.bytes ?? file.bytesMax);
    if (!bytes.ok) return bytes;
    accepted = accept(bytes.value);
  }
  if (!accepted.ok) return accepted;
  const fresh = checkFresh(accepted.value, parts.nowMs, name);
  return fresh.ok ? accepted : fresh;
}

/** Endless data attack: a fetcher that gives more than it was asked for is not believed. */
async function fetchFile(parts: RefreshParts, name: string, bytesMax: number): Promise<Result<Uint8Array>> {
  const fetched = await parts.fetcher.fetch(name, bytesMax);
  if (!fetched.ok || fetched.value.length <= bytesMax) return fetched;
  return refuse('metadata-too-large', `${name}: more than ${bytesMax} bytes`);
}
