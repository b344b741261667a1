// Why: the four TUF roles in their unmodified wire format (TUF 1.0.34 §4), read once into domain types, by the
// rules of a policy. Trusts: nothing; whether a file is signed, fresh and current is decided in trusted-set.ts.
// Must never: lose a byte of what was signed, or read one text in two ways.

import { z } from 'zod';
import { canonicalJson, type JsonValue, parseStrictJson } from '../../crypto/canonical-json.ts';
import { sha256Hex } from '../../crypto/digests.ts';
import { limits } from '../../kernel/limits.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { describeIssues } from '../../wire/messages.ts';
import { parseTufDate } from './dates.ts';
import type { DigestName, FormatRules } from './policy.ts';

export interface RoleKey {
  /** Name of the key in signatures: it selects a key, it proves nothing. */
  keyId: string;
  /** What the key is counted by: Ed25519 raw, 32 bytes; other algorithms SPKI in DER. */
  publicKey: Uint8Array;
  /** Absent for Ed25519. */
  scheme?: string;
}

/** Who may sign for a role. Keys that the policy does not know are left out and count for nothing. */
export interface RoleKeys {
  keys: readonly RoleKey[];
  threshold: number;
}

export interface MetadataSignature {
  keyId: string;
  signature: Uint8Array;
}

/** What every metadata file has. */
export interface MetadataHead {
  /** The exact bytes of the file. */
  bytes: Uint8Array;
  /** Canonical JSON of its `signed` part: what the signatures are over. */
  signedBytes: Uint8Array;
  signatures: readonly MetadataSignature[];
  version: number;
  expiresAtMs: number;
}

export interface RootFile extends MetadataHead {
  type: 'root';
  roles: ReadonlyMap<string, RoleKeys>;
  /** Whether files are served under versioned names (§6.2). */
  consistentSnapshots: boolean;
}

/** Digests as a listing gives them, hex. SHA-512 only under a policy that counts it. */
interface ListedDigests {
  sha256: string | null;
  sha512?: string;
}

/** How one metadata file is listed in another. Length and digest are optional in TUF. */
export interface MetaFile extends ListedDigests {
  version: number;
  bytes: number | null;
}

export interface TimestampMetadata extends MetadataHead {
  type: 'timestamp';
  snapshot: MetaFile;
}

export interface SnapshotMetadata extends MetadataHead {
  type: 'snapshot';
  /** By file name without version: `targets.json`, `acme.json`. */
  files: ReadonlyMap<string, MetaFile>;
}

/** A target as TUF lists it. One digest at least is there. */
export interface ListedTarget extends ListedDigests {
  bytes: number;
  custom: JsonValue;
}

export interface DelegatedRole extends RoleKeys {
  name: string;
  terminating: boolean;
  /** Path patterns; null where the role is bound by hash prefixes instead. */
  paths: readonly string[] | null;
  /** Prefixes of the SHA-256 of a target path, hex; null where the role is bound by paths. */
  pathHashPrefixes: readonly string[] | null;
}

export interface ListedTargets extends MetadataHead {
  type: 'targets';
  targets: ReadonlyMap<string, ListedTarget>;
  delegations: readonly DelegatedRole[];
}

/** Names of TUF's own roles: a delegated role of that name would share its file and could stand for it. */
export const topLevelRoles: ReadonlySet<string> = new Set(['root', 'timestamp', 'snapshot', 'targets']);

// Whole numbers without a word of the schemas: the reader of the text takes no others (`integersOnly`).
const counterSchema = z.number().nonnegative();
const versionNumber = z.number().positive();
const keyIdSchema = z.string().min(1).max(256);
const specVersion = z.string().regex(/^1\.\d{1,4}(\.\d{1,4})?$/, 'not TUF 1.x');
const expires = z.string().transform((text, context) => {
  const ms = parseTufDate(text);
  if (ms !== null) return ms;
  context.addIssue({ code: 'custom', message: 'not a date' });
  return z.NEVER;
});
const signedHead = { spec_version: specVersion, version: versionNumber, expires };

