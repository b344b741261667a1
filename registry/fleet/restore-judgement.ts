// Why: a registry that was restored from a backup has forgotten what it signed since. Devices give the signed bytes
// back; here is decided what they prove (DESIGN 3).
// Trusts: the registry's own roots and what they name; never a number that nobody signed.
// Must never: let bytes of a device change anything that the registry or its publishers did not sign themselves.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { checkAnswer } from '../../shared/trust/telemetry.ts';
import { noBounds } from '../../shared/trust/tuf/floors.ts';
import type { RootFile } from '../../shared/trust/tuf/format.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import {
  type DelegatedRole,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  type TargetsMetadata,
} from '../../shared/trust/tuf/metadata.ts';
import { checkDelegations, delegationOf } from '../../shared/trust/tuf/namespaces.ts';
import { parseSnapshotFile } from '../../shared/trust/tuf/repository.ts';
import { checkThreshold } from '../../shared/trust/tuf/signatures.ts';
import { followRoot, followTimestamp, trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import {
  type AssignedRelease,
  type Envelope,
  envelopeSchema,
  parseMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import type { BatchAnswer } from '../../shared/wire/telemetry.ts';

/** What the registry holds now, of which a device may hold a later one. */
export interface Present {
  deviceId: string;
  region: string;
  /** Exact bytes. */
  root: Uint8Array;
  regionRoot: Uint8Array;
  /** Roots of the region before that one, newest first. */
  earlierRegionRoots(): Iterable<Uint8Array>;
  targets: Uint8Array;
  /** By role as in `metadata_roles`; 0 where there is none. */
  versionOf(role: string): number;
  /** Exact bytes of that version, null where there is none. */
  bytesOf(role: string): Uint8Array | null;
  /** A verified snapshot named later targets than ours: who may sign for a namespace is not known for sure. */
  targetsMissing: boolean;
  /** Of the assignment in force, 0 where there is none. */
  epoch: number;
  /** The message that carries it, exact bytes. */
  assignment: Uint8Array | null;
  telemetry: { epoch: number; lastSequence: number };
  /** Another region signs the catalogue, and this one mirrors it. */
  mirrors: boolean;
  /** Whether the registry holds the keys that sign the catalogue under this root. */
  signsUnder(root: RootFile): boolean;
}

/** What bytes prove. `known`: genuine, or not to be judged yet, and no reason to change anything. */
export type Verdict =
  | { kind: 'known' }
  | { kind: 'region-root'; version: number; expiresAtMs: number }
  /** `bears`: what is signed by online keys here holds under it. */
  | { kind: 'root'; version: number; expiresAtMs: number; bears: boolean }
  /** Later than ours, and another region's to give: it comes from there with all that goes with it. */
  | { kind: 'elsewhere'; file: string }
  /** A later root, several versions on: those between are missing, and without them nothing proves it. */
  | { kind: 'roots-missing'; version: number; ours: number }
  | { kind: 'timestamp'; version: number; snapshotVersion: number }
  | { kind: 'snapshot'; version: number; files: ReadonlyMap<string, number> }
  | { kind: 'targets'; version: number; expiresAtMs: number; delegations: readonly DelegatedRole[] }
  | { kind: 'namespace'; namespace: string; metadata: TargetsMetadata }
  | { kind: 'assignment'; epoch: number; releases: readonly AssignedRelease[] }
  | { kind: 'acknowledgement'; sequence: number; headSha256: string };

const known: Result<Verdict> = ok({ kind: 'known' });
/** Names of files have nine digits for the version; we must be able to go on above it for years. */
const versionMax = 999_000_000;
/** A statement with a number that later ones could not exceed is of no use, whoever signed it. */
const countMax = Number.MAX_SAFE_INTEGER / 2;

function invalid(refusal: Refusal): Result<Verdict> {
  return refuse('held-invalid', `${refusal.code}: ${refusal.detail}`);
}

function refuted(code: ErrorCode, detail: string): Result<Verdict> {
  return invalid({ code, detail });
}

/**
 * What a file that a device gave back proves. Refusal: `held-invalid` for whatever is malformed, forged or
 * another device's. Genuine bytes that are not later than ours are `known`: many devices give back the same.
 */
export function judgeHeld(file: string, bytes: Uint8Array, present: Present): Result<Verdict> {
  if (file === 'root') return judgeRoot(bytes, present);
  if (file === 'region-root') return judgeRegionRoot(bytes, present);
  if (file === 'assignment') return judgeAssignment(bytes, present);
  if (file === 'acknowledgement') return judgeAcknowledgement(bytes, present);
  const root = trustRoot(housePolicy, present.root);
  if (!root.ok) return invalid(root.refusal);
  if (file === 'timestamp') return judgeTimestamp(bytes, root.value, present);
  if (file === 'snapshot') return judgeSnapshot(bytes, root.value, present);
  if (file === 'targets') return fromHome(judgeTargets(bytes, root.value, present), file, present);
  if (file.startsWith('ns/')) return fromHome(judgeNamespace(bytes, file.slice(3), present), file, present);
  return refuted('message-malformed', `no file ${file}`);
}

/** What names releases is mirrored whole, with the files that it names; numbers alone may be known here earlier. */
function fromHome(verdict: Result<Verdict>, file: string, present: Present): Result<Verdict> {
  const isNews = verdict.ok && verdict.value.kind !== 'known';
  return isNews && present.mirrors ? ok({ kind: 'elsewhere', file }) : verdict;
}

function judgeRoot(bytes: Uint8Array, present: Present): Result<Verdict> {
  const ours = trustRoot(housePolicy, present.root);
  const theirs = trustRoot(housePolicy, bytes);
  if (!ours.ok) return invalid(ours.refusal);
  if (!theirs.ok) return invalid(theirs.refusal);
  const { version, expiresAtMs } = theirs.value;
  if (version <= ours.value.version) {
    // An old root proves nothing by itself; the very same one is ours.
    return version < ours.value.version || Buffer.compare(bytes, present.root) === 0
      ? known
      : refuted('metadata-version-invalid', `another root ${version} than ours`);
  }
  if (version > versionMax) return refuted('metadata-version-invalid', `root ${version}`);
  if (version > ours.value.version + 1) {
    return ok({ kind: 'roots-missing', version, ours: ours.value.version });
  }
  const next = followRoot(housePolicy, ours.value, bytes);
  if (!next.ok) return invalid(next.refusal);
  const bears = bearsHeld(next.value, present, ['timestamp', 'snapshot']);
  if (!present.signsUnder(next.value) && !(bears && bearsHeld(next.value, present, ['targets'])))
    return ok({ kind: 'elsewhere', file: 'root' });
  return ok({ kind: 'root', version, expiresAtMs, bears });
}

const parsers = { timestamp: parseTimestamp, snapshot: parseSnapshot, targets: parseTargets };

/** Whether what is held of these roles is signed as this root asks. */
function bearsHeld(root: RootFile, present: Present, roles: readonly (keyof typeof parsers)[]): boolean {
  return roles.every((role) => {
    const bytes = present.bytesOf(role);
    if (bytes === null) return true;
    const parsed = parsers[role](new Uint8Array(bytes));
    return parsed.ok && checkThreshold(parsed.value, root.roles.get(role), role).ok;
  });
}

function judgeRegionRoot(bytes: Uint8Array, present: Present): Result<Verdict> {
  const ours = parseRegionRoot(present.regionRoot);
  const theirs = parseRegionRoot(bytes);
  if (!ours.ok) return invalid(ours.refusal);
  if (!theirs.ok) return invalid(theirs.refusal);
  const { version, expiresAtMs, region } = theirs.value;
  if (region !== present.region) return refuted('assignment-other-region', `the root of region ${region}`);
  if (version <= ours.value.version) {
    return version < ours.value.version || Buffer.compare(bytes, present.regionRoot) === 0
      ? known
      : refuted('metadata-version-invalid', `another region root ${version} than ours`);
  }
  if (version > versionMax) return refuted('metadata-version-invalid', `region root ${version}`);
  if (version > ours.value.version + 1) {
    return ok({ kind: 'roots-missing', version, ours: ours.value.version });
  }
  const next = updateRegionRoot(present.regionRoot, bytes);
  return next.ok ? ok({ kind: 'region-root', version, expiresAtMs }) : invalid(next.refusal);
}

/**
 * Of a file that this registry signs itself: a higher number, or the same number for other bytes, which were signed
 * before the restore. Whoever holds those would never ask for ours.
 */
function isLater(present: Present, role: string, version: number, bytes: Uint8Array): boolean {
  const [current, ours] = [present.versionOf(role), present.bytesOf(role)];
  if (version !== current) return version > current;
  return ours === null || Buffer.compare(ours, bytes) !== 0;
}

function judgeTimestamp(bytes: Uint8Array, root: RootFile, present: Present): Result<Verdict> {
  const timestamp = followTimestamp(housePolicy, root, null, noBounds, bytes);
  if (!timestamp.ok) return invalid(timestamp.refusal);
  const { version, snapshot } = timestamp.value;
  if (version > versionMax || snapshot.version > versionMax) {
    return refuted('metadata-version-invalid', `timestamp ${version} of snapshot ${snapshot.version}`);
  }
  if (!isLater(present, 'timestamp', version, bytes)) return known;
  return ok({ kind: 'timestamp', version, snapshotVersion: snapshot.version });
}

function judgeSnapshot(bytes: Uint8Array, root: RootFile, present: Present): Result<Verdict> {
  const parsed = parseSnapshotFile(bytes);
  if (!parsed.ok) return invalid(parsed.refusal);
  const snapshot = parsed.value;
  const signed = checkThreshold(snapshot, root.roles.get('snapshot'), 'snapshot');
  if (!signed.ok) return invalid(signed.refusal);
  const files = new Map<string, number>();
  for (const [name, { version }] of snapshot.files) {
    const stem = /^([a-z0-9][a-z0-9-]{0,62})\.json$/.exec(name)?.[1];
    if (stem === undefined || version > versionMax) {
      return refuted('metadata-malformed', `snapshot lists ${name.slice(0, 80)} ${version}`);
    }
    files.set(stem === 'targets' ? stem : `ns/${stem}`, version);
  }
  if (snapshot.version > versionMax) {
    return refuted('metadata-version-invalid', `snapshot ${snapshot.version}`);
  }
  if (!isLater(present, 'snapshot', snapshot.version, bytes)) return known;
  return ok({ kind: 'snapshot', version: snapshot.version, files });
}

function judgeTargets(bytes: Uint8Array, root: RootFile, present: Present): Result<Verdict> {
  const parsed = parseTargets(bytes);
  if (!parsed.ok) return invalid(parsed.refusal);
  const { version, expiresAtMs, delegations } = parsed.value;
  const signed = checkThreshold(parsed.value, root.roles.get('targets'), 'targets');
  if (!signed.ok) return invalid(signed.refusal);
  const checked = checkDelegations(parsed.value);
  if (!checked.ok) return invalid(checked.refusal);
  if (version > versionMax) return refuted('metadata-version-invalid', `targets ${version}`);
  // Of the same number, and made before the restore: both are good, and devices hold theirs.
  const isOther = version === present.versionOf('targets') && Buffer.compare(bytes, present.targets) !== 0;
  if (version <= present.versionOf('targets') && !isOther) return known;
  return ok({ kind: 'targets', version, expiresAtMs, delegations });
}

function judgeNamespace(bytes: Uint8Array, namespace: string, present: Present): Result<Verdict> {
  const targets = parseTargets(present.targets);
  if (!targets.ok) return invalid(targets.refusal);
  const parsed = parseTargets(bytes);
  if (!parsed.ok) return invalid(parsed.refusal);
  const role = delegationOf(targets.value, namespace) ?? undefined;
  const signed = checkThreshold(parsed.value, role, namespace);
  if (!signed.ok) {
    // By the keys of the targets that are still missing it may be genuine: the device gives it back again.
    return present.targetsMissing ? known : invalid(signed.refusal);
  }
  const { version } = parsed.value;
  const foreign = [...parsed.value.targets.keys()].find((path) => !path.startsWith(`${namespace}/`));
  if (foreign !== undefined) return refuted('metadata-malformed', `${namespace} names another’s release`);
  if (version > versionMax) return refuted('metadata-version-invalid', `${namespace} ${version}`);
  if (version <= present.versionOf(`ns/${namespace}`)) return known;
  return ok({ kind: 'namespace', namespace, metadata: parsed.value });
}

/** The envelope itself, or the message that it came in. */
function envelopeOf(bytes: Uint8Array): Result<Envelope> {
  const message = parseMessage(signedMessageSchema, bytes);
  return message.ok ? ok(message.value.envelope) : parseMessage(envelopeSchema, bytes);
}

function withRegionRoot(
  bytes: Uint8Array,
  present: Present,
  judge: (envelope: Envelope, regionRoot: RegionRoot) => Result<Verdict>,
): Result<Verdict> {
  const regionRoot = parseRegionRoot(present.regionRoot);
  if (!regionRoot.ok) return invalid(regionRoot.refusal);
  const envelope = envelopeOf(bytes);
  return envelope.ok ? judge(envelope.value, regionRoot.value) : invalid(envelope.refusal);
}

function judgeAssignment(bytes: Uint8Array, present: Present): Result<Verdict> {
  const { deviceId, region } = present;
  return withRegionRoot(bytes, present, (envelope, regionRoot) => {
    // Its dates do not matter: that it was issued is what it proves.
    const checked = checkAssignment({ envelope, regionRoot, deviceId, region, current: null, nowMs: 0 });
    if (!checked.ok) return invalid(checked.refusal);
    const { epoch, releases } = checked.value.assignment;
    if (epoch > countMax) return refuted('assignment-malformed', `epoch ${epoch}`);
    // Of the same number and with other words: this registry ran twice, and the device holds the other's.
    const isOther = epoch === present.epoch && !isSamePayload(envelope, present.assignment);
    return epoch <= present.epoch && !isOther ? known : ok({ kind: 'assignment', epoch, releases });
  });
}

function isSamePayload(envelope: Envelope, message: Uint8Array | null): boolean {
  const ours = message === null ? null : envelopeOf(message);
  return ours?.ok === true && ours.value.payload === envelope.payload;
}

/**
 * The answer, also where a key signed it that the region had before: it said so all the same. Refusals: those of the present
 * root.
 */
function answerOf(envelope: Envelope, regionRoot: RegionRoot, present: Present): Result<BatchAnswer> {
  const { deviceId, region } = present;
  const checked = checkAnswer({ envelope, regionRoot, deviceId, region });
  if (checked.ok) return checked;
  for (const bytes of present.earlierRegionRoots()) {
    const earlier = parseRegionRoot(bytes);
    if (!earlier.ok) continue;
    const before = checkAnswer({ envelope, regionRoot: earlier.value, deviceId, region });
    if (before.ok) return before;
  }
  return checked;
}

function judgeAcknowledgement(bytes: Uint8Array, present: Present): Result<Verdict> {
  const { telemetry } = present;
  return withRegionRoot(bytes, present, (envelope, regionRoot) => {
    const answer = answerOf(envelope, regionRoot, present);
    if (!answer.ok) return invalid(answer.refusal);
    const { epoch, sequence, headSha256, result } = answer.value;
    if (result.status !== 'stored') return refuted('telemetry-answer-invalid', 'it acknowledges nothing');
    if (sequence > countMax) return refuted('telemetry-answer-invalid', `sequence ${sequence}`);
    // Of another enrolment than the present one: nothing of it is missing in this chain.
    if (epoch !== telemetry.epoch || sequence <= telemetry.lastSequence) return known;
    return ok({ kind: 'acknowledgement', sequence, headSha256 });
  });
}
