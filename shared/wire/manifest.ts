// Why: the release manifest (contract, section 12): every file by digest and length, and how to serve it.
// Trusts: nothing before the schema. Must never: name a file outside the release's folder.

import { z } from 'zod';
import { fileRoles, releasePathPattern, sha256Pattern } from '../kernel/releases.ts';
import { energyModelSchema } from './energy.ts';
import { versionSchema } from './messages.ts';

const modelIdSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9-]{0,62}$/, 'expected NS/NAME');

/** OIP datatypes; BYTES stands for ONNX strings. */
export const datatypes = [
  'BOOL',
  'INT8',
  'INT16',
  'INT32',
  'INT64',
  'UINT8',
  'UINT16',
  'UINT32',
  'UINT64',
  'FP16',
  'FP32',
  'FP64',
  'BYTES',
] as const;
export const datatypeSchema = z.enum(datatypes);
export type Datatype = (typeof datatypes)[number];

/** A tensor of the model's signature. A free dimension is −1, as in OIP metadata. */
export const tensorSignatureSchema = z.object({
  name: z.string().min(1).max(512),
  datatype: datatypeSchema,
  shape: z.array(z.number().int().min(-1)).max(16),
});
export type TensorSignature = z.infer<typeof tensorSignatureSchema>;

export const manifestFileSchema = z.object({
  path: z.string().regex(releasePathPattern, 'must stay inside the release folder'),
  role: z.enum(fileRoles),
  sha256: z.string().regex(sha256Pattern),
  bytes: z.number().int().nonnegative(),
});

/** How two releases are compared on live inputs (shared/stats/agreement.ts). */
export const comparisons = ['exact', 'absolute', 'relative', 'argmax', 'top-k', 'iou'] as const;
export type Comparison = (typeof comparisons)[number];

/** Other names in use for the same comparisons. */
export const comparisonAliases = {
  equal: 'exact',
  abs: 'absolute',
  atol: 'absolute',
  rel: 'relative',
  rtol: 'relative',
  topk: 'top-k',
  top_k: 'top-k',
} as const satisfies Record<string, Comparison>;
const comparisonNames = [
  ...comparisons,
  ...(Object.keys(comparisonAliases) as (keyof typeof comparisonAliases)[]),
] as const;

/** Where a detector's boxes stand in its outputs (shared/stats/detections.ts). */
export const detectionsSchema = z.object({
  /** Output of boxes `[…, N, 4]`; without `scores` of rows `[…, N, 4 box, objectness, classes…]`. */
  boxes: z.string().max(512),
  /** Output of scores `[…, N, classes]`. */
  scores: z.string().max(512).optional(),
  /** Leading columns of `scores` that stand for background. */
  background: z.number().int().nonnegative().max(1).optional(),
  format: z.enum(['xyxy', 'xywh', 'cxcywh']).default('xyxy'),
  /** Boxes are offsets in grid cells, sizes logarithms, as an anchor-free head gives them: [height, width] of the image. */
  grid: z
    .object({
      strides: z.array(z.number().int().positive().max(1_024)).min(1).max(8),
      imageSize: z.tuple([z.number().int().positive().max(8_192), z.number().int().positive().max(8_192)]),
    })
    .optional(),
  scoreMin: z.number().min(0).max(1).default(0.3),
  /** Boxes of one class that overlap more are one. */
  suppressIou: z.number().min(0).max(1).default(0.45),
});
export type Detections = z.infer<typeof detectionsSchema>;

export const compareSchema = z.object({
  /** Outputs to look at: one, several, or all where none is named. */
  output: z.string().max(512).optional(),
  outputs: z.array(z.string().max(512)).min(1).max(64).optional(),
  by: z.enum(comparisonNames),
  /** `absolute`, `relative`: the bound. `iou`: what may be missing of a full overlap. Others: not used. */
  tolerance: z.number().nonnegative().optional(),
  /** Of `top-k`; 5 where absent. */
  k: z.number().int().positive().max(1_000).optional(),
  /** Of `iou`; absent: found out from the shapes of the outputs and of the image. */
  detections: detectionsSchema.optional(),
});
export type Compare = z.infer<typeof compareSchema>;

export const manifestSchema = z.object({
  schemaVersion: z.literal(1),
  /** `NS/NAME`. */
  name: modelIdSchema,
  version: versionSchema,
  files: z
    .array(manifestFileSchema)
    .min(1)
    .max(1_000)
    .refine(
      (files) => new Set(files.map((file) => file.path)).size === files.length,
      'a path is listed twice',
    )
    .refine(
      (files) => files.filter((file) => file.role === 'model').length === 1,
      'exactly one file is the model',
    ),
  requires: z
    .object({
      agent: z.string().max(64).optional(),
      opset: z.number().int().positive().optional(),
      arch: z.array(z.string().max(32)).optional(),
      memoryMiB: z.number().positive().optional(),
    })
    .default({}),
  limits: z
    .object({ latencyP95Ms: z.number().positive().optional(), memoryMiB: z.number().positive().optional() })
    .default({}),
  inputs: z.array(tensorSignatureSchema).default([]),
  outputs: z.array(tensorSignatureSchema).default([]),
  excludeOutputs: z.array(z.string().max(512)).default([]),
  compare: compareSchema.optional(),
  state: z.array(z.object({ output: z.string().max(512), input: z.string().max(512) })).default([]),
  context: z
    .array(z.object({ input: z.string().max(512), samples: z.number().int().positive() }))
    .default([]),
  stream: z
    .object({
      input: z.string().max(512),
      window: z.number().int().positive(),
      hop: z.number().int().positive(),
      /**
       * Besides HTTP: `unix` (JSON lines on a socket in the state folder), `mqtt:FILTER` (JSON on topics of the
       * local broker) or `mqtt+raw:FILTER` (raw numbers there).
       */
      source: z.string().max(512).optional(),
      /** Axis of time, counted from the end; what lies behind it are the channels of one sample. */
      axis: z.number().int().min(-8).max(-1).default(-1),
      /** Outputs that a step gives; absent: all but those of `state`. */
      outputs: z.array(z.string().max(512)).min(1).max(64).optional(),
    })
    .optional(),
  /** Inputs that every step of a stream or sequence has alike, where the caller gives none. */
  constants: z
    .array(
      z.object({
        input: z.string().max(512),
        data: z
          .array(z.union([z.number(), z.string(), z.boolean()]))
          .min(1)
          .max(4_096),
      }),
    )
    .default([]),
  session: z
    .object({
      threads: z.number().int().positive().max(256).optional(),
      providers: z.array(z.string().max(64)).optional(),
      maxBatch: z.number().int().positive().optional(),
      maxDelayMs: z.number().nonnegative().optional(),
    })
    .default({}),
  /** What the release uses, where the device's processor does not count it. */
  energy: energyModelSchema.optional(),
});
export type Manifest = z.infer<typeof manifestSchema>;
/** What `--manifest FILE` may hold: everything but what the push itself fills in. */
export const manifestOverridesSchema = manifestSchema
  .omit({ schemaVersion: true, name: true, version: true, files: true, inputs: true, outputs: true })
  .partial()
  .strict();
