// Why: making metadata: the registry's online roles, the ceremonies' roots, the publishers' targets.
// Trusts: its caller for what to say and which keys to use. Must never: make a file that the reader in
// metadata.ts would refuse; bad input is a fault here, not at ten thousand devices.

import { canonicalJson, type JsonValue, parseStrictJson } from '../../crypto/canonical-json.ts';
import { checkPublicKey, type Signer, tufKeyId, tufKeyObject } from '../../crypto/ed25519.ts';
import { FleetError, unwrap } from '../../kernel/errors.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { formatTufDate } from './dates.ts';
import {
  describeMetadata,
  type MetadataHead,
  type MetaFile,
  parseRoot,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  type RootMetadata,
  type SnapshotMetadata,
  type TargetEntry,
  type TimestampMetadata,
} from './metadata.ts';
import { checkDelegations, namespacePattern } from './namespaces.ts';
import { validSigners } from './signatures.ts';

export type { MetaFile, TargetEntry } from './metadata.ts';

export const catalogueRoles = ['root', 'timestamp', 'snapshot', 'targets'] as const;
export type CatalogueRole = (typeof catalogueRoles)[number];

/** Raw public keys of a role and how many of them must sign. */
export interface RoleSpec {
  keys: readonly Uint8Array[];
  threshold: number;
}

/** A publisher's role: named like its namespace, trusted for `NS/NAME/VERSION` and nothing else. */
export interface Delegation extends RoleSpec {
  namespace: string;
}

interface Head {
  version: number;
  expiresAtMs: number;
  /** May be fewer than the threshold, even none: `addSignature` adds the others'. */
  signers: readonly Signer[];
}

/** The exact bytes of a catalogue root. Throws `input-invalid`, `key-invalid`. */
export function makeRoot(
  parts: Head & {
    roles: Readonly<Record<CatalogueRole, RoleSpec>>;
    holders?: ReadonlyMap<string, string>;
  },
): Uint8Array {
  return makeRootFile({ ...parts, region: null });
}

/** A file in root format with any roles; with a region it is that region's root and never the catalogue's. */
export function makeRootFile(
  parts: Head & {
    roles: Readonly<Record<string, RoleSpec>>;
    region: string | null;
    /** Key id to name: who holds which key. */
    holders?: ReadonlyMap<string, string>;
  },
): Uint8Array {
  const entries = Object.entries(parts.roles);
  const roles = Object.fromEntries(entries.map(([name, role]) => [name, wireRole(name, role)]));
  return signFile(parts, 'root', {
    consistent_snapshot: true,
    keys: wireKeys(entries.map(([, role]) => role)),
    roles,
    ...wireRootOwnWords(parts.region, parts.holders ?? new Map()),
  });
}

function wireRootOwnWords(region: string | null, holders: ReadonlyMap<string, string>): JsonObject {
  if (region === null && holders.size === 0) return {};
  return {
    'x-lepton': {
      ...(region === null ? {} : { kind: 'region', region }),
      ...(holders.size === 0 ? {} : { holders: Object.fromEntries(holders) }),
    },
  };
}

/** The exact bytes of a timestamp for that snapshot (see `describeFile`). */
export function makeTimestamp(parts: Head & { snapshot: MetaFile }): Uint8Array {
  return signFile(parts, 'timestamp', { meta: { 'snapshot.json': wireMetaFile(parts.snapshot) } });
}

/** The exact bytes of a snapshot; files by name without version: `targets.json`, `acme.json`. */
export function makeSnapshot(parts: Head & { files: ReadonlyMap<string, MetaFile> }): Uint8Array {
  const entries = [...parts.files].map(([name, file]): [string, JsonValue] => [name, wireMetaFile(file)]);
  return signFile(parts, 'snapshot', { meta: Object.fromEntries(entries) });
}

/**
 * The exact bytes of a targets file: the top-level one has `delegations`, a publisher's has `targets` (by
 * `NS/NAME/VERSION`), `floors` and `withdrawn` (by NAME). Throws `input-invalid`, `key-invalid`.
 */
export function makeTargets(
  parts: Head & {
    targets?: ReadonlyMap<string, TargetEntry>;
    delegations?: readonly Delegation[];
    floors?: ReadonlyMap<string, number>;
    withdrawn?: ReadonlyMap<string, ReadonlySet<number>>;
  },
): Uint8Array {
  const { targets = new Map<string, TargetEntry>(), delegations } = parts;
  const entries = [...targets].map(([path, entry]): [string, JsonValue] => [path, wireTarget(entry)]);
  return signFile(parts, 'targets', {
    targets: Object.fromEntries(entries),
    ...(delegations === undefined ? {} : { delegations: wireDelegations(delegations) }),
    ...wireOwnWords(parts),
  });
}

