// Why: what regions say to each other: the invitation, joining, the list of regions, pages of streams.
// Trusts: nothing before the schema; the list is signed (shared/trust/region-list.ts).
// Must never: carry a telemetry key or a record of a device.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { nameSchema } from './messages.ts';

const timeMs = z.number().int().nonnegative();
const publicKey = z.string().regex(/^[0-9a-f]{64}$/);
const sha256 = z.string().regex(sha256Pattern);
/** Where a region's door is reached. */
export const doorUrlSchema = z
  .string()
  .max(300)
  .regex(/^https:\/\/[^/?#@\s]+$/, 'expected https://HOST:PORT');

/** `lepton regions add NAME --out FILE`: lets one registry join as that region, once. A secret. */
export const invitationSchema = z.strictObject({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-region-invitation'),
  /** What the region will be called. */
  region: nameSchema,
  home: z.strictObject({ region: nameSchema, url: doorUrlSchema, publicKey }),
  secret: publicKey,
  /** Digest of the catalogue root from which the new region begins. */
  catalogueRootSha256: sha256,
  expiresAtMs: timeMs,
});
export type Invitation = z.infer<typeof invitationSchema>;

export const regionEntrySchema = z.strictObject({
  region: nameSchema,
  url: doorUrlSchema,
  /** Ed25519 key of its door's certificate. It never changes under one name. */
  publicKey,
  /** Digest of the region root it joined with; later ones are reached from it. */
  regionRootSha256: sha256,
  joinedAtMs: timeMs,
});
export type RegionEntry = z.infer<typeof regionEntrySchema>;

/** Which regions there are. Signed by whoever holds the catalogue's snapshot key: the home region. */
export const regionListSchema = z.strictObject({
  schemaVersion: z.literal(1),
  /** Only rises under one home. */
  version: z.number().int().positive(),
  home: nameSchema,
  issuedAtMs: timeMs,
  regions: z.array(regionEntrySchema).max(1_000),
  /** Names that were taken away; nobody gets one again. */
  removed: z.array(nameSchema).max(10_000),
});
export type RegionList = z.infer<typeof regionListSchema>;

/** `POST /regions/v1/join`, with the certificate of the key that the region will have. */
export const joinRequestSchema = z.strictObject({
  schemaVersion: z.literal(1),
  region: nameSchema,
  secret: publicKey,
  url: doorUrlSchema,
  /** Exact bytes of its region root, base64. */
  regionRoot: z.base64(),
});
export type JoinRequest = z.infer<typeof joinRequestSchema>;
/** What it gets: the signed list, and the catalogue's roots from the one of the invitation on. */
export const joinAnswerSchema = z.strictObject({
  list: z.base64(),
  roots: z.array(z.base64()).min(1).max(1_000),
});

/** `GET /regions/v1/streams/NAME?after=N&limit=M`. */
export const streamPageSchema = z.strictObject({
  /** Of the database that numbers them: a restored one counts anew. */
  incarnation: z.string().max(64),
  items: z.array(z.strictObject({ id: z.number().int().nonnegative(), body: z.unknown() })).max(1_000),
  more: z.boolean(),
});
export type StreamPage = z.infer<typeof streamPageSchema>;

/** A refusal at the door. */
export const doorProblemSchema = z.object({
  code: z.string(),
  detail: z.string(),
  rule: z.string().optional(),
});

/** `GET /api/v1/regions`. */
export const regionViewSchema = z.object({
  region: z.string(),
  url: z.string(),
  home: z.boolean(),
  self: z.boolean(),
  joinedAtMs: timeMs,
  /** Null of this region itself. */
  link: z
    .object({
      state: z.enum(['connected', 'unreachable', 'refused', 'waiting']),
      lastContactMs: timeMs.nullable(),
      code: z.string().nullable(),
      detail: z.string().nullable(),
      bytesIn: z.number().int(),
      streams: z.array(z.object({ name: z.string(), last: z.number().int(), taken: z.number().int() })),
    })
    .nullable(),
});
export type RegionView = z.infer<typeof regionViewSchema>;
export const mirrorViewSchema = z.object({
  timestampVersion: z.number().int(),
  expiresAtMs: timeMs,
  wanted: z.number().int(),
  refused: z.array(z.object({ releaseId: z.string(), code: z.string(), detail: z.string() })),
});
export const regionsStatusSchema = z.object({
  region: z.string(),
  home: z.string(),
  /** Whether this registry signs the catalogue. */
  signs: z.boolean(),
  door: z.string().nullable(),
  listVersion: z.number().int(),
  regions: z.array(regionViewSchema),
  catalogue: mirrorViewSchema,
  invitations: z.array(z.object({ region: z.string(), expiresAtMs: timeMs, usedAtMs: timeMs.nullable() })),
});
export type RegionsStatus = z.infer<typeof regionsStatusSchema>;

export const invitationCreateSchema = z.object({
  region: nameSchema,
  ttlMs: z
    .number()
    .int()
    .positive()
    .max(30 * 86_400_000)
    .default(86_400_000),
});

/** `GET /regions/v1/region-roots?after=VERSION`. */
export const regionRootsSchema = z.strictObject({ roots: z.array(z.base64()).max(1_000) });
/** `POST /regions/v1/moved`. */
export const doorMovedSchema = z.strictObject({ url: doorUrlSchema });
