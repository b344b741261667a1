// Why: what is carried between the registry and machines without a network: the plan (what is in force) and the
// bundle (what is to follow, with the signatures so far).
// Trusts: nothing that was read; shared/trust/ceremony judges what the documents in them say.
// Must never: hold a private key.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { type Result, refuse } from '../kernel/result.ts';
import { holderSchema } from './key-file.ts';
import { nameSchema, parseMessage } from './messages.ts';

const document = z.base64();
const publicKey = z.string().regex(/^[0-9a-f]{64}$/);
const timeMs = z.number().int().nonnegative();
/** Versions up to this one were given out and lost in a restore: the next one is above it. */
const versionFloor = z.number().int().nonnegative();

/** Roles whose keys the registry holds, by the names they have in the catalogue's and the region's root. */
export const onlineRoles = ['snapshot', 'timestamp', 'director', 'time', 'ack', 'command'] as const;
export type OnlineRole = (typeof onlineRoles)[number];
export const onlineKeysSchema = z.strictObject({
  snapshot: publicKey,
  timestamp: publicKey,
  director: publicKey,
  time: publicKey,
  ack: publicKey,
  command: publicKey,
});
export type OnlineKeys = z.infer<typeof onlineKeysSchema>;

/** `lepton keys plan`: everything one must know to make the next documents without a network. */
export const keyPlanSchema = z.strictObject({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-key-plan'),
  region: nameSchema,
  madeAtMs: timeMs,
  /** `development`: the registry holds keys that should be offline. */
  keys: z.enum(['development', 'offline']),
  /** Exact bytes of the documents in force. */
  root: document,
  regionRoot: document,
  targets: document,
  publishers: z.array(
    z.strictObject({
      namespace: nameSchema,
      keys: z.array(publicKey),
      threshold: z.number().int().positive(),
      /** Exact bytes of its targets metadata in force, null before its first push. */
      metadata: document.nullable(),
      versionFloor: versionFloor.default(0),
    }),
  ),
  online: onlineKeysSchema,
  /** Key id to holder, beyond those that the roots name. */
  holders: z.record(z.string().regex(sha256Pattern), holderSchema),
  /** Made for this plan and held by the registry; they sign nothing until a root that names them is installed. */
  newOnline: onlineKeysSchema.nullable(),
});
export type KeyPlan = z.infer<typeof keyPlanSchema>;

const byNamespace = z.record(nameSchema, document);

/** What is to follow what. `next` gathers signatures on its way from holder to holder. */
export const keyBundleSchema = z.strictObject({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-key-bundle'),
  region: nameSchema,
  madeAtMs: timeMs,
  current: z.strictObject({
    root: document,
    regionRoot: document,
    targets: document,
    /** Of the namespaces that get a new document. */
    publishers: byNamespace,
    versionFloors: z.record(nameSchema, versionFloor).default({}),
  }),
  /** Null: the one in force stays. */
  next: z.strictObject({
    root: document.nullable(),
    regionRoot: document.nullable(),
    targets: document.nullable(),
    publishers: byNamespace,
  }),
  /** Namespaces whose releases are knowingly left without enough signatures until their publisher signs again. */
  leftUnsigned: z.array(nameSchema),
  /** Key id to holder, for the words in which a bundle is shown; proves nothing. */
  holders: z.record(z.string().regex(sha256Pattern), holderSchema),
});
export type KeyBundle = z.infer<typeof keyBundleSchema>;

/** A plan holds the metadata of every publisher. */
export const keyPlanBytesMax = 256 * 1024 * 1024;
/** What the registry takes in one request. */
export const keyBundleBytesMax = 16 * 1024 * 1024;

/** Refusal: `key-plan-malformed`. */
export function parseKeyPlan(bytes: Uint8Array): Result<KeyPlan> {
  if (bytes.length > keyPlanBytesMax)
    return refuse('key-plan-malformed', `larger than ${keyPlanBytesMax} bytes`);
  const parsed = parseMessage(keyPlanSchema, bytes);
  return parsed.ok ? parsed : refuse('key-plan-malformed', parsed.refusal.detail);
}

/** Refusal: `key-bundle-malformed`. */
export function parseKeyBundle(bytes: Uint8Array): Result<KeyBundle> {
  if (bytes.length > keyBundleBytesMax)
    return refuse('key-bundle-malformed', `larger than ${keyBundleBytesMax} bytes`);
  const parsed = parseMessage(keyBundleSchema, bytes);
  return parsed.ok ? parsed : refuse('key-bundle-malformed', parsed.refusal.detail);
}
