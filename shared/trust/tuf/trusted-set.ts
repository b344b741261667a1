// Why: may this metadata file be trusted, given what is trusted already? Each check of the client workflow
// (TUF 1.0.34 §5.3–5.6) on its own line, with its step and the attack it stops. No fetching, no storing.
// Trusts: the metadata passed as trusted; never the new bytes.
// Must never: act on the content of new bytes before their listing and their signatures were checked.

import { sha256Hex } from '../../crypto/digests.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import {
  type MetadataHead,
  type MetaFile,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  type RoleKeys,
  type RootMetadata,
  type SnapshotMetadata,
  type TargetsMetadata,
  type TimestampMetadata,
} from './metadata.ts';
import { parseRootFile } from './repository.ts';
import { checkThreshold } from './signatures.ts';

/** The root a device starts from: pinned or stored, and still signed by its own keys. */
export function trustRoot(bytes: Uint8Array): Result<RootMetadata> {
  const root = parseRootFile(bytes);
  if (!root.ok) return root;
  const signed = checkThreshold(root.value, root.value.roles.get('root'), 'root');
  return signed.ok ? root : signed;
}

/** §5.3.4–5.3.5: the root that follows the trusted one. Its expiry does not matter while there may be a next. */
export function followRoot(trusted: RootMetadata, bytes: Uint8Array): Result<RootMetadata> {
  const parsed = parseRootFile(bytes);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  // §5.3.4: arbitrary software attack; both generations of keys must agree.
  const byOld = checkThreshold(next, trusted.roles.get('root'), 'root, by the keys before');
  if (!byOld.ok) return byOld;
  const byNew = checkThreshold(next, next.roles.get('root'), 'root, by its own keys');
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
export function hasRotatedOnlineKeys(before: RootMetadata, after: RootMetadata): boolean {
  return ['timestamp', 'snapshot'].some(
    (role) => spellRole(before.roles.get(role)) !== spellRole(after.roles.get(role)),
  );
}

function spellRole(role: RoleKeys | undefined): string {
  const keys = (role?.keys ?? []).map((key) => Buffer.from(key.publicKey).toString('hex'));
  return keys.sort().join(' ');
}

/** §5.3.10, §5.4.4, §5.5.6, §5.6.5: freeze attack; nothing expired is installed from. Refusal: `metadata-expired`. */
export function checkFresh(metadata: MetadataHead, nowMs: number, what: string): Result<void> {
  return metadata.expiresAtMs > nowMs
    ? ok()
    : refuse('metadata-expired', `${what} ${metadata.version} has expired`);
}

/** §5.4.2–5.4.3: the newer timestamp, or the trusted one where the new one has the same version. */
export function followTimestamp(
  root: RootMetadata,
  trusted: TimestampMetadata | null,
  bytes: Uint8Array,
): Result<TimestampMetadata> {
  const parsed = parseTimestamp(bytes);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  // §5.4.2: arbitrary software attack.
  const signed = checkThreshold(next, root.roles.get('timestamp'), 'timestamp');
  if (!signed.ok) return signed;
  if (trusted === null) return parsed;
  // §5.4.3.1: rollback attack on the timestamp itself. The same version again is no news and no error.
  if (next.version < trusted.version) {
    return refuse('metadata-rollback', `timestamp ${next.version} after ${trusted.version}`);
  }
  if (next.version === trusted.version) return ok(trusted);
  // §5.4.3.2: rollback attack on the snapshot.
  if (next.snapshot.version < trusted.snapshot.version) {
    return refuse(
      'metadata-rollback',
      `timestamp lists snapshot ${next.snapshot.version} after ${trusted.snapshot.version}`,
    );
  }
  return parsed;
}

/** §5.5.2–5.5.5: the snapshot that the timestamp lists. `trusted` is the one before it. */
export function followSnapshot(
  root: RootMetadata,
  timestamp: TimestampMetadata,
  trusted: SnapshotMetadata | null,
  bytes: Uint8Array,
): Result<SnapshotMetadata> {
  // §5.5.2: mix-and-match and arbitrary software attacks.
  const listed = checkListed(bytes, timestamp.snapshot, 'snapshot');
  if (!listed.ok) return listed;
  const parsed = parseSnapshot(bytes);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  // §5.5.3: arbitrary software attack.
  const signed = checkThreshold(next, root.roles.get('snapshot'), 'snapshot');
  if (!signed.ok) return signed;
  // §5.5.4: mix-and-match attack.
  const version = checkVersion(next, timestamp.snapshot, 'snapshot');
  if (!version.ok) return version;
  // §5.5.5: rollback attack on any targets file, and on its presence.
  for (const [name, before] of trusted?.files ?? []) {
    const now = next.files.get(name);
    if (now === undefined) return refuse('metadata-rollback', `snapshot lists ${name} no longer`);
    if (now.version < before.version) {
      return refuse('metadata-rollback', `snapshot lists ${name} ${now.version} after ${before.version}`);
    }
  }
  return parsed;
}

/** §5.6.2–5.6.4: a targets file, top-level or delegated, that the snapshot lists under `name` + `.json`. */
export function acceptTargets(
  snapshot: SnapshotMetadata,
  name: string,
  role: RoleKeys | undefined,
  bytes: Uint8Array,
): Result<TargetsMetadata> {
  const meta = snapshot.files.get(`${name}.json`);
  if (meta === undefined) return refuse('metadata-missing', `snapshot does not list ${name}.json`);
  // §5.6.2: mix-and-match and arbitrary software attacks.
  const listed = checkListed(bytes, meta, name);
  if (!listed.ok) return listed;
  const parsed = parseTargets(bytes);
  if (!parsed.ok) return parsed;
  // §5.6.3: arbitrary software attack.
  const signed = checkThreshold(parsed.value, role, name);
  if (!signed.ok) return signed;
  // §5.6.4: mix-and-match attack.
  const version = checkVersion(parsed.value, meta, name);
  return version.ok ? parsed : version;
}

function checkListed(bytes: Uint8Array, meta: MetaFile, what: string): Result<void> {
  if (meta.bytes !== null && bytes.length !== meta.bytes) {
    return refuse(
      'metadata-digest-mismatch',
      `${what}: ${bytes.length} bytes where ${meta.bytes} are listed`,
    );
  }
  if (meta.sha256 !== null && sha256Hex(bytes) !== meta.sha256) {
    return refuse('metadata-digest-mismatch', `${what}: other bytes than those listed`);
  }
  return ok();
}

function checkVersion(metadata: MetadataHead, meta: MetaFile, what: string): Result<void> {
  if (metadata.version === meta.version) return ok();
  return refuse('metadata-version-invalid', `${what} ${metadata.version} where ${meta.version} is listed`);
}
