// Why: a device that moved sends what it sealed for its old region through the new one, which cannot read it. Here is the
// envelope on the bus, and what the two regions tell each other about it.
// Trusts: nothing. Must never: change a byte of a batch.
//
// On the topic `carried`, one MQTT message a batch:
//   u8 format (1) · u8 length of the region's name · name · the batch as on the topic `telemetry`
// On `carried/ack` comes what the old region signed for it, as on `telemetry/ack`, or a notice of the present region.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { deviceIdSchema, envelopeSchema, nameSchema } from './messages.ts';

const formatVersion = 1;
const whole = z.number().int().nonnegative();

export interface CarriedMessage {
  /** Whose batch it is. */
  region: string;
  /** As the device signed it; a view of the message. */
  batch: Uint8Array;
}

export function encodeCarried({ region, batch }: CarriedMessage): Uint8Array {
  const name = new TextEncoder().encode(nameSchema.parse(region));
  const bytes = new Uint8Array(2 + name.length + batch.length);
  bytes[0] = formatVersion;
  bytes[1] = name.length;
  bytes.set(name, 2);
  bytes.set(batch, 2 + name.length);
  return bytes;
}

/** Refusal: `carried-malformed`. */
export function decodeCarried(bytes: Uint8Array): Result<CarriedMessage> {
  const [format, length = 0] = bytes;
  if (format !== formatVersion || bytes.length < 2 + length)
    return refuse('carried-malformed', `${bytes.length} bytes are no carried batch`);
  const region = nameSchema.safeParse(Buffer.from(bytes.subarray(2, 2 + length)).toString('latin1'));
  if (!region.success) return refuse('carried-malformed', 'it names no region');
  return ok({ region: region.data, batch: bytes.subarray(2 + length) });
}

const which = {
  deviceId: deviceIdSchema,
  epoch: whole,
  sequence: z.number().int().positive(),
  headSha256: z.string().regex(sha256Pattern),
};

/** What the present region signs (`ack` key) where it does not take a batch: never that it is stored. */
export const carriedNoticeSchema = z.object({
  schemaVersion: z.literal(1),
  ...which,
  /** Who signs. */
  region: nameSchema,
  /** Whose batch it is. */
  forRegion: nameSchema,
  code: z.string().max(64),
  detail: z.string().max(2_000),
  /** The device tries again after this long. */
  pauseMs: z.number().int().positive(),
});
export type CarriedNotice = z.infer<typeof carriedNoticeSchema>;

/** An item of the list `carried`, from the present region to the old one. */
export const carriedItemSchema = z.object({ ...which, batch: z.base64().max(1_000_000) });

/** An item of the list `carried-answers`, the other way. */
export const carriedAnswerSchema = z.object({
  ...which,
  /** What the old region signed for the device (`batchAnswerSchema`); null where it has nothing to say to it. */
  envelope: envelopeSchema.nullable(),
  /** Why not: the copy that was carried is of no use, and the device sends the batch again. */
  code: z.string().max(64).nullable(),
});
export type CarriedAnswer = z.infer<typeof carriedAnswerSchema>;

/** An item of the list `moved`: the device's own first report in its new region, as it signed it. */
export const movedItemSchema = z.object({
  deviceId: deviceIdSchema,
  moveId: z.string().max(64),
  report: envelopeSchema,
});
