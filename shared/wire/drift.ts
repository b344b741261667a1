// Why: the answer to "does this model still see what it was made for?", as API and CLI give it.
// Trusts: nothing before the schemas. Must never: hold a measured value; counts and shares only.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { featureMeasures } from './feature-stats.ts';
import { releaseIdSchema } from './messages.ts';

const count = z.number().int().nonnegative();
const distances = z.object({
  /** Population stability index. */
  psi: z.number(),
  /** Jensen-Shannon divergence, bits. */
  js: z.number(),
  /** Kolmogorov-Smirnov: greatest difference of the cumulative shares. */
  ks: z.number(),
  /** In the feature's unit; null where it has none. */
  wasserstein: z.number().nullable(),
});
const side = z.object({
  /** Values in bins, the outer ones included. */
  count,
  missing: count,
  outOfRange: count,
  /** Of each bin: under, bins…, over; or of each value, then the others. */
  shares: z.array(z.number()),
});

export const driftVerdicts = ['ok', 'drift', 'too-few'] as const;
export const driftFeatureSchema = z.object({
  role: z.enum(['input', 'output']),
  tensor: z.string(),
  index: count,
  of: z.enum(featureMeasures),
  kind: z.enum(['numeric', 'categorical']),
  verdict: z.enum(driftVerdicts),
  /** Null where there are too few counts. */
  distances: distances.nullable(),
  /** Of a categorical feature; the effect size is `cramersV`, 0 to 1. */
  association: z.object({ chiSquare: z.number(), degreesOfFreedom: count, cramersV: z.number() }).nullable(),
  thresholds: z.object({
    fixed: z.object({ psi: z.number(), js: z.number(), ks: z.number() }),
    /** From the reference's own parts; null where it has too few. A distance must exceed both. */
    learned: distances.nullable(),
  }),
  exceeded: z.array(z.enum(['psi', 'js', 'ks', 'missing'])),
  reference: side,
  live: side,
});
export type DriftFeature = z.infer<typeof driftFeatureSchema>;

export const driftGroupSchema = z.object({
  /** `fleet`, a device's id, or `label=value`; `label=` holds the devices without that label. */
  group: z.string(),
  kind: z.enum(['fleet', 'device', 'label']),
  /** That counted anything. */
  devices: count,
  /** Answered rows, and those of them that were counted. */
  seenRows: count,
  rows: count,
  verdict: z.enum(driftVerdicts),
  features: z.array(driftFeatureSchema),
});
export type DriftGroup = z.infer<typeof driftGroupSchema>;

/** `GET /api/v1/models/{ns}/{name}/drift` and `lepton drift --json`. */
export const driftSchema = z.object({
  model: z.string(),
  /** Null where no release of the model has a profile. */
  release: releaseIdSchema.nullable(),
  profileSha256: z.string().regex(sha256Pattern).nullable(),
  /** Whole hours by the devices' clocks. */
  fromMs: count,
  untilMs: count,
  /** Of the release in that time, whether or not its features were counted. */
  requests: z.object({
    requests: count,
    errors: z.record(z.string(), count),
    latencyMs: z.object({ p50: z.number(), p95: z.number(), p99: z.number(), max: z.number() }).nullable(),
  }),
  verdict: z.enum([...driftVerdicts, 'no-profile', 'no-counts']),
  /** What to do where nothing can be said; null elsewhere. */
  hint: z.string().nullable(),
  groups: z.array(driftGroupSchema),
});
export type DriftView = z.infer<typeof driftSchema>;
