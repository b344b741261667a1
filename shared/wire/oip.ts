// Why: the bodies of the Open Inference Protocol V2 (REST) as schemas: types, JSON Schemas, documents.
// Trusts: nothing. Must never: be used to parse an inference request; oip-json.ts does that, exactly
// and fast, where JSON.parse would already have rounded int64 and copied every number.

import { z } from 'zod';
import { datatypeSchema, tensorSignatureSchema } from './manifest.ts';

const parametersSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

/** Nested arrays of the tensor's shape, or one flat array in C order. Numbers, booleans or strings. */
const tensorDataSchema = z.union([z.array(z.unknown()), z.number(), z.string(), z.boolean()]);

export const oipTensorSchema = z.object({
  name: z.string().min(1).max(512),
  shape: z.array(z.number().int().nonnegative()).max(16),
  datatype: datatypeSchema,
  parameters: parametersSchema.optional(),
  data: tensorDataSchema,
});

/** OIP "Inference Request JSON Object". */
export const inferRequestSchema = z.object({
  id: z.string().optional(),
  parameters: parametersSchema.optional(),
  inputs: z.array(oipTensorSchema),
  outputs: z.array(z.object({ name: z.string(), parameters: parametersSchema.optional() })).optional(),
});

/** OIP "Inference Response JSON Object". */
export const inferResponseSchema = z.object({
  model_name: z.string(),
  model_version: z.string().optional(),
  id: z.string().optional(),
  parameters: parametersSchema.optional(),
  outputs: z.array(oipTensorSchema),
});

/** OIP "Inference Response Errors". */
export const oipErrorSchema = z.object({ error: z.string() });

/** OIP "Server Metadata Response". */
export const serverMetadataSchema = z.object({
  name: z.string(),
  version: z.string(),
  extensions: z.array(z.string()),
});
export type ServerMetadata = z.infer<typeof serverMetadataSchema>;

/** OIP "Model Metadata Response". Free dimensions are −1. */
export const modelMetadataSchema = z.object({
  name: z.string(),
  versions: z.array(z.string()),
  platform: z.string(),
  inputs: z.array(tensorSignatureSchema),
  outputs: z.array(tensorSignatureSchema),
});
export type ModelMetadata = z.infer<typeof modelMetadataSchema>;

/** OIP platform name of an ONNX model. */
export const onnxPlatform = 'onnx_onnxv1';

/** Model repository extension, index. */
export const repositoryIndexSchema = z.array(
  z.object({
    name: z.string(),
    version: z.string(),
    state: z.enum(['READY', 'UNAVAILABLE']),
    reason: z.string(),
  }),
);
export type RepositoryIndex = z.infer<typeof repositoryIndexSchema>;

const durationSchema = z.object({ count: z.number().int(), ns: z.number().int() });

/** Statistics extension, one model. Times since the release was loaded; `last_inference` 0 before the first. */
export const modelStatisticsSchema = z.object({
  name: z.string(),
  version: z.string(),
  /** Unix time in milliseconds. */
  last_inference: z.number().int(),
  inference_count: z.number().int(),
  execution_count: z.number().int(),
  inference_stats: z.object({
    success: durationSchema,
    fail: durationSchema,
    queue: durationSchema,
    compute_input: durationSchema,
    compute_infer: durationSchema,
    compute_output: durationSchema,
    cache_hit: durationSchema,
    cache_miss: durationSchema,
  }),
  batch_stats: z.array(
    z.object({
      batch_size: z.number().int(),
      compute_input: durationSchema,
      compute_infer: durationSchema,
      compute_output: durationSchema,
    }),
  ),
  memory_usage: z.array(z.object({ type: z.string(), id: z.number().int(), byte_size: z.number().int() })),
});
export type ModelStatistics = z.infer<typeof modelStatisticsSchema>;

/** Statistics extension, whole answer. */
export const statisticsSchema = z.object({ model_stats: z.array(modelStatisticsSchema) });