/** What a publisher says beyond TUF: floors and single releases taken back. */
function wireOwnWords(parts: {
  floors?: ReadonlyMap<string, number>;
  withdrawn?: ReadonlyMap<string, ReadonlySet<number>>;
}): JsonObject {
  const { floors = new Map<string, number>(), withdrawn = new Map<string, ReadonlySet<number>>() } = parts;
  if (floors.size === 0 && withdrawn.size === 0) return {};
  const lists = [...withdrawn].map(([name, counters]): [string, JsonValue] => [
    name,
    [...counters].sort((a, b) => a - b),
  ]);
  return {
    'x-lepton': {
      ...(floors.size === 0 ? {} : { floors: Object.fromEntries(floors) }),
      ...(lists.length === 0 ? {} : { withdrawn: Object.fromEntries(lists) }),
    },
  };
}

/** How a metadata file is listed: its own version, length and digest. Throws `metadata-malformed`. */
export function describeFile(bytes: Uint8Array): MetaFile {
  const type = unwrap(wireFile(bytes)).signed['_type'];
  if (type === 'snapshot') return describeMetadata(unwrap(parseSnapshot(bytes)));
  if (type === 'targets') return describeMetadata(unwrap(parseTargets(bytes)));
  throw new FleetError('metadata-malformed', 'only snapshot and targets files are listed in others');
}

/** The same file with this signer's signature added, or renewed where it had one. Throws `metadata-malformed`. */
export function addSignature(bytes: Uint8Array, signer: Signer): Uint8Array {
  const { signatures, signed } = unwrap(wireFile(bytes));
  const others = signatures.filter((signature) => keyIdOf(signature) !== signer.keyId);
  return encodeFile([...others, wireSignature(signer, canonicalJson(signed))], signed);
}

/**
 * The same content with each key's valid signature from either file, so that two publishers who sign at the
 * same moment lose neither; what no key signed is left out. Null where the two say different things.
 */
export function mergeSignatures(
  a: Uint8Array,
  b: Uint8Array,
  keys: readonly Uint8Array[],
): Uint8Array | null {
  const [first, second] = [parseAnyRole(a), parseAnyRole(b)];
  if (!first.ok || !second.ok) return null;
  if (Buffer.compare(first.value.signedBytes, second.value.signedBytes) !== 0) return null;
  const signatures: JsonValue[] = [];
  for (const publicKey of keys) {
    const keyId = tufKeyId(publicKey);
    const source = [first.value, second.value].find(
      (head) => validSigners(head, { keys: [{ keyId, publicKey }] }).size === 1,
    );
    const signature = source?.signatures.find((one) => one.keyId === keyId);
    if (signature === undefined) continue;
    signatures.push({ keyid: keyId, sig: Buffer.from(signature.signature).toString('hex') });
  }
  return encodeFile(signatures, unwrap(wireFile(a)).signed);
}

/** How many of these raw public keys, each counted once, have signed the file; 0 for what is no metadata. */
export function countValidSignatures(bytes: Uint8Array, keys: readonly Uint8Array[]): number {
  const parsed = parseAnyRole(bytes);
  if (!parsed.ok) return 0;
  return validSigners(parsed.value, {
    keys: keys.map((publicKey) => ({ keyId: tufKeyId(publicKey), publicKey })),
  }).size;
}

/** What a top-level or a publisher's targets file says; the signatures are not judged here. */
export interface TargetsFile {
  version: number;
  expiresAtMs: number;
  targets: ReadonlyMap<string, TargetEntry>;
  delegations: readonly Delegation[];
  floors: ReadonlyMap<string, number>;
  withdrawn: ReadonlyMap<string, ReadonlySet<number>>;
  /** Key ids that appear in its signatures, valid or not. */
  signatureKeyIds: readonly string[];
}

