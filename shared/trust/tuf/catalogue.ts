// Why: what the device keeps of the catalogue, and what it says about a release. Usable without a network.
// Trusts: the pinned root in the state; everything else in it is verified again before it is used.
// Must never: answer from a file that the chain from the root does not reach.

import type { JsonValue } from '../../crypto/canonical-json.ts';
import { type ReleaseName, targetPath } from '../../kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../kernel/result.ts';
import { boundsOf, onlineKeysOf, type VersionFloors } from './floors.ts';
import type { RootFile, SnapshotMetadata, TimestampMetadata } from './format.ts';
import { housePolicy } from './house-policy.ts';
import type { TargetsMetadata } from './metadata.ts';
import { delegationOf, namespaceFile } from './namespaces.ts';
import {
  acceptTargets,
  acceptTopTargets,
  followSnapshot,
  followTimestamp,
  trustRoot,
} from './trusted-set.ts';

/** The exact bytes of the metadata a device holds; null where it has none yet. */
export interface TrustState {
  root: Uint8Array;
  timestamp: Uint8Array | null;
  snapshot: Uint8Array | null;
  targets: Uint8Array | null;
  /** By namespace. */
  delegated: Readonly<Record<string, Uint8Array>>;
  /**
   * The highest numbers seen, which bind even where the file they stood in is torn. Absent only before the first
   * refresh, and in a store from before there were any.
   */
  numbers?: VersionFloors;
  /** Namespaces whose metadata the last refresh refused, and why. Optional to keep. */
  refused?: Readonly<Record<string, Refusal>>;
}

export interface VerifiedCatalogue {
  root: RootFile;
  timestamp: TimestampMetadata;
  snapshot: SnapshotMetadata;
  targets: TargetsMetadata;
  delegated: ReadonlyMap<string, TargetsMetadata>;
}

/** What the catalogue says about a release. */
export interface CatalogueRelease {
  /** Of its manifest, hex. */
  sha256: string;
  /** Size of its manifest. */
  bytes: number;
  counter: number;
  /** Lowest counter of this model that may be assigned. */
  floor: number;
  /** Its publisher took it back: nobody installs it any more. */
  withdrawn: boolean;
  /** What it needs, as the publisher wrote it; null where it names nothing. */
  requires: JsonValue;
}

/**
 * Verifies a stored state from its root down, without network and without dates: expiry blocks new installs,
 * which start with a refresh, and never what runs. Refusals: `metadata-missing`, `metadata-malformed`,
 * `metadata-signature-invalid`, `metadata-digest-mismatch`, `metadata-version-invalid`, `metadata-rollback` (a
 * stored file is older than what was stored before).
 */
export function verifyStoredCatalogue(
  state: TrustState,
  namespaces: readonly string[] = Object.keys(state.delegated),
): Result<VerifiedCatalogue> {
  const root = trustRoot(housePolicy, state.root);
  if (!root.ok) return root;
  if (state.timestamp === null || state.snapshot === null || state.targets === null) {
    return refuse('metadata-missing', 'the catalogue was not refreshed yet');
  }
  const bounds = boundsOf(floorsInForce(state, root.value), null, null);
  const timestamp = followTimestamp(housePolicy, root.value, null, bounds, state.timestamp);
  if (!timestamp.ok) return timestamp;
  const snapshot = followSnapshot(housePolicy, root.value, timestamp.value, bounds, state.snapshot);
  if (!snapshot.ok) return snapshot;
  const targets = acceptTopTargets(housePolicy, root.value, snapshot.value, state.targets);
  if (!targets.ok) return targets;
  const delegated = new Map<string, TargetsMetadata>();
  for (const namespace of namespaces) {
    const bytes = Object.hasOwn(state.delegated, namespace) ? state.delegated[namespace] : undefined;
    if (bytes === undefined) continue;
    const accepted = acceptNamespace(snapshot.value, targets.value, namespace, bytes);
    if (!accepted.ok) return accepted;
    delegated.set(namespace, accepted.value);
  }
  return ok({
    root: root.value,
    timestamp: timestamp.value,
    snapshot: snapshot.value,
    targets: targets.value,
    delegated,
  });
}

/** The numbers, unless they were kept under online keys that this root does not name (§5.3.11). */
function floorsInForce(state: TrustState, root: RootFile): VersionFloors | null {
  return state.numbers?.onlineKeys === onlineKeysOf(root) ? state.numbers : null;
}

/**
 * What the catalogue in this state says about a release. Refusals: `target-unknown`, `metadata-missing` (the
 * state was not refreshed for its namespace), what the refresh refused the namespace for, and those of
 * `verifyStoredCatalogue`.
 */
export function findRelease(state: TrustState, release: ReleaseName): Result<CatalogueRelease> {
  const { namespace } = release;
  const catalogue = verifyStoredCatalogue(state, [namespace]);
  if (!catalogue.ok) return catalogue;
  const { snapshot, targets, delegated } = catalogue.value;
  if (delegationOf(targets, namespace) === null) {
    return refuse('target-unknown', `the catalogue has no namespace ${namespace}`);
  }
  if (!snapshot.files.has(namespaceFile(namespace))) {
    return refuse('target-unknown', `namespace ${namespace} has published nothing`);
  }
  const refusal =
    state.refused !== undefined && Object.hasOwn(state.refused, namespace) && state.refused[namespace];
  if (refusal) return { ok: false, refusal };
  const metadata = delegated.get(namespace);
  if (metadata === undefined) return refuse('metadata-missing', `not refreshed for namespace ${namespace}`);
  return releaseIn(metadata, release);
}

function releaseIn(metadata: TargetsMetadata, release: ReleaseName): Result<CatalogueRelease> {
  const entry = metadata.targets.get(targetPath(release));
  if (entry === undefined) return refuse('target-unknown', `no target ${targetPath(release)}`);
  const { sha256, bytes, counter, requires } = entry;
  if (counter === null) return refuse('metadata-malformed', `target ${targetPath(release)} has no counter`);
  const withdrawn = metadata.withdrawn.get(release.name)?.has(counter) ?? false;
  return ok({ sha256, bytes, counter, floor: metadata.floors.get(release.name) ?? 0, withdrawn, requires });
}

/** A namespace's targets: §5.6.2–5.6.4 with the keys that the top-level targets name for it. */
export function acceptNamespace(
  snapshot: SnapshotMetadata,
  targets: TargetsMetadata,
  namespace: string,
  bytes: Uint8Array,
): Result<TargetsMetadata> {
  return acceptTargets(
    housePolicy,
    snapshot,
    namespace,
    delegationOf(targets, namespace) ?? undefined,
    bytes,
  );
}
