// Why: the four TUF roles in their unmodified wire format (TUF 1.0.34 §4), read once into domain types.
// Trusts: nothing; whether a file is signed, fresh and current is decided in trusted-set.ts.
// Must never: lose a byte of what was signed, or read one text in two ways.

import { z } from 'zod';
import { canonicalJson, type JsonValue, parseStrictJson } from '../../crypto/canonical-json.ts';
import { sha256Hex } from '../../crypto/digests.ts';
import { limits } from '../../kernel/limits.ts';
import { namePattern, sha256Pattern } from '../../kernel/releases.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { describeIssues } from '../../wire/messages.ts';
import { parseTufDate } from './dates.ts';

export interface RoleKey {
  /** Name of the key in signatures. Any unique text (TAP 12): it selects a key, it proves nothing. */
  keyId: string;
  /** Raw, 32 bytes. */
  publicKey: Uint8Array;
}

/** Who may sign for a role. Keys of other algorithms than Ed25519 are left out and count for nothing. */
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

export interface RootMetadata extends MetadataHead {
  type: 'root';
  roles: ReadonlyMap<string, RoleKeys>;
  /** The region whose root this is; null for the catalogue's. */
  region: string | null;
  /** Who holds which key, by key id, in the words of the ceremony: for people, proves nothing. */
  holders: ReadonlyMap<string, string>;
}

/** How one metadata file is listed in another. Length and digest are optional in TUF. */
export interface MetaFile {
  version: number;
  bytes: number | null;
  /** Hex. */
  sha256: string | null;
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

/** A target: a release's manifest, by its path `NS/NAME/VERSION`. */
export interface TargetEntry {
  bytes: number;
  /** Hex. */
  sha256: string;
  /** Release counter of the model; null where `custom` has none. */
  counter: number | null;
  /** What the release needs, from `custom`; null where it names nothing. */
  requires: JsonValue;
}

export interface DelegatedRole extends RoleKeys {
  name: string;
  terminating: boolean;
  /** Path patterns; null where the role is bound by hash prefixes instead. */
  paths: readonly string[] | null;
}

export interface TargetsMetadata extends MetadataHead {
  type: 'targets';
  targets: ReadonlyMap<string, TargetEntry>;
  delegations: readonly DelegatedRole[];
  /** Lowest counter the director may assign, by model name without namespace (`x-lepton`). */
  floors: ReadonlyMap<string, number>;
  /** Counters of single releases that their publisher took back, by model name without namespace (`x-lepton`). */
  withdrawn: ReadonlyMap<string, ReadonlySet<number>>;
}

const counterSchema = z.number().int().nonnegative();
const versionNumber = z.number().int().positive();
const keyIdSchema = z.string().min(1).max(256);
const specVersion = z.string().regex(/^1\.\d{1,4}(\.\d{1,4})?$/, 'not TUF 1.x');
const expires = z.string().transform((text, context) => {
  const ms = parseTufDate(text);
  if (ms !== null) return ms;
  context.addIssue({ code: 'custom', message: 'not a date' });
  return z.NEVER;
});
const signedHead = { spec_version: specVersion, version: versionNumber, expires };

/** Other digests may stand beside SHA-256; without it (`hashes: {}`) the listing would bind nothing. */
const hashes = z.object({ sha256: z.string().regex(sha256Pattern) });
const metaFileSchema = z
  .object({ version: versionNumber, length: counterSchema.optional(), hashes: hashes.optional() })
  .transform(
    (file): MetaFile => ({
      version: file.version,
      bytes: file.length ?? null,
      sha256: file.hashes?.sha256 ?? null,
    }),
  );

const keySchema = z.object({
  keytype: z.string(),
  scheme: z.string(),
  keyval: z.object({ public: z.string() }),
});
type WireKey = z.infer<typeof keySchema>;

const unique = (values: string[]): boolean => new Set(values).size === values.length;
const roleSchema = z.object({
  keyids: z.array(keyIdSchema).max(limits.keysPerRoleMax).refine(unique, 'a key id is listed twice'),
  threshold: z.number().int().positive(),
});
const rolesSchema = z.record(z.string().max(128), roleSchema);

const rootSchema = z.object({
  ...signedHead,
  _type: z.literal('root'),
  consistent_snapshot: z.literal(true),
  keys: z.record(keyIdSchema, keySchema),
  roles: rolesSchema,
  'x-lepton': z
    .object({
      kind: z.literal('region').optional(),
      region: z.string().regex(namePattern).optional(),
      holders: z.record(keyIdSchema, z.string().max(128)).optional(),
    })
    .refine((own) => (own.kind === undefined) === (own.region === undefined), 'half a region')
    .optional(),
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
  name: z.string().min(1).max(128),
  terminating: z.boolean(),
  paths: z.array(z.string().max(512)).max(1_000).optional(),
  path_hash_prefixes: z.array(z.string().max(128)).max(100_000).optional(),
});

const targetsSchema = z.object({
  ...signedHead,
  _type: z.literal('targets'),
  targets: z.record(
    z.string().max(512),
    z.object({
      length: counterSchema,
      hashes,
      custom: z.object({ counter: counterSchema.optional(), requires: z.unknown().optional() }).optional(),
    }),
  ),
  delegations: z
    .object({
      keys: z.record(keyIdSchema, keySchema),
      roles: z.array(delegatedRoleSchema).max(limits.delegationsMax),
    })
    .optional(),
  'x-lepton': z
    .object({
      floors: z.record(z.string().regex(namePattern), counterSchema).optional(),
      withdrawn: z.record(z.string().regex(namePattern), z.array(counterSchema).max(10_000)).optional(),
    })
    .optional(),
});

const signatureSchema = z.object({ keyid: keyIdSchema, sig: z.string().max(4_096) });
const fileSchema = z.object({
  signatures: z
    .array(signatureSchema)
    .max(256)
    .refine((signatures) => unique(signatures.map((signature) => signature.keyid)), 'a key id signs twice'),
  signed: z.record(z.string(), z.unknown()),
});

interface ReadFile<T> {
  head: Pick<MetadataHead, 'bytes' | 'signedBytes' | 'signatures'>;
  signed: T;
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
    signature: /^[0-9a-f]*$/.test(sig) ? new Uint8Array(Buffer.from(sig, 'hex')) : new Uint8Array(),
  }));
  return ok({ head: { bytes, signedBytes: canonicalJson(signedValue), signatures }, signed: signed.data });
}

