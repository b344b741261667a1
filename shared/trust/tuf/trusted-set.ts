// Why: may this metadata file be trusted, given what is trusted already? Each check of the client workflow
// (TUF 1.0.34 §5.3–5.6) on its own line, with its step and the attack it stops. No fetching, no storing.
// Trusts: the metadata passed as trusted; never the new bytes.
// Must never: act on the content of new bytes before their listing and their signatures were checked.

import { ok, type Result, refuse } from '../../kernel/result.ts';
import { type Bounds, onlineKeysOf } from './floors.ts';
import {
  hasListedDigests,
  type MetadataHead,
  type MetaFile,
  type RoleKeys,
  type RootFile,
  readSnapshot,
  readTimestamp,
  type SnapshotMetadata,
  type TimestampMetadata,
} from './format.ts';
import type { AnyTargets, TufPolicy } from './policy.ts';
import { checkThreshold } from './signatures.ts';

type Policy = TufPolicy<AnyTargets>;

/** The root a device starts from: pinned or stored, and still signed by its own keys. */
export function trustRoot(policy: Policy, bytes: Uint8Array): Result<RootFile> {
  const root = policy.parseRoot(bytes);
  if (!root.ok) return root;
  const signed = checkThreshold(root.value, root.value.roles.get('root'), 'root', policy.verify);
  return signed.ok ? root : signed;
}

/** §5.3.4–5.3.5: the root that follows the trusted one. Its expiry does not matter while there may be a next. */
export function followRoot(policy: Policy, trusted: RootFile, bytes: Uint8Array): Result<RootFile> {
  const parsed = policy.parseRoot(bytes);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  // §5.3.4: arbitrary software attack; both generations of keys must agree.
  const byOld = checkThreshold(next, trusted.roles.get('root'), 'root, by the keys before', policy.verify);
  if (!byOld.ok) return byOld;
  const byNew = checkThreshold(next, next.roles.get('root'), 'root, by its own keys', policy.verify);
  if (!byNew.ok) return byNew;
  // §5.3.5: rollback attack; exactly one version on.
  if (next.version !== trusted.version + 1) {
    return refuse(
      'metadata-version-invalid',
      `root ${next.version} where ${trusted.version + 1} must follow`,
    );
  }
  return parsed;
}

/** §5.3.11: whether the online roles got other keys, so that numbers signed by the old ones bind no longer. */
export function hasRotatedOnlineKeys(before: RootFile, after: RootFile): boolean {
  return onlineKeysOf(before) !== onlineKeysOf(after);
}

/** §5.3.10, §5.4.4, §5.5.6, §5.6.5: freeze attack; nothing expired is installed from. Refusal: `metadata-expired`. */
export function checkFresh(metadata: MetadataHead, nowMs: number, what: string): Result<void> {
  return metadata.expiresAtMs > nowMs
    ? ok()
    : refuse('metadata-expired', `${what} ${metadata.version} has expired`);
}

/** Whether a stored timestamp or snapshot is still what its role signed; null for a torn or foreign file. */
export function readHeldTimestamp(
  policy: Policy,
  root: RootFile,
  bytes: Uint8Array,
): HeldFile<TimestampMetadata> {
  return judgeHeld(policy, root, 'timestamp', readTimestamp(policy, bytes));
}

export function readHeldSnapshot(
  policy: Policy,
  root: RootFile,
  bytes: Uint8Array,
): HeldFile<SnapshotMetadata> {
  return judgeHeld(policy, root, 'snapshot', readSnapshot(policy, bytes));
}

/** `torn`: the disk failed. `unsigned`: whole, but not by the keys of the root in force. */
export type HeldFile<T> = { is: 'signed'; metadata: T } | { is: 'torn' } | { is: 'unsigned' };

function judgeHeld<T extends MetadataHead>(
  policy: Policy,
  root: RootFile,
  role: string,
  parsed: Result<T>,
): HeldFile<T> {
  if (!parsed.ok) return { is: 'torn' };
  const signed = checkThreshold(parsed.value, root.roles.get(role), role, policy.verify);
  return signed.ok ? { is: 'signed', metadata: parsed.value } : { is: 'unsigned' };
}

