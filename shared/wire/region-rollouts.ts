// Why: rollouts across regions as the registry's HTTP API tells of them.
// Trusts: nothing before the schemas. Must never: hold more of a device than a count.

import { z } from 'zod';
import { partGateSchema, partStates, partWaveSchema, wishes } from './rollout-orders.ts';
import { rolloutCommandSchema } from './rollouts.ts';

const timeMs = z.number().int().nonnegative();

export const regionRolloutStates = ['running', 'paused', 'rolling-back', 'aborted', 'succeeded'] as const;
export type RegionRolloutState = (typeof regionRolloutStates)[number];

export const regionPartSchema = z.object({
  /** From 0. */
  stage: z.number().int(),
  region: z.string(),
  /** As the region last said; `left-out`: somebody went on without it. */
  state: z.enum([...partStates, 'left-out']),
  reason: z.string().nullable(),
  /** Code and rule where it refuses or waits. */
  code: z.string().nullable(),
  rule: z.string().nullable(),
  /** What it was told last, and whether it has acted on that. */
  wish: z.enum(wishes),
  acted: z.boolean(),
  /** Its own rollout's id there. */
  rollout: z.string().nullable(),
  waves: z.array(partWaveSchema),
  gates: z.array(partGateSchema),
  /** When this region last heard from it; null where it never did, and of itself: now. */
  lastHeardMs: timeMs.nullable(),
  unreachableSinceMs: timeMs.nullable(),
});

/** `GET /api/v1/rollouts/{id}` of one across regions. */
export const regionRolloutStatusSchema = z.object({
  id: z.string(),
  name: z.string(),
  release: z.string(),
  /** All of them, where several switch together. */
  releases: z.array(z.string()).exactOptional(),
  state: z.enum(regionRolloutStates),
  reason: z.string().nullable(),
  createdBy: z.string(),
  createdAtMs: timeMs,
  endedAtMs: timeMs.nullable(),
  /** Those that keep the others from going on: it stands until somebody says how. */
  failed: z.array(z.string()),
  regions: z.array(regionPartSchema),
});
export type RegionRolloutStatus = z.infer<typeof regionRolloutStatusSchema>;

/** `POST /api/v1/rollouts/{id}/resume`. `without`: regions that it goes on without; the others that failed try again. */
export const rolloutResumeSchema = rolloutCommandSchema.extend({
  without: z.array(z.string().max(63)).min(1).max(1_000).optional(),
});

/** `GET /api/v1/rollouts/{id}/explanation` of one across regions. */
export const regionRolloutExplanationSchema = z.object({
  id: z.string(),
  name: z.string(),
  release: z.string(),
  state: z.enum(regionRolloutStates),
  because: z.string().nullable(),
  regions: z.array(
    z.object({
      stage: z.number().int(),
      region: z.string(),
      state: regionPartSchema.shape.state,
      because: z.string().nullable(),
      waitsFor: z.array(z.string()),
    }),
  ),
});
export type RegionRolloutExplanation = z.infer<typeof regionRolloutExplanationSchema>;
