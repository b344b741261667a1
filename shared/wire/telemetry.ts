// Why: the sealed batch between a device's outbox and its region, and the answer to it (DESIGN 8).
// Trusts: nothing before the schemas; what is signed is checked in shared/trust/telemetry.ts.
// Must never: carry a record in clear outside the sealed body.
//
// On the topic `telemetry`, one MQTT message a batch, big endian:
//   u8 format (1) · u8 zero · u16 wrap length · u32 statement length · statement · wrap · body
// statement  DSSE envelope (JSON) of `batchStatementSchema`, signed by the device when it sends
// wrap       libsodium sealed box to the region's key for this device and period: batch key (32) ‖ SHA-256 of head (32)
// body       packed: one secretbox of the compressed, padded records; rows: u32 length ‖ secretbox, repeated; tombstone: empty
// The head inside the statement is fixed when the batch is opened: the wrap is made then, so that a batch whose
// key was lost in a crash can still be opened by the region. What is known only at the end (count, format) is
// in the statement around it. The chain runs over heads.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { deviceIdSchema, nameSchema, releaseIdSchema, telemetryClasses } from './messages.ts';

const timeMs = z.number().int().nonnegative();
const sha256 = z.string().regex(sha256Pattern);

/**
 * How far behind the chain's end a batch may be that comes again: anything older was kept by somebody else. A device sends
 * nothing that is further ahead of its oldest batch without an answer, so that this one may always come again.
 */
export const resendBatchesMax = 16;

/** One record in clear: only inside a sealed body, and in the region's store. `data` is any JSON object. */
export const telemetryRecordSchema = z.object({
  timeMs,
  release: releaseIdSchema.nullable(),
  data: z.record(z.string(), z.unknown()),
});
export type TelemetryRecord = z.infer<typeof telemetryRecordSchema>;

export const batchHeadSchema = z.object({
  schemaVersion: z.literal(1),
  deviceId: deviceIdSchema,
  region: nameSchema,
  /** Grows with each enrolment; sequences start at 1 in each. */
  epoch: z.number().int().nonnegative(),
  sequence: z.number().int().positive(),
  /** SHA-256 of the exact bytes of the head before; null for the first of an epoch. */
  previousHeadSha256: sha256.nullable(),
  class: z.enum(telemetryClasses),
  /** The region's key that the wrap is sealed to. */
  keyId: z.string().min(1).max(64),
  openedAtMs: timeMs,
});
export type BatchHead = z.infer<typeof batchHeadSchema>;

export const batchFormats = ['packed', 'rows', 'tombstone'] as const;

export const batchStatementSchema = z.object({
  schemaVersion: z.literal(1),
  /** Exact bytes of the head (JSON), base64. */
  head: z.base64().max(4_096),
  format: z.enum(batchFormats),
  /** Records in the body; for a tombstone those that were dropped. */
  recordCount: z.number().int().nonnegative().max(1_000_000),
  wrapSha256: sha256,
  bodySha256: sha256,
  /** Bytes of the body before sealing and compression, for a cap before anything is inflated. */
  plainBytes: z
    .number()
    .int()
    .nonnegative()
    .max(64 * 1024 * 1024),
});
export type BatchStatement = z.infer<typeof batchStatementSchema>;

/** What the region signs (`ack` key) for each batch, after its commit; `refused` changes nothing in the store. */
export const batchAnswerSchema = z.object({
  schemaVersion: z.literal(1),
  deviceId: deviceIdSchema,
  region: nameSchema,
  epoch: z.number().int().nonnegative(),
  sequence: z.number().int().positive(),
  headSha256: sha256,
  /** More waits at the region than it stores at once: nothing new before this long, and less at a time then. */
  pauseMs: z.number().int().positive().optional(),
  result: z.discriminatedUnion('status', [
    /** Stored now or before; the device deletes it. */
    z.object({ status: z.literal('stored'), records: z.number().int().nonnegative() }),
    z.object({
      status: z.literal('refused'),
      code: z.string().max(64),
      detail: z.string().max(2_000),
      /** The sequence that the region waits for. */
      expectedSequence: z.number().int().positive(),
    }),
  ]),
});
export type BatchAnswer = z.infer<typeof batchAnswerSchema>;

export {
  type DroppedRecords,
  droppedRecordsSchema,
  type TelemetryClass,
  type TelemetryKey,
  telemetryClasses,
  telemetryKeySchema,
} from './messages.ts';

/** `lepton telemetry query --json`, one line a record (contract). */
export const storedRecordSchema = z.object({
  device: deviceIdSchema,
  epoch: z.number().int().nonnegative(),
  sequence: z.number().int().positive(),
  index: z.number().int().nonnegative(),
  class: z.enum(telemetryClasses),
  timeMs,
  release: z.string().nullable(),
  data: z.record(z.string(), z.unknown()),
});
export type StoredRecord = z.infer<typeof storedRecordSchema>;