const hashesSchema = z.object({
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
  sha512: z
    .string()
    .regex(/^[0-9a-f]{128}$/)
    .optional(),
});
type Hashes = z.infer<typeof hashesSchema>;
const metaFileSchema = z.object({
  version: versionNumber,
  length: counterSchema.optional(),
  hashes: hashesSchema.optional(),
});
const keySchema = z.object({
  keytype: z.string(),
  scheme: z.string(),
  keyval: z.object({ public: z.string().optional() }),
});

const unique = (values: string[]): boolean => new Set(values).size === values.length;
const roleSchema = z.object({
  keyids: z.array(keyIdSchema).max(limits.keysPerRoleMax).refine(unique, 'a key id is listed twice'),
  threshold: z.number().positive(),
});

const rootSchema = z.object({
  ...signedHead,
  _type: z.literal('root'),
  consistent_snapshot: z.boolean().optional(),
  keys: z.record(keyIdSchema, keySchema),
  roles: z.record(z.string().max(128), roleSchema),
});

const timestampSchema = z.object({
  ...signedHead,
  _type: z.literal('timestamp'),
  meta: z.object({ 'snapshot.json': metaFileSchema }),
});

const snapshotSchema = z.object({
  ...signedHead,
  _type: z.literal('snapshot'),
  meta: z.record(z.string().max(256), metaFileSchema),
});

const delegatedRoleSchema = roleSchema.extend({
  name: z
    .string()
    .min(1)
    .max(128)
    .refine((name) => !topLevelRoles.has(name), 'a role of TUF’s own'),
  terminating: z.boolean(),
  paths: z.array(z.string().max(512)).max(1_000).optional(),
  path_hash_prefixes: z
    .array(z.string().regex(/^[0-9a-f]{1,64}$/))
    .max(100_000)
    .optional(),
});

const targetsSchema = z.object({
  ...signedHead,
  _type: z.literal('targets'),
  targets: z.record(
    z.string().max(512),
    z.object({ length: counterSchema, hashes: hashesSchema, custom: z.unknown().optional() }),
  ),
  delegations: z
    .object({
      keys: z.record(keyIdSchema, keySchema),
      roles: z
        .array(delegatedRoleSchema)
        .max(limits.delegationsMax)
        .refine((roles) => unique(roles.map((role) => role.name)), 'a role is listed twice'),
    })
    .optional(),
});

const signatureSchema = z.object({ keyid: keyIdSchema, sig: z.string().max(4_096) });
const fileSchema = z.object({
  signatures: z
    .array(signatureSchema)
    .max(256)
    // §4.2.1: multiple signatures with the same key id are not allowed.
    .refine((signatures) => unique(signatures.map((signature) => signature.keyid)), 'a key id signs twice'),
  signed: z.record(z.string(), z.unknown()),
});

interface ReadFile<T> {
  head: Pick<MetadataHead, 'bytes' | 'signedBytes' | 'signatures'>;
  signed: T;
  /** The same as plain JSON, with what the schema does not know. */
  json: JsonValue;
}

/** One reading of the text feeds both the schema and the canonical bytes that the signatures cover. */
function readFile<S extends z.ZodType>(
  schema: S,
  bytes: Uint8Array,
  bytesMax: number,
): Result<ReadFile<z.infer<S>>> {
  if (bytes.length > bytesMax) return refuse('metadata-too-large', `more than ${bytesMax} bytes`);
  const json = parseStrictJson(bytes, { code: 'metadata-malformed', integersOnly: true });
  if (!json.ok) return json;
  const file = fileSchema.safeParse(json.value);
  if (!file.success) return refuse('metadata-malformed', describeIssues(file.error));
  const signedValue = memberOf(json.value, 'signed');
  const signed = schema.safeParse(signedValue);
  if (!signed.success) return refuse('metadata-malformed', describeIssues(signed.error));
  const signatures = file.data.signatures.map(({ keyid, sig }) => ({
    keyId: keyid,
    signature: decodeHex(sig),
  }));
  const head = { bytes, signedBytes: canonicalJson(signedValue), signatures };
  return ok({ head, signed: signed.data, json: signedValue });
}

