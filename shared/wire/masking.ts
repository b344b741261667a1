// Why: what of a record leaves a device changed or not at all: rules that the region sets and every device applies before
// a record is sealed. Trusts: nothing before the schemas. Must never: name a rule that a device would skip silently.

import { z } from 'zod';

/** Classes whose content is not the product's own. */
export const maskedClasses = ['app', 'sample'] as const;
export type MaskedClass = (typeof maskedClasses)[number];

const name = z.string().min(1).max(128);

export const modelSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9-]{0,62}$/, 'expected NS/NAME');

/** Names of an object's fields from the outside in; `*` stands for every field, and every element of an array. */
const fieldSchema = z
  .union([name, z.array(name).min(1).max(16)])
  .transform((field) => (typeof field === 'string' ? field.split('.') : field))
  .refine((path) => path.length <= 16 && path.every((part) => part !== ''), 'a name in it is empty');

const target = {
  field: fieldSchema,
  /** Absent: records of both classes. */
  classes: z.array(z.enum(maskedClasses)).min(1).max(2).optional(),
  /** `NS/NAME`: records about releases of this model alone; absent: all. */
  model: modelSchema.optional(),
};

/**
 * `drop` removes the field. `hash` puts a keyed digest in the place of a string, number or boolean: equal values stay
 * equal within a region, and nobody without the key can try values. `round` and `clip` are for numbers; what is none
 * is removed, for a rule that finds something else than it was written for must not let it through.
 */
export const maskingRuleSchema = z.discriminatedUnion('do', [
  z.strictObject({ do: z.literal('drop'), ...target }),
  z.strictObject({ do: z.literal('hash'), ...target }),
  z.strictObject({ do: z.literal('round'), ...target, to: z.number().positive().finite() }),
  z
    .strictObject({
      do: z.literal('clip'),
      ...target,
      min: z.number().optional(),
      max: z.number().optional(),
    })
    .refine(({ min, max }) => min !== undefined || max !== undefined, 'give min, max or both')
    .refine(({ min = -Infinity, max = Infinity }) => min <= max, 'min is above max'),
]);
export type MaskingRule = z.infer<typeof maskingRuleSchema>;

/** The policy's and the region's own together. */
export const maskingRulesMax = 64;
const rules = z.array(maskingRuleSchema).max(maskingRulesMax);

/** Part of an assignment: the rules, and the key of their digests, of this region alone. */
export const maskingSchema = z.object({
  /** 32 bytes, hex. */
  key: z.string().regex(/^[0-9a-f]{64}$/),
  rules,
});
export type Masking = z.infer<typeof maskingSchema>;

/** A file for `lepton masking set`. */
export const maskingFileSchema = z.strictObject({
  apiVersion: z.literal('lepton/v1'),
  kind: z.literal('Masking'),
  rules,
});
export type MaskingFile = z.infer<typeof maskingFileSchema>;

/** What the API says and takes; the key stays where it is. */
export const maskingViewSchema = z.object({
  rules,
  /** When the key of the digests was made, Unix milliseconds; null while there are no rules. */
  keyMadeAtMs: z.number().int().nonnegative().nullable(),
});
export type MaskingView = z.infer<typeof maskingViewSchema>;
export const maskingPutSchema = z.object({
  rules,
  /** A new key: digests of before and after cannot be compared any more. */
  newKey: z.boolean().default(false),
});
