// Why: what a region signs when it has deleted a device's telemetry: which keys, how many records, asked for by whom.
// Trusts: nothing before the schemas. Must never: hold anything of what was erased.

import { z } from 'zod';
import { deviceIdSchema, envelopeSchema, nameSchema } from './messages.ts';

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
});
