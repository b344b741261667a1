// Why: one refresh of the house's catalogue: the client workflow of TUF 1.0.34 §5.3–5.6 in its order, with one
// delegated role for each namespace. Trusts: the stored state's root; the fetcher for nothing but bytes.
// Must never: hand back a state of which one file was not verified, or step back from a stored number.

import { limits } from '../../kernel/limits.ts';
import { ok, type Refusal, type Result } from '../../kernel/result.ts';
import { acceptNamespace, type TrustState } from './catalogue.ts';
import { housePolicy } from './house-policy.ts';
import type { TargetsMetadata } from './metadata.ts';
import { delegationOf, namespaceFile } from './namespaces.ts';
import { fetchListed, type MetadataFetcher, type Updated, updateTopLevel } from './update.ts';

export {
  type CatalogueRelease,
  findRelease,
  type TrustState,
  type VerifiedCatalogue,
  verifyStoredCatalogue,
} from './catalogue.ts';
export type { VersionFloors } from './floors.ts';
export type { MetadataFetcher } from './update.ts';

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
 * Files of the state that are torn or missing are fetched again. Refusals: every `metadata-…` code,
 * `state-corrupt` (the stored root is no metadata any more), and the fetcher's own, such as `bus-offline`.
 */
export async function refreshCatalogue(parts: RefreshParts): Promise<Result<TrustState>> {
  const { state, fetcher, nowMs, saveRoot } = parts;
  const { root, timestamp, snapshot, targets } = state;
  const updated = await updateTopLevel({
    policy: housePolicy,
    held: { root, timestamp, snapshot, targets, floors: state.numbers ?? null },
    fetcher,
    nowMs,
    saveRoot,
  });
  if (!updated.ok) return updated;
  const delegated = await refreshNamespaces(parts, updated.value);
  if (!delegated.ok) return delegated;
  return ok({
    root: updated.value.root.bytes,
    timestamp: updated.value.timestamp.bytes,
    snapshot: updated.value.snapshot.bytes,
    targets: updated.value.targets.bytes,
    numbers: updated.value.floors,
    ...delegated.value,
  });
}

/** §5.6 for the delegated roles. What the device holds of other namespaces is kept while it is still listed. */
async function refreshNamespaces(
  parts: RefreshParts,
  { root, snapshot, targets }: Updated<TargetsMetadata>,
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
    const accepted = await fetchListed(parts, root, file, held, accept);
    if (accepted.ok) delegated[namespace] = accepted.value.bytes;
    else if (accepted.refusal.code.startsWith('metadata-')) refused[namespace] = accepted.refusal;
    else return accepted;
  }
  return ok({ delegated, refused });
}