function memberOf(value: JsonValue, key: string): JsonValue {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value[key] ?? null) : null;
}

function roleKeys(role: { keyids: string[]; threshold: number }, keys: Record<string, WireKey>): RoleKeys {
  const usable = role.keyids.flatMap((keyId): RoleKey[] => {
    const key = Object.hasOwn(keys, keyId) ? keys[keyId] : undefined;
    if (key?.keytype !== 'ed25519' || key.scheme !== 'ed25519') return [];
    if (!/^[0-9a-f]{64}$/.test(key.keyval.public)) return [];
    return [{ keyId, publicKey: new Uint8Array(Buffer.from(key.keyval.public, 'hex')) }];
  });
  return { keys: usable, threshold: role.threshold };
}

/** Reads a root-format file that names at least these roles. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseRoot(bytes: Uint8Array, requiredRoles: readonly string[]): Result<RootMetadata> {
  const file = readFile(rootSchema, bytes, limits.rootBytesMax);
  if (!file.ok) return file;
  const { head, signed } = file.value;
  for (const role of requiredRoles) {
    if (!Object.hasOwn(signed.roles, role))
      return refuse('metadata-malformed', `the root names no role ${role}`);
  }
  const roles = new Map(
    Object.entries(signed.roles).map(([name, role]) => [name, roleKeys(role, signed.keys)]),
  );
  return ok({
    ...head,
    type: 'root',
    version: signed.version,
    expiresAtMs: signed.expires,
    roles,
    region: signed['x-lepton']?.region ?? null,
    holders: new Map(Object.entries(signed['x-lepton']?.holders ?? {})),
  });
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseTimestamp(bytes: Uint8Array): Result<TimestampMetadata> {
  const file = readFile(timestampSchema, bytes, limits.timestampBytesMax);
  if (!file.ok) return file;
  const { head, signed } = file.value;
  return ok({
    ...head,
    type: 'timestamp',
    version: signed.version,
    expiresAtMs: signed.expires,
    snapshot: signed.meta['snapshot.json'],
  });
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseSnapshot(bytes: Uint8Array): Result<SnapshotMetadata> {
  const file = readFile(snapshotSchema, bytes, limits.snapshotBytesMax);
  if (!file.ok) return file;
  const { head, signed } = file.value;
  return ok({
    ...head,
    type: 'snapshot',
    version: signed.version,
    expiresAtMs: signed.expires,
    files: new Map(Object.entries(signed.meta)),
  });
}

/** Reads the top-level or a delegated targets file. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseTargets(bytes: Uint8Array): Result<TargetsMetadata> {
  const file = readFile(targetsSchema, bytes, limits.targetsBytesMax);
  if (!file.ok) return file;
  const { head, signed } = file.value;
  const targets = new Map<string, TargetEntry>();
  for (const [path, target] of Object.entries(signed.targets)) {
    targets.set(path, {
      bytes: target.length,
      sha256: target.hashes.sha256,
      counter: target.custom?.counter ?? null,
      // It came out of parseStrictJson, so it is a JSON value.
      requires: (target.custom?.requires ?? null) as JsonValue,
    });
  }
  const keys = signed.delegations?.keys ?? {};
  const delegations = (signed.delegations?.roles ?? []).map(
    (role): DelegatedRole => ({
      name: role.name,
      terminating: role.terminating,
      paths: role.path_hash_prefixes === undefined ? (role.paths ?? []) : null,
      ...roleKeys(role, keys),
    }),
  );
  return ok({
    ...head,
    type: 'targets',
    version: signed.version,
    expiresAtMs: signed.expires,
    targets,
    delegations,
    floors: new Map(Object.entries(signed['x-lepton']?.floors ?? {})),
    withdrawn: new Map(
      Object.entries(signed['x-lepton']?.withdrawn ?? {}).map(([name, counters]) => [
        name,
        new Set(counters),
      ]),
    ),
  });
}

/** How a file is listed in snapshot or timestamp: its version, length and digest. */
export function describeMetadata(metadata: MetadataHead): MetaFile {
  return { version: metadata.version, bytes: metadata.bytes.length, sha256: sha256Hex(metadata.bytes) };
}