/** Nothing for what is not hex: some tools write an empty signature for a keyholder who has not signed. */
function decodeHex(text: string): Uint8Array {
  return /^(?:[0-9a-f]{2})*$/.test(text) ? new Uint8Array(Buffer.from(text, 'hex')) : new Uint8Array();
}

/** A member of a JSON object, null where there is none. Never one that it inherited. */
export function memberOf(value: JsonValue, key: string): JsonValue {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  return Object.hasOwn(value, key) ? (value[key] ?? null) : null;
}

type KeyRing = ReadonlyMap<string, RoleKey>;

/** The keys of a `keys` map that count, each read once. */
function readKeys(
  rules: FormatRules,
  keys: Record<string, z.infer<typeof keySchema>>,
  json: JsonValue,
): Result<KeyRing> {
  if (rules.keyIds === 'recomputed') {
    // A key under a name that is not its own could stand where another was meant to (issue 4: "wrong key id").
    const wire = json !== null && typeof json === 'object' && !Array.isArray(json) ? json : {};
    for (const [keyId, key] of Object.entries(wire)) {
      if (sha256Hex(canonicalJson(key)) !== keyId)
        return refuse('metadata-malformed', 'a key id is not the digest of its key');
    }
  }
  const ring = new Map<string, RoleKey>();
  for (const [keyId, key] of Object.entries(keys)) {
    const read = rules.readKey({
      keyType: key.keytype,
      scheme: key.scheme,
      public: key.keyval.public ?? null,
    });
    if (read !== null) ring.set(keyId, { keyId, ...read });
  }
  return ok(ring);
}

function roleKeys(role: { keyids: string[]; threshold: number }, ring: KeyRing): RoleKeys {
  return { keys: role.keyids.flatMap((keyId) => ring.get(keyId) ?? []), threshold: role.threshold };
}

/**
 * The digests that count. A listing whose `hashes` hold none of them binds nothing (`hashes: {}`): null.
 */
function countedDigests(rules: FormatRules, hashes: Hashes): ListedDigests | null {
  const held = [...rules.digests.keys()].filter((name) => hashes[name] !== undefined);
  if (held.length === 0) return null;
  const sha512 = rules.digests.has('sha512') ? hashes.sha512 : undefined;
  return { sha256: hashes.sha256 ?? null, ...(sha512 === undefined ? {} : { sha512 }) };
}

function metaFile(rules: FormatRules, file: z.infer<typeof metaFileSchema>): MetaFile | null {
  const digests = file.hashes === undefined ? { sha256: null } : countedDigests(rules, file.hashes);
  return digests === null ? null : { version: file.version, bytes: file.length ?? null, ...digests };
}

const noDigest = (what: string): Result<never> =>
  refuse('metadata-malformed', `${what}: hashes without one that counts`);

/** Whether the bytes have every digest that the listing holds. */
export function hasListedDigests(
  rules: Pick<FormatRules, 'digests'>,
  bytes: Uint8Array,
  listed: ListedDigests,
): boolean {
  return [...rules.digests].every(([name, digestHex]) => {
    const expected = listedDigest(listed, name);
    return expected === null || digestHex(bytes) === expected;
  });
}

export function listedDigest(listed: ListedDigests, name: DigestName): string | null {
  return (name === 'sha256' ? listed.sha256 : listed.sha512) ?? null;
}

/** What a root-format file says, with its JSON for whoever knows more fields. */
export interface ReadRoot {
  root: RootFile;
  json: JsonValue;
}

