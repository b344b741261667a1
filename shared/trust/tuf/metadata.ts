// Why: metadata as the house writes and reads it: the four TUF roles under the house's rules (Ed25519 only, key
// ids recomputed, consistent snapshots, SHA-256) with the house's own words in them.
// Trusts: nothing; whether a file is signed, fresh and current is decided in trusted-set.ts.
// Must never: let a key, a digest or a key id pass that the house does not use.

import { z } from 'zod';
import type { JsonValue } from '../../crypto/canonical-json.ts';
import { sha256Hex } from '../../crypto/digests.ts';
import { invariant } from '../../kernel/errors.ts';
import { namePattern } from '../../kernel/releases.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { describeIssues } from '../../wire/messages.ts';
import {
  type DelegatedRole,
  type ListedTarget,
  type MetadataHead,
  type MetaFile,
  memberOf,
  type RootFile,
  readRoot,
  readSnapshot,
  readTargets,
  readTimestamp,
  type SnapshotMetadata,
  type TimestampMetadata,
} from './format.ts';
import type { FormatRules } from './policy.ts';

export type {
  DelegatedRole,
  MetadataHead,
  MetadataSignature,
  MetaFile,
  RoleKey,
  RoleKeys,
  SnapshotMetadata,
  TimestampMetadata,
} from './format.ts';

export const houseFormat: FormatRules = {
  keyIds: 'recomputed',
  consistentSnapshots: 'required',
  digests: new Map([['sha256', sha256Hex]]),
  readKey(key) {
    const hex = key.public ?? '';
    if (key.keyType !== 'ed25519' || key.scheme !== 'ed25519') return null;
    if (!/^[0-9a-f]{64}$/.test(hex)) return null;
    return { publicKey: new Uint8Array(Buffer.from(hex, 'hex')) };
  },
};

export interface RootMetadata extends RootFile {
  /** The region whose root this is; null for the catalogue's. */
  region: string | null;
  /** Who holds which key, by key id, in the words of the ceremony: for people, proves nothing. */
  holders: ReadonlyMap<string, string>;
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

export interface TargetsMetadata extends MetadataHead {
  type: 'targets';
  targets: ReadonlyMap<string, TargetEntry>;
  delegations: readonly DelegatedRole[];
  /** Lowest counter the director may assign, by model name without namespace (`x-lepton`). */
  floors: ReadonlyMap<string, number>;
  /** Counters of single releases that their publisher took back, by model name without namespace (`x-lepton`). */
  withdrawn: ReadonlyMap<string, ReadonlySet<number>>;
}

// A whole number: the reader of the text takes no others (`integersOnly`).
const counterSchema = z.number().nonnegative();
const rootWords = z
  .object({
    kind: z.literal('region').optional(),
    region: z.string().regex(namePattern).optional(),
    holders: z.record(z.string().min(1).max(256), z.string().max(128)).optional(),
  })
  .refine((own) => (own.kind === undefined) === (own.region === undefined), 'half a region');
const targetsWords = z.object({
  floors: z.record(z.string().regex(namePattern), counterSchema).optional(),
  withdrawn: z.record(z.string().regex(namePattern), z.array(counterSchema).max(10_000)).optional(),
});
const customSchema = z.object({ counter: counterSchema.optional(), requires: z.unknown().optional() });

/** What stands under `x-lepton`; a file without it says nothing of ours. */
function ownWords<S extends z.ZodType>(schema: S, json: JsonValue): Result<z.infer<S>> {
  const own = schema.safeParse(memberOf(json, 'x-lepton') ?? {});
  return own.success ? ok(own.data) : refuse('metadata-malformed', describeIssues(own.error));
}

/** Reads a root-format file that names at least these roles. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseRoot(bytes: Uint8Array, requiredRoles: readonly string[]): Result<RootMetadata> {
  const read = readRoot(houseFormat, bytes, requiredRoles);
  if (!read.ok) return read;
  const own = ownWords(rootWords, read.value.json);
  if (!own.ok) return own;
  const holders = new Map(Object.entries(own.value.holders ?? {}));
  return ok({ ...read.value.root, region: own.value.region ?? null, holders });
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseTimestamp(bytes: Uint8Array): Result<TimestampMetadata> {
  return readTimestamp(houseFormat, bytes);
}

/** Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseSnapshot(bytes: Uint8Array): Result<SnapshotMetadata> {
  return readSnapshot(houseFormat, bytes);
}

/** Reads the top-level or a delegated targets file. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function parseTargets(bytes: Uint8Array): Result<TargetsMetadata> {
  const read = readTargets(houseFormat, bytes);
  if (!read.ok) return read;
  const own = ownWords(targetsWords, read.value.json);
  if (!own.ok) return own;
  const targets = new Map<string, TargetEntry>();
  for (const [path, listed] of read.value.targets.targets) {
    const entry = targetEntry(listed);
    if (!entry.ok) return entry;
    targets.set(path, entry.value);
  }
  return ok({
    ...read.value.targets,
    targets,
    floors: new Map(Object.entries(own.value.floors ?? {})),
    withdrawn: new Map(
      Object.entries(own.value.withdrawn ?? {}).map(([name, counters]) => [name, new Set(counters)]),
    ),
  });
}

function targetEntry(listed: ListedTarget): Result<TargetEntry> {
  const custom = customSchema.safeParse(listed.custom ?? {});
  if (!custom.success) return refuse('metadata-malformed', describeIssues(custom.error));
  // houseFormat counts SHA-256 alone, so each listing that was read has it.
  invariant(listed.sha256 !== null, 'a target without SHA-256 was read');
  return ok({
    bytes: listed.bytes,
    sha256: listed.sha256,
    counter: custom.data.counter ?? null,
    requires: memberOf(listed.custom, 'requires'),
  });
}

/** How a file is listed in snapshot or timestamp: its version, length and digest. */
export function describeMetadata(metadata: MetadataHead): MetaFile {
  return { version: metadata.version, bytes: metadata.bytes.length, sha256: sha256Hex(metadata.bytes) };
}
