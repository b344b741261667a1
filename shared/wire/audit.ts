// Why: the audit record as it leaves its region: entries of the chain, signed heads, and the lines of an export.
// Trusts: nothing before the schemas. Must never: let a field pass that the digest does not cover.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { envelopeSchema, nameSchema } from './messages.ts';

const timeMs = z.number().int().nonnegative();
const count = z.number().int().nonnegative();
const sha256 = z.string().regex(sha256Pattern);

export const auditVias = ['api', 'region', 'device', 'job', 'start'] as const;
export const auditOutcomes = ['done', 'refused', 'failed'] as const;

/** What the digest of an entry covers; strict, since a field beside it would be covered by nothing. */
export const auditEntryBodySchema = z.strictObject({
  /** Rises by one, from 1. */
  id: z.number().int().positive(),
  atMs: timeMs,
  region: nameSchema,
  actor: z.string().max(256),
  via: z.enum(auditVias),
  action: z.string().max(128),
  subject: z.string().max(512).nullable(),
  reason: z.string().max(1_000).nullable(),
  outcome: z.enum(auditOutcomes),
  code: z.string().max(128).nullable(),
  rule: z.string().max(256).nullable(),
  address: z.string().max(128).nullable(),
  /** Numbers are whole: a fraction has no canonical form and stands as text. */
  detail: z.record(
    z.string().max(128),
    z.union([z.string().max(512), z.number().int(), z.boolean(), z.null()]),
  ),
  /** Of the entry before; zeros in the first one. */
  previousSha256: sha256,
});
export type AuditEntryBody = z.infer<typeof auditEntryBodySchema>;

export const auditEntrySchema = auditEntryBodySchema.extend({ entrySha256: sha256 });
export type AuditEntry = z.infer<typeof auditEntrySchema>;

/** Payload of an envelope that the region's `ack` key signs. */
export const auditHeadSchema = z.object({
  schemaVersion: z.literal(1),
  region: nameSchema,
  /** Id of the newest entry. */
  entries: z.number().int().positive(),
  /** Its digest, and with it that of every entry before. */
  headSha256: sha256,
  atMs: timeMs,
  /** Of the region's heads; rises by one. */
  sequence: z.number().int().positive(),
});
export type AuditHead = z.infer<typeof auditHeadSchema>;

/** A head of another region as it was taken there. */
export const auditPeerHeadSchema = z.strictObject({
  region: nameSchema,
  receivedAtMs: timeMs,
  /** Code of how it does not go together with another one of that region. */
  conflict: z.string().max(128).nullable(),
  envelope: envelopeSchema,
});
export type AuditPeerHead = z.infer<typeof auditPeerHeadSchema>;

/** Payload of the last line of an export, signed like a head: every line before it, as it was written. */
export const auditClosingSchema = z.object({
  schemaVersion: z.literal(1),
  region: nameSchema,
  lines: count,
  /** Over the bytes of those lines, line feeds included. */
  linesSha256: sha256,
  atMs: timeMs,
});
export type AuditClosing = z.infer<typeof auditClosingSchema>;

export const auditExportHeaderSchema = z.strictObject({
  schemaVersion: z.literal(1),
  region: nameSchema,
  /** Of the region's first root, as claim files have it. */
  rootSha256: sha256,
  /** Exact bytes of every root of the region, from the first on; base64. */
  roots: z.array(z.base64().max(1_000_000)).min(1).max(10_000),
});
export type AuditExportHeader = z.infer<typeof auditExportHeaderSchema>;

/** `GET /api/v1/audit/export`: one of these a line, in this order. */
export const auditLineSchema = z.union([
  z.strictObject({ header: auditExportHeaderSchema }),
  z.strictObject({ entry: auditEntrySchema }),
  z.strictObject({ head: envelopeSchema }),
  z.strictObject({ peerHead: auditPeerHeadSchema }),
  z.strictObject({ closing: envelopeSchema }),
]);
export type AuditLine = z.infer<typeof auditLineSchema>;

/** `GET /api/v1/audit` */
export const auditPageSchema = z.object({
  entries: z.array(auditEntrySchema),
  /** To go on behind; null where this was the last page. */
  after: z.number().int().nullable(),
});
export type AuditPage = z.infer<typeof auditPageSchema>;
