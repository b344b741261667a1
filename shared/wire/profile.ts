// Why: the reference profile of a release: how its inputs and outputs were distributed where it was
// made, in fixed bins, so that devices can count into the same bins and drift can be measured.
// Trusts: nothing before `parseProfile`. Must never: accept counts that do not fit their bins.

import { z } from 'zod';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { featureMeasures } from './feature-stats.ts';
import { describeIssues } from './messages.ts';

const count = z.number().int().nonnegative();
const counts = z.array(count).max(4_098);
const feature = {
  role: z.enum(['input', 'output']),
  tensor: z.string().min(1).max(512),
  /** Position on the tensor's last axis; 0 for a scalar. */
  index: z.number().int().nonnegative(),
  /**
   * What is counted: the element there, or of the whole last axis the place of its greatest element (a classifier's
   * class) or that element itself (its confidence); `index` is 0 then.
   */
  of: z.enum(featureMeasures).optional(),
  /** Values that were NaN, null or absent; not among `counts`. */
  missing: count.default(0),
  /** Counts of the reference's own parts (days, folds): their distances from the whole teach thresholds. */
  chunks: z.array(counts).max(1_024).default([]),
};

const isRising = (edges: number[]): boolean =>
  edges.every((edge, at) => at === 0 || edge > (edges[at - 1] ?? edge));

/** `edges` e0 … en cut the line into under, [e0, e1) … [en-1, en], over: `counts` has n + 2 entries. */
export const numericFeatureSchema = z
  .object({
    ...feature,
    kind: z.literal('numeric'),
    edges: z.array(z.number()).min(2).max(4_097).refine(isRising, 'edges must rise strictly'),
    counts,
  })
  .refine((numeric) => numeric.counts.length === numeric.edges.length + 1, {
    path: ['counts'],
    message: 'must hold under, one count for each bin, and over',
  })
  .refine((numeric) => numeric.chunks.every((chunk) => chunk.length === numeric.counts.length), {
    path: ['chunks'],
    message: 'each chunk must have as many counts as the feature',
  });

/** `counts` stand beside `values`; what was none of them is in `other`. A chunk may end with its own other. */
export const categoricalFeatureSchema = z
  .object({
    ...feature,
    kind: z.literal('categorical'),
    values: z
      .array(z.union([z.string().max(512), z.number(), z.boolean()]))
      .min(1)
      .max(4_096)
      .refine((values) => new Set(values).size === values.length, 'a value stands twice'),
    counts,
    other: count.default(0),
  })
  .refine((categorical) => categorical.counts.length === categorical.values.length, {
    path: ['counts'],
    message: 'must hold one count for each value',
  })
  .refine(
    ({ chunks, values }) =>
      chunks.every(({ length }) => length === values.length || length === values.length + 1),
    {
      path: ['chunks'],
      message: 'each chunk must have a count for each value, and may have one for the others',
    },
  );

export const profileSchema = z.object({
  schemaVersion: z.literal(1),
  features: z
    .array(z.discriminatedUnion('kind', [numericFeatureSchema, categoricalFeatureSchema]))
    .max(10_000)
    .refine(
      (features) =>
        new Set(features.map((one) => `${one.role} ${one.index} ${one.of ?? 'value'} ${one.tensor}`)).size ===
        features.length,
      'a feature is described twice',
    ),
});
export type Profile = z.infer<typeof profileSchema>;
export type ProfileFeature = Profile['features'][number];

const decoder = new TextDecoder('utf-8', { fatal: true });

/** Parses a reference profile. Refusal: `profile-malformed`, naming the first wrong field. */
export function parseProfile(bytes: Uint8Array): Result<Profile> {
  let body: unknown;
  try {
    body = JSON.parse(decoder.decode(bytes));
  } catch (error) {
    return refuse('profile-malformed', error instanceof Error ? error.message : 'not JSON');
  }
  const parsed = profileSchema.safeParse(body);
  if (parsed.success) return ok(parsed.data);
  return refuse('profile-malformed', describeIssues(parsed.error));
}
