// Why: what a rollout file would do, as the registry's HTTP API tells it before anything is done.
// Trusts: nothing before the schemas. Must never: hold a number without saying what it rests on.

import { z } from 'zod';
import { deviceIdSchema } from './messages.ts';
import { rolloutStates } from './rollouts.ts';

const timeMs = z.number().int().nonnegative();
const bytes = z.number().int().nonnegative();

/** Body of `POST /api/v1/rollouts/plan`: the file as for starting. */
export const rolloutPlanAskSchema = z.object({
  file: z.string().max(262_144),
  /** What one device fetches in a second; absent: how long fetching takes is not told. */
  bytesPerSecond: z.number().positive().optional(),
});

export const rolloutPlanSchema = z.object({
  name: z.string(),
  release: z.string(),
  /** All of them, where several switch together. */
  releases: z.array(z.string()).exactOptional(),
  as: z.string(),
  waves: z.array(
    z.object({
      index: z.number().int(),
      devices: z.number().int(),
      /** Of all its devices together. */
      bytes,
      /** People who have to allow it first. */
      approvals: z.number().int(),
      /** From its beginning, where every device is there and nothing fails; null where it cannot be told. */
      minMs: timeMs.nullable(),
    }),
  ),
  devices: z.array(
    z.object({
      id: deviceIdSchema,
      wave: z.number().int(),
      /** What it runs under the name now. */
      runs: z.string().nullable(),
      /** It runs the release already, proven. */
      done: z.boolean(),
      /** What it fetches: nothing where it is done. */
      bytes,
      /** `delta`: from what it runs; `whole`: compressed where that is smaller. */
      way: z.enum(['none', 'delta', 'whole']),
      /** Since when it is away, null where it is there. */
      offlineSinceMs: timeMs.nullable(),
      /** Another rollout of the name that has not ended and has the device, or waits for it. */
      conflict: z
        .object({
          rollout: z.string(),
          state: z.enum(rolloutStates),
          /** `waits`: this one would wait for it; `takes-over`: this one would take the device. */
          outcome: z.enum(['waits', 'takes-over']),
        })
        .nullable(),
    }),
  ),
  incompatible: z.array(z.object({ id: deviceIdSchema, reason: z.string() })),
  bytes,
  /** Sum of the waves; null where one of them cannot be told. */
  minMs: timeMs.nullable(),
  /** Where the file names regions: what stands above is this region's part. `devices` null: decided there. */
  stages: z
    .array(
      z.object({
        index: z.number().int(),
        soakMs: timeMs,
        regions: z.array(z.object({ region: z.string(), devices: z.number().int().nullable() })),
      }),
    )
    .exactOptional(),
  /** What the numbers rest on, in words. */
  restsOn: z.array(z.string()),
});
export type RolloutPlan = z.infer<typeof rolloutPlanSchema>;
