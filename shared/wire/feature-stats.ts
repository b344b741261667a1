// Why: the record of class `stats` that counts a release's inputs and outputs in the bins of its reference profile.
// Trusts: nothing before the schema. Must never: hold a value that was measured; counts only.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';

/** What is counted of a tensor: an element, the place of its greatest on the last axis, or that greatest element. */
export const featureMeasures = ['value', 'argmax', 'max'] as const;
export type FeatureMeasure = (typeof featureMeasures)[number];

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);

export const featureCountsSchema = z.object({
  role: z.enum(['input', 'output']),
  tensor: z.string().min(1).max(512),
  index: z.number().int().nonnegative(),
  of: z.enum(featureMeasures).default('value'),
  /** As many as the profile's feature has: under, bins…, over; or one for each value, with `other` beside. */
  counts: z.array(count).max(4_098),
  missing: count,
  other: count.optional(),
});

export const featuresStatsSchema = z.object({
  kind: z.literal('features'),
  model: z.string().min(1).max(512),
  /** Of the release's file of role `profile`. */
  profileSha256: z.string().regex(sha256Pattern),
  windowMs: z.number().nonnegative(),
  /** Answered requests that were counted; a request with a batch counts each row. */
  rows: count,
  /** Answered rows in the window: more than `rows` where counting was sampled. */
  seenRows: count,
  /** Features without a single count are left out. */
  features: z.array(featureCountsSchema).max(10_000),
});
export type FeaturesStats = z.infer<typeof featuresStatsSchema>;
