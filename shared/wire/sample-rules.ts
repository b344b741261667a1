// Why: of which requests a device keeps inputs and outputs for a person to look at: rules of the region, one set for each
// model. Trusts: nothing before the schemas. Must never: ask for samples without a cap.

import { z } from 'zod';
import { modelSchema } from './masking.ts';

export const sampleReasons = ['low-confidence', 'disagreement', 'out-of-range', 'random'] as const;
export type SampleReason = (typeof sampleReasons)[number];

const share = z.number().gt(0).max(1);

const rules = {
  /** The answer's confidence lies below this (agent/inference/confidence.ts says what that is). */
  lowConfidence: z.object({ below: share }).optional(),
  /** A candidate that answered a copy of the request answered otherwise. */
  disagreement: z.literal(true).optional(),
  /** An input lies outside the bins, or among none of the values, of the release's reference profile. */
  outOfRange: z.literal(true).optional(),
  /** Of all answered requests, whatever they are. */
  randomShare: share.optional(),
  /** Of one device; what is above is counted and not kept. */
  perHourMax: z.number().int().min(1).max(3_600).default(20),
  /** Text of one sample's tensors; a larger one is counted and not kept. */
  bytesMax: z
    .number()
    .int()
    .min(256)
    .max(96 * 1024)
    .default(64 * 1024),
};

/** What a device holds. What a newer region asks for besides is not sampled. */
export const assignedSamplingSchema = z.object({ model: modelSchema, ...rules });
export type AssignedSampling = z.infer<typeof assignedSamplingSchema>;

export const sampleRulesSchema = z
  .strictObject(rules)
  .refine(
    ({ lowConfidence, disagreement, outOfRange, randomShare }) =>
      [lowConfidence, disagreement, outOfRange, randomShare].some((rule) => rule !== undefined),
    'needs lowConfidence, disagreement, outOfRange or randomShare',
  );
export type SampleRules = z.infer<typeof sampleRulesSchema>;

/** A file for `lepton samples rules NS/NAME --file FILE`. */
export const sampleRulesFileSchema = z.strictObject({
  apiVersion: z.literal('lepton/v1'),
  kind: z.literal('SampleRules'),
  rules: sampleRulesSchema,
});

/** `PUT …/sample-rules`; null: nothing is sampled. */
export const sampleRulesPutSchema = z.object({ rules: sampleRulesSchema.nullable() });
export const sampleRulesViewSchema = z.object({
  model: z.string(),
  rules: sampleRulesSchema.nullable(),
  setBy: z.string().nullable(),
  setAtMs: z.number().int().nonnegative().nullable(),
});
export type SampleRulesView = z.infer<typeof sampleRulesViewSchema>;
