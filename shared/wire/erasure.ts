// Why: what a region signs when it has deleted a device's telemetry: which keys, how many records, asked for by whom.
// Trusts: nothing before the schemas. Must never: hold anything of what was erased.

import { z } from 'zod';
import { deviceIdSchema, envelopeSchema, labelsSchema, nameSchema } from './messages.ts';

const timeMs = z.number().int().nonnegative();
const count = z.number().int().nonnegative();

/** Payload of an envelope that the region's `ack` key signs. */
export const erasureStatementSchema = z.object({
  schemaVersion: z.literal(1),
  erasureId: z.string().min(1).max(64),
  deviceId: deviceIdSchema,
  region: nameSchema,
  /** Keys made before this were deleted. Unix milliseconds. */
  untilMs: timeMs,
  keys: z.array(
    z.object({
      keyId: z.string().min(1).max(64),
      epoch: count,
      /** The period in which the device sealed to it. */
      fromMs: timeMs,
      endsMs: timeMs,
    }),
  ),
  /** Deleted here. What comes later under these keys opens nowhere. */
  batches: count,
  records: count,
  requestedBy: z.string().max(128),
  reason: z.string().max(1_000).nullable(),
  doneAtMs: timeMs,
});
export type ErasureStatement = z.infer<typeof erasureStatementSchema>;

/** What `lepton telemetry erase --out` writes: what was done, and the proof. */
export const erasureSchema = z.object({ statement: erasureStatementSchema, certificate: envelopeSchema });
export type Erasure = z.infer<typeof erasureSchema>;

/** `POST /api/v1/devices/{id}/telemetry/erasure` */
export const erasureRequestSchema = z.object({
  /** Absent: everything up to now. */
  untilMs: timeMs.optional(),
  reason: z.string().max(1_000).optional(),
  /** Every other region is asked to erase what it holds of the device as well. */
  allRegions: z.boolean().optional(),
});

/** `POST /api/v1/telemetry/erasures`: every device that has all of these labels, such as `subject=…`. */
export const labelErasureRequestSchema = erasureRequestSchema.extend({
  labels: labelsSchema.refine((labels) => Object.keys(labels).length > 0, 'name one label at least'),
});

const erasureIdSchema = z.string().min(1).max(64);

/** An item of the list `erasures`, which each region offers to its peers. */
export const erasureItemSchema = z.discriminatedUnion('kind', [
  /** What this region erased. */
  z.object({ kind: z.literal('erased'), erasure: erasureSchema }),
  /** What the region that reads this said itself: it may have been restored from before that. */
  z.object({ kind: z.literal('returned'), erasure: erasureSchema }),
  /** Every `returned` that there is stands before this: answer to `restored`. */
  z.object({ kind: z.literal('all-returned'), incarnation: z.string().min(1).max(64) }),
  /** Asked for by the region that reads this, and left to people here. */
  z.object({ kind: z.literal('declined'), erasureId: erasureIdSchema, reason: z.string().max(1_000) }),
]);
export type ErasureItem = z.infer<typeof erasureItemSchema>;

/** An item of the list `erasure-requests`. */
export const erasureRequestItemSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('erase'),
    erasureId: erasureIdSchema,
    deviceId: deviceIdSchema,
    untilMs: timeMs,
    requestedBy: z.string().max(128),
    reason: z.string().max(1_000).nullable(),
    askedAtMs: timeMs,
  }),
  /** This region was restored from a backup and lives this life now. */
  z.object({ kind: z.literal('restored'), incarnation: z.string().min(1).max(64) }),
]);
export type ErasureRequestItem = z.infer<typeof erasureRequestItemSchema>;

/** How far an erasure that was asked of every region is. */
export const erasureRegionsSchema = z.object({
  erasureId: z.string(),
  deviceId: deviceIdSchema,
  untilMs: timeMs,
  requestedBy: z.string(),
  askedAtMs: timeMs,
  regions: z.array(
    z.object({
      region: z.string(),
      /** `asked`: it was not heard from since. `declined`: an admin of that region has to decide. */
      state: z.enum(['done', 'asked', 'declined']),
      doneAtMs: timeMs.nullable(),
      reason: z.string().nullable(),
    }),
  ),
});
export type ErasureRegions = z.infer<typeof erasureRegionsSchema>;
