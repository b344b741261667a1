// Why: the release manifest (contract, section 12): every file by digest and length, and how to serve it.
// Trusts: nothing before the schema. Must never: name a file outside the release's folder.

import { z } from 'zod';
import { fileRoles, releasePathPattern, sha256Pattern } from '../kernel/releases.ts';
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
  compare: z
    .object({
      output: z.string().max(512),
      by: z.string().max(64),
      tolerance: z.number().nonnegative().optional(),
    })
    .optional(),
  state: z.array(z.object({ output: z.string().max(512), input: z.string().max(512) })).default([]),
  context: z
    .array(z.object({ input: z.string().max(512), samples: z.number().int().positive() }))
    .default([]),
  stream: z
    .object({
      input: z.string().max(512),
      window: z.number().int().positive(),
      hop: z.number().int().positive(),
      source: z.string().max(512).optional(),
    })
    .optional(),
  session: z
    .object({
      threads: z.number().int().positive().max(256).optional(),
      providers: z.array(z.string().max(64)).optional(),
      maxBatch: z.number().int().positive().optional(),
      maxDelayMs: z.number().nonnegative().optional(),
    })
    .default({}),
});
export type Manifest = z.infer<typeof manifestSchema>;
/** What `--manifest FILE` may hold: everything but what the push itself fills in. */
export const manifestOverridesSchema = manifestSchema
  .omit({ schemaVersion: true, name: true, version: true, files: true, inputs: true, outputs: true })
  .partial()
  .strict();
