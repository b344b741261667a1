// Why: what may leave a region, how long things are kept there and what may be installed: a file that people write and the
// region's root keys sign. Trusts: nothing before the schemas. Must never: read one file in two ways.

import { z } from 'zod';
import { namePattern, sha256Pattern } from '../kernel/releases.ts';
import { maskingRuleSchema } from './masking.ts';
import { envelopeSchema, nameSchema, telemetryClasses } from './messages.ts';
import { durationSchema } from './rollout-file.ts';

/** What may go from a region to another: raw telemetry by class, and what is made of it or stands beside it. */
export const flowClasses = [
  ...telemetryClasses,
  'catalogue',
  'cells',
  'rollout-progress',
  'rollout-orders',
  'audit-heads',
  'erasures',
  'carried',
] as const;
export type FlowClass = (typeof flowClasses)[number];

export const lawfulBases = [
  'contract',
  'consent',
  'legal-obligation',
  'vital-interests',
  'public-task',
  'legitimate-interests',
] as const;
export type LawfulBasis = (typeof lawfulBases)[number];

const words = z.string().min(1).max(500);
/** A region's name, or all of them. */
const destinationSchema = z.string().refine((text) => text === '*' || namePattern.test(text), {
  error: 'expected the name of a region, or *',
});
const everyOrNames = (pattern: RegExp, what: string) =>
  z
    .array(
      z.string().refine((text) => text === '*' || pattern.test(text), { error: `expected ${what}, or *` }),
    )
    .max(256);

/** The first rule that names the class and the destination decides. */
export const flowRuleSchema = z.strictObject({
  id: nameSchema,
  classes: z.array(z.enum(flowClasses)).min(1).max(flowClasses.length),
  destinations: z.array(destinationSchema).min(1).max(64),
  allow: z.boolean(),
  because: words,
});
export type FlowRule = z.infer<typeof flowRuleSchema>;

export const purposeSchema = z.strictObject({
  classes: z.array(z.enum(telemetryClasses)).min(1).max(telemetryClasses.length),
  purpose: words,
  lawfulBasis: z.enum(lawfulBases),
});
export type Purpose = z.infer<typeof purposeSchema>;

/** As it is written, so that what is signed is what was written; `retentionMsOf` reads it. */
const keptSchema = z.string().refine((text) => (durationSchema.safeParse(text).data ?? 0) > 0, {
  error: 'expected a duration such as 12h or 90d',
});

const releasesSchema = z.strictObject({
  publishers: everyOrNames(namePattern, 'a namespace').default(['*']),
  /** SPDX identifiers or expressions (spdx.org/licenses), compared without regard to case. */
  licences: everyOrNames(/^[A-Za-z0-9(][A-Za-z0-9.+() -]{0,99}$/, 'an SPDX identifier').default(['*']),
  /** Fields of the model card that must say something; `data.sha256` stands for a field in a field. */
  requireCard: z
    .array(
      z.string().regex(/^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}$/, 'expected the name of a field'),
    )
    .max(64)
    .default([]),
});

/** A file for `lepton policy put`, and, spelled in one way, what root keys sign. */
export const regionPolicySchema = z.strictObject({
  apiVersion: z.literal('lepton/v1'),
  kind: z.literal('RegionPolicy'),
  metadata: z.strictObject({
    region: nameSchema,
    name: nameSchema,
    /** Only rises. */
    version: z.number().int().positive(),
  }),
  spec: z
    .strictObject({
      flows: z.array(flowRuleSchema).max(256).default([]),
      /** Devices that a published cell is made of at least (k). */
      cells: z.strictObject({ devicesMin: z.number().int().min(2).max(1_000_000).default(5) }).default({
        devicesMin: 5,
      }),
      /** In force beside the region's own rules, and before them. */
      masking: z.array(maskingRuleSchema).max(32).default([]),
      /** Absent: kept until it is erased. */
      retention: z
        .strictObject(
          Object.fromEntries(telemetryClasses.map((one) => [one, keptSchema.optional()])) as Record<
            (typeof telemetryClasses)[number],
            z.ZodOptional<typeof keptSchema>
          >,
        )
        .default({}),
      purposes: z.array(purposeSchema).max(64).default([]),
      /** A class that is kept without a purpose is an error, not a warning. */
      requirePurpose: z.boolean().default(false),
      releases: releasesSchema.default({ publishers: ['*'], licences: ['*'], requireCard: [] }),
    })
    .default({
      flows: [],
      cells: { devicesMin: 5 },
      masking: [],
      retention: {},
      purposes: [],
      requirePurpose: false,
      releases: { publishers: ['*'], licences: ['*'], requireCard: [] },
    }),
});
export type RegionPolicy = z.infer<typeof regionPolicySchema>;

/** Milliseconds of what `retention` says; null where it says nothing. */
export function retentionMsOf(text: string | undefined): number | null {
  return text === undefined ? null : (durationSchema.safeParse(text).data ?? null);
}

/** A policy on its way from holder to holder: nobody or too few may have signed it yet. */
export const policyEnvelopeSchema = envelopeSchema.extend({
  signatures: z.array(envelopeSchema.shape.signatures.element).max(16),
});
export const policyBundleSchema = z.strictObject({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-policy-bundle'),
  envelope: policyEnvelopeSchema,
});
export type PolicyBundle = z.infer<typeof policyBundleSchema>;

const timeMs = z.number().int().nonnegative();
const sha256 = z.string().regex(sha256Pattern);

/** `PUT /api/v1/policy`. In development the registry adds what its own keys can sign. */
export const policyPutSchema = z.object({ envelope: policyEnvelopeSchema });

const versionFields = {
  version: z.number().int().positive(),
  name: nameSchema,
  /** Of the bytes that are signed. */
  sha256,
  /** Key ids whose signatures are valid. */
  signedBy: z.array(z.string()),
  /** Version of the region root whose keys signed. */
  rootVersion: z.number().int().positive(),
  putBy: z.string(),
  putAtMs: timeMs,
};
export const policyVersionSchema = z.object(versionFields);
export type PolicyVersion = z.infer<typeof policyVersionSchema>;

/** `GET /api/v1/policy`: the policy in force; null before the first one. */
export const policyViewSchema = z.object({
  region: nameSchema,
  inForce: z
    .object({
      ...versionFields,
      policy: regionPolicySchema,
      envelope: envelopeSchema,
      /** The region root was replaced since: its holders should sign again. */
      olderRoot: z.boolean(),
    })
    .nullable(),
});
export type PolicyView = z.infer<typeof policyViewSchema>;

export const policyDecisionSchema = z.object({
  class: z.enum(flowClasses),
  destination: nameSchema,
  allowed: z.boolean(),
  rule: z.string(),
  reason: z.string(),
});
export type PolicyDecision = z.infer<typeof policyDecisionSchema>;

/** What a look at a file found; `where` is a place in it. */
export const policyFindingSchema = z.object({
  level: z.enum(['problem', 'warning']),
  code: z.string(),
  where: z.string(),
  message: z.string(),
});
export type PolicyFinding = z.infer<typeof policyFindingSchema>;

const counts = { batches: timeMs, records: timeMs, bytes: timeMs };

/** `GET /api/v1/policy/retention`: what would be deleted now. */
export const retentionPlanSchema = z.array(
  z.object({
    class: z.enum(telemetryClasses),
    /** Null: kept until it is erased. */
    keptMs: timeMs.nullable(),
    rule: z.string(),
    ...counts,
    oldestMs: timeMs.nullable(),
  }),
);
export type RetentionPlan = z.infer<typeof retentionPlanSchema>;