/** Refusals: `metadata-malformed` (also for delegations outside the house's use), `metadata-too-large`. */
export function parseTargetsFile(bytes: Uint8Array): Result<TargetsFile> {
  const parsed = parseTargets(bytes);
  if (!parsed.ok) return parsed;
  const metadata = parsed.value;
  if (metadata.delegations.length > 0) {
    const checked = checkDelegations(metadata);
    if (!checked.ok) return checked;
  }
  return ok({
    version: metadata.version,
    expiresAtMs: metadata.expiresAtMs,
    targets: metadata.targets,
    delegations: metadata.delegations.map((role) => ({
      namespace: role.name,
      keys: role.keys.map((key) => key.publicKey),
      threshold: role.threshold,
    })),
    floors: metadata.floors,
    withdrawn: metadata.withdrawn,
    signatureKeyIds: metadata.signatures.map((signature) => signature.keyId),
  });
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. The signatures are not judged here. */
export function parseRootFile(bytes: Uint8Array): Result<RootMetadata> {
  const parsed = parseRoot(bytes, catalogueRoles);
  if (!parsed.ok) return parsed;
  if (parsed.value.region !== null)
    return refuse('metadata-malformed', 'the root of a region, not of a catalogue');
  return parsed;
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. The signatures are not judged here. */
export function parseSnapshotFile(bytes: Uint8Array): Result<SnapshotMetadata> {
  return parseSnapshot(bytes);
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. The signatures are not judged here. */
export function parseTimestampFile(bytes: Uint8Array): Result<TimestampMetadata> {
  return parseTimestamp(bytes);
}

function parseAnyRole(bytes: Uint8Array): Result<MetadataHead> {
  const file = wireFile(bytes);
  if (!file.ok) return file;
  return parseRole(file.value.signed['_type'] ?? null, bytes);
}

function parseRole(type: JsonValue, bytes: Uint8Array): Result<MetadataHead> {
  if (type === 'root') return parseRoot(bytes, ['root']);
  if (type === 'timestamp') return parseTimestamp(bytes);
  if (type === 'snapshot') return parseSnapshot(bytes);
  return parseTargets(bytes);
}

type JsonObject = { [key: string]: JsonValue };

function signFile(head: Head, type: string, body: JsonObject): Uint8Array {
  const date = formatTufDate(head.expiresAtMs);
  const signed: JsonObject = {
    _type: type,
    spec_version: '1.0.34',
    version: head.version,
    expires: date,
    ...body,
  };
  const message = canonicalJson(signed);
  const bytes = encodeFile(
    head.signers.map((signer) => wireSignature(signer, message)),
    signed,
  );
  const readBack = parseRole(type, bytes);
  if (!readBack.ok) throw new FleetError('input-invalid', `${type} metadata: ${readBack.refusal.detail}`);
  return bytes;
}

function encodeFile(signatures: JsonValue[], signed: JsonObject): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ signatures, signed }));
}

function wireSignature(signer: Signer, message: Uint8Array): JsonObject {
  return { keyid: signer.keyId, sig: Buffer.from(signer.sign(message)).toString('hex') };
}

function wireMetaFile(file: MetaFile): JsonObject {
  return {
    version: file.version,
    ...(file.bytes === null ? {} : { length: file.bytes }),
    ...(file.sha256 === null ? {} : { hashes: { sha256: file.sha256 } }),
  };
}

function wireTarget(entry: TargetEntry): JsonObject {
  const custom = {
    ...(entry.counter === null ? {} : { counter: entry.counter }),
    ...(entry.requires === null ? {} : { requires: entry.requires }),
  };
  return { length: entry.bytes, hashes: { sha256: entry.sha256 }, custom };
}

function wireDelegations(delegations: readonly Delegation[]): JsonObject {
  return {
    keys: wireKeys(delegations),
    roles: delegations.map((delegation) => ({
      name: delegation.namespace,
      ...wireRole(delegation.namespace, delegation),
      terminating: true,
      paths: [namespacePattern(delegation.namespace)],
    })),
  };
}

function wireRole(name: string, role: RoleSpec): { keyids: string[]; threshold: number } {
  for (const key of role.keys) unwrap(checkPublicKey(key));
  const keyids = role.keys.map(tufKeyId);
  if (new Set(keyids).size !== keyids.length)
    throw new FleetError('input-invalid', `role ${name}: a key twice`);
  if (role.threshold > keyids.length) {
    throw new FleetError(
      'input-invalid',
      `role ${name}: a threshold of ${role.threshold} with ${keyids.length} keys`,
    );
  }
  return { keyids, threshold: role.threshold };
}

function wireKeys(roles: readonly RoleSpec[]): JsonObject {
  const keys = roles.flatMap((role) => role.keys);
  return Object.fromEntries(keys.map((key) => [tufKeyId(key), tufKeyObject(key)]));
}

/** The file as it stands, with whatever else other tools wrote into it. */
function wireFile(bytes: Uint8Array): Result<{ signatures: JsonValue[]; signed: JsonObject }> {
  const json = parseStrictJson(bytes, { code: 'metadata-malformed', integersOnly: true });
  if (!json.ok) return json;
  const file = asObject(json.value);
  const signed = asObject(file?.['signed']);
  const signatures = file?.['signatures'];
  if (signed === null || !Array.isArray(signatures))
    return refuse('metadata-malformed', 'no signed metadata');
  return ok({ signatures, signed });
}

function asObject(value: JsonValue | undefined): JsonObject | null {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : null;
}

function keyIdOf(signature: JsonValue): JsonValue {
  return asObject(signature)?.['keyid'] ?? null;
}
