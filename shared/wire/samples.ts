// Why: a request that a device kept as its rules asked, as a record, in the review queue, and as a row of a dataset.
// Trusts: nothing before the schemas. Must never: put a value of a request where it is not sealed at rest.

import { z } from 'zod';
import { deviceIdSchema, releaseIdSchema } from './messages.ts';
import { sampleReasons } from './sample-rules.ts';
import { tensorsMax } from './tensor-json.ts';

const count = z.number().int().nonnegative();
const share = z.number().min(0).max(1);

/** An element that was masked is null; 64-bit integers beyond 2^53, NaN and infinities are text. */
export const sampleTensorSchema = z.object({
  name: z.string().min(1).max(512),
  datatype: z.string().max(16),
  shape: z.array(count).max(16),
  data: z.array(z.union([z.number(), z.string(), z.boolean(), z.null()])),
});
export type SampleTensor = z.infer<typeof sampleTensorSchema>;

/** What is sealed. */
const content = {
  /** The client's, null where it gave none or it was masked. */
  requestId: z.string().max(256).nullable(),
  /** Null where the answer has none that is known, or the output that it comes from is masked. */
  confidence: z.number().nullable(),
  /** Of the candidate that answered otherwise. */
  agreement: share.optional(),
  candidate: releaseIdSchema.optional(),
  inputs: z.array(sampleTensorSchema).max(tensorsMax),
  outputs: z.array(sampleTensorSchema).max(tensorsMax),
};

/** Data of a record of class `sample`. */
export const captureRecordSchema = z.object({
  kind: z.literal('capture'),
  /** Name under which it is served. */
  model: z.string().min(1).max(512),
  reasons: z.array(z.enum(sampleReasons)).min(1),
  ...content,
});
export type CaptureRecord = z.infer<typeof captureRecordSchema>;

/** `erased`: it was accepted, and its record deleted afterwards: its device was erased, or its class is not kept so long. */
export const sampleStates = ['waiting', 'accepted', 'rejected', 'erased'] as const;
export type SampleState = (typeof sampleStates)[number];

export const sampleIdSchema = z.string().regex(/^\d{1,15}\.\d{1,9}$/, 'expected BATCH.INDEX');

export const sampleEntrySchema = z.object({
  id: sampleIdSchema,
  device: deviceIdSchema,
  release: releaseIdSchema,
  /** By the device's clock. */
  timeMs: count,
  reasons: z.array(z.enum(sampleReasons)),
  state: z.enum(sampleStates),
  /** The last review; null before it. */
  label: z.string().nullable(),
  comment: z.string().nullable(),
  reviewer: z.string().nullable(),
  reviewedAtMs: count.nullable(),
});
export type SampleEntry = z.infer<typeof sampleEntrySchema>;

export const sampleListSchema = z.object({
  samples: z.array(sampleEntrySchema),
  /** Cursor of the next page, null at the end. */
  next: sampleIdSchema.nullable(),
  /** Of all that fit, those that wait. */
  waiting: count,
});
export type SampleList = z.infer<typeof sampleListSchema>;

export const sampleShownSchema = sampleEntrySchema.extend(content);
export type SampleShown = z.infer<typeof sampleShownSchema>;

const comment = z.string().max(2_000).optional();
export const sampleReviewSchema = z.discriminatedUnion('decision', [
  z.strictObject({ decision: z.literal('accept'), label: z.string().min(1).max(256), comment }),
  z.strictObject({ decision: z.literal('reject'), comment }),
]);
export type SampleReview = z.infer<typeof sampleReviewSchema>;

/** One accepted sample for training: no device, no person, no request id. */
export const sampleRowSchema = z.object({
  id: sampleIdSchema,
  release: releaseIdSchema,
  timeMs: count,
  reasons: z.array(z.enum(sampleReasons)),
  inputs: z.array(sampleTensorSchema),
  outputs: z.array(sampleTensorSchema),
  target: z.string(),
});
export type SampleRow = z.infer<typeof sampleRowSchema>;

/** `GET …/samples/dataset`, a page of it. */
export const samplePageSchema = z.object({
  rows: z.array(sampleRowSchema),
  next: sampleIdSchema.nullable(),
  /** Accepted ones of this page that are gone. */
  erased: count,
});
export type SamplePage = z.infer<typeof samplePageSchema>;

/** What a device decided in a window, as a record of class `stats`. */
export const samplesStatsSchema = z.object({
  kind: z.literal('samples'),
  model: z.string().min(1).max(512),
  windowMs: z.number().nonnegative(),
  kept: count,
  /** Above the cap of the hour. */
  over: count,
  tooLarge: count,
  /** Of all three, by reason; one request may have several. */
  reasons: z.record(z.string(), count),
});
export type SamplesStats = z.infer<typeof samplesStatsSchema>;