/** §5.4.2–5.4.3: the newer timestamp, or the trusted one where the new one has the same version. */
export function followTimestamp(
  policy: Policy,
  root: RootFile,
  trusted: TimestampMetadata | null,
  bounds: Bounds,
  bytes: Uint8Array,
): Result<TimestampMetadata> {
  const parsed = readTimestamp(policy, bytes);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  // §5.4.2: arbitrary software attack.
  const signed = checkThreshold(next, root.roles.get('timestamp'), 'timestamp', policy.verify);
  if (!signed.ok) return signed;
  // §5.4.3.1: rollback attack on the timestamp itself.
  if (next.version < bounds.timestamp) {
    return refuse('metadata-rollback', `timestamp ${next.version} after ${bounds.timestamp}`);
  }
  // §5.4.3.1: the same version again is no news and no error.
  if (next.version === trusted?.version) return ok(trusted);
  // §5.4.3.2: rollback attack on the snapshot.
  if (next.snapshot.version < bounds.snapshot) {
    return refuse(
      'metadata-rollback',
      `timestamp lists snapshot ${next.snapshot.version} after ${bounds.snapshot}`,
    );
  }
  return parsed;
}

/** §5.5.2–5.5.5: the snapshot that the timestamp lists. */
export function followSnapshot(
  policy: Policy,
  root: RootFile,
  timestamp: TimestampMetadata,
  bounds: Bounds,
  bytes: Uint8Array,
): Result<SnapshotMetadata> {
  // §5.5.2: mix-and-match and arbitrary software attacks.
  const listed = checkListed(policy, bytes, timestamp.snapshot, 'snapshot');
  if (!listed.ok) return listed;
  const parsed = readSnapshot(policy, bytes);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  // §5.5.3: arbitrary software attack.
  const signed = checkThreshold(next, root.roles.get('snapshot'), 'snapshot', policy.verify);
  if (!signed.ok) return signed;
  // §5.5.4: mix-and-match attack.
  const version = checkVersion(next, timestamp.snapshot, 'snapshot');
  if (!version.ok) return version;
  // §5.5.5: rollback attack on any targets file, and on its presence.
  for (const [name, before] of bounds.files) {
    const now = next.files.get(name);
    if (now === undefined) return refuse('metadata-rollback', `snapshot lists ${name} no longer`);
    if (now.version < before) {
      return refuse('metadata-rollback', `snapshot lists ${name} ${now.version} after ${before}`);
    }
  }
  return parsed;
}

/**
 * §5.6.2–5.6.4: a targets file, top-level or delegated, that the snapshot lists under `name` + `.json`. `role`
 * are the keys by which whoever delegates to it knows it.
 */
export function acceptTargets<T extends AnyTargets>(
  policy: TufPolicy<T>,
  snapshot: SnapshotMetadata,
  name: string,
  role: RoleKeys | undefined,
  bytes: Uint8Array,
): Result<T> {
  const meta = snapshot.files.get(`${name}.json`);
  if (meta === undefined) return refuse('metadata-missing', `snapshot does not list ${name}.json`);
  // §5.6.2: mix-and-match and arbitrary software attacks.
  const listed = checkListed(policy, bytes, meta, name);
  if (!listed.ok) return listed;
  const parsed = policy.parseTargets(bytes);
  if (!parsed.ok) return parsed;
  // §5.6.3: arbitrary software attack.
  const signed = checkThreshold(parsed.value, role, name, policy.verify);
  if (!signed.ok) return signed;
  // §5.6.4: mix-and-match attack.
  const version = checkVersion(parsed.value, meta, name);
  return version.ok ? parsed : version;
}

/** Top-level targets: §5.6.2–5.6.4, then what the policy demands of them. */
export function acceptTopTargets<T extends AnyTargets>(
  policy: TufPolicy<T>,
  root: RootFile,
  snapshot: SnapshotMetadata,
  bytes: Uint8Array,
): Result<T> {
  const targets = acceptTargets(policy, snapshot, 'targets', root.roles.get('targets'), bytes);
  if (!targets.ok) return targets;
  const checked = policy.checkTopTargets(targets.value);
  return checked.ok ? targets : checked;
}

function checkListed(policy: Policy, bytes: Uint8Array, meta: MetaFile, what: string): Result<void> {
  if (meta.bytes !== null && bytes.length !== meta.bytes) {
    return refuse(
      'metadata-digest-mismatch',
      `${what}: ${bytes.length} bytes where ${meta.bytes} are listed`,
    );
  }
  if (!hasListedDigests(policy, bytes, meta)) {
    return refuse('metadata-digest-mismatch', `${what}: other bytes than those listed`);
  }
  return ok();
}

function checkVersion(metadata: MetadataHead, meta: MetaFile, what: string): Result<void> {
  if (metadata.version === meta.version) return ok();
  return refuse('metadata-version-invalid', `${what} ${metadata.version} where ${meta.version} is listed`);
}