/** A root-format file that names at least these roles. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function readRoot(
  rules: FormatRules,
  bytes: Uint8Array,
  requiredRoles: readonly string[],
): Result<ReadRoot> {
  const file = readFile(rootSchema, bytes, limits.rootBytesMax);
  if (!file.ok) return file;
  const { head, signed, json } = file.value;
  if (rules.consistentSnapshots === 'required' && signed.consistent_snapshot !== true)
    return refuse('metadata-malformed', 'a root without consistent snapshots');
  for (const role of requiredRoles) {
    if (!Object.hasOwn(signed.roles, role))
      return refuse('metadata-malformed', `the root names no role ${role}`);
  }
  const ring = readKeys(rules, signed.keys, memberOf(json, 'keys'));
  if (!ring.ok) return ring;
  const root: RootFile = {
    ...head,
    type: 'root',
    version: signed.version,
    expiresAtMs: signed.expires,
    roles: new Map(Object.entries(signed.roles).map(([name, role]) => [name, roleKeys(role, ring.value)])),
    consistentSnapshots: signed.consistent_snapshot === true,
  };
  return ok({ root, json });
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. */
export function readTimestamp(rules: FormatRules, bytes: Uint8Array): Result<TimestampMetadata> {
  const file = readFile(timestampSchema, bytes, limits.timestampBytesMax);
  if (!file.ok) return file;
  const { head, signed } = file.value;
  const snapshot = metaFile(rules, signed.meta['snapshot.json']);
  if (snapshot === null) return noDigest('snapshot.json');
  return ok({
    ...head,
    type: 'timestamp',
    version: signed.version,
    expiresAtMs: signed.expires,
    snapshot,
  });
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. */
export function readSnapshot(rules: FormatRules, bytes: Uint8Array): Result<SnapshotMetadata> {
  const file = readFile(snapshotSchema, bytes, limits.snapshotBytesMax);
  if (!file.ok) return file;
  const { head, signed } = file.value;
  const files = new Map<string, MetaFile>();
  for (const [name, wire] of Object.entries(signed.meta)) {
    const listed = metaFile(rules, wire);
    if (listed === null) return noDigest('a file of the snapshot');
    files.set(name, listed);
  }
  return ok({ ...head, type: 'snapshot', version: signed.version, expiresAtMs: signed.expires, files });
}

/** What a targets file says, with its JSON for whoever knows more fields. */
export interface ReadTargets {
  targets: ListedTargets;
  json: JsonValue;
}

/** The top-level or a delegated targets file. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function readTargets(rules: FormatRules, bytes: Uint8Array): Result<ReadTargets> {
  const file = readFile(targetsSchema, bytes, limits.targetsBytesMax);
  if (!file.ok) return file;
  const { head, signed, json } = file.value;
  const listed = memberOf(json, 'targets');
  const targets = new Map<string, ListedTarget>();
  for (const [path, target] of Object.entries(signed.targets)) {
    const digests = countedDigests(rules, target.hashes);
    if (digests === null) return noDigest('a target');
    const custom = memberOf(memberOf(listed, path), 'custom');
    targets.set(path, { bytes: target.length, ...digests, custom });
  }
  const ring = readKeys(
    rules,
    signed.delegations?.keys ?? {},
    memberOf(memberOf(json, 'delegations'), 'keys'),
  );
  if (!ring.ok) return ring;
  const delegations: DelegatedRole[] = [];
  for (const role of signed.delegations?.roles ?? []) {
    const { name, terminating, paths, path_hash_prefixes: pathHashPrefixes } = role;
    // §4.5: exactly one of the two binds a role; a reader that knew only one would see another delegation.
    if (paths !== undefined && pathHashPrefixes !== undefined)
      return refuse('metadata-malformed', 'a delegation has both paths and hash prefixes');
    delegations.push({
      name,
      terminating,
      paths: pathHashPrefixes === undefined ? (paths ?? []) : null,
      pathHashPrefixes: pathHashPrefixes ?? null,
      ...roleKeys(role, ring.value),
    });
  }
  return ok({
    targets: {
      ...head,
      type: 'targets',
      version: signed.version,
      expiresAtMs: signed.expires,
      targets,
      delegations,
    },
    json,
  });
}
