// Why: what regions say to each other about a rollout that goes through several: orders one way, progress the other.
// Trusts: nothing before the schema. Must never: carry a device's id, label or record.

import { z } from 'zod';
import { nameSchema } from './messages.ts';
import { gateNames, rolloutStates, waveStates } from './rollouts.ts';

const timeMs = z.number().int().nonnegative();
const count = z.number().int().nonnegative();

/** Far above what people ever say; the next number is still a whole one, whatever a region claims. */
const revisionMax = 1_000_000_000;
const attemptMax = 1_000;
/** Characters, as of a file that is sent to begin a rollout. */
export const orderFileMax = 262_144;

/** Two letters, so that nobody takes it for a rollout of one region. */
export const regionRolloutIdPattern = /^rr[0-9a-f]{16}$/;
export const isRegionRolloutId = (id: string): boolean => regionRolloutIdPattern.test(id);

/**
 * `wait`: its stage has not begun. `run`: begin, or go on. `pause`: assign nothing more. `abort`: end it and keep what
 * is there. `abort-revert`: end it and go back.
 */
export const wishes = ['wait', 'run', 'pause', 'abort', 'abort-revert'] as const;
export type Wish = (typeof wishes)[number];

/** One item of the list `rollout-orders`: the whole of what one region is to do about one rollout, each time. */
export const rolloutOrderSchema = z.object({
  schemaVersion: z.literal(1),
  orderId: z.string().regex(regionRolloutIdPattern),
  /** Only rises; a region keeps the highest. */
  revision: z.number().int().positive().max(revisionMax),
  /** Rises where the region is to try again: another rollout there. */
  attempt: z.number().int().positive().max(attemptMax),
  name: nameSchema,
  /** NS/NAME@VERSION each, or the NS/NAME that is taken away. */
  releases: z.array(z.string().max(256)).min(1).max(32),
  /** The rollout file, without the order of regions. */
  file: z.string().max(orderFileMax),
  wish: z.enum(wishes),
  /** Who started the rollout, as the coordinating region knows them. */
  startedBy: z.string().max(128),
  /** Who or what this wish came from; null: it followed by itself. */
  by: z.string().max(128).nullable(),
  reason: z.string().max(1_000).nullable(),
});
export type RolloutOrder = z.infer<typeof rolloutOrderSchema>;

/** States of a region's part: those of its rollout, and of one that it has not begun. */
export const partStates = ['waiting', 'refused', ...rolloutStates] as const;
export type PartState = (typeof partStates)[number];

export const partWaveSchema = z.object({
  index: count,
  state: z.enum(waveStates),
  /** `total`, and for each device state that occurs its count. */
  devices: z.record(z.string().max(64), count),
});
export const partGateSchema = z.object({
  wave: count,
  gate: z.enum(gateNames),
  limit: z.number(),
  value: z.number().nullable(),
  devices: count,
  verdict: z.enum(['pass', 'fail', 'waiting']),
});

/** One item of the list `rollout-progress`. Words in it are made of codes and numbers, never of what a device said. */
export const rolloutProgressSchema = z.object({
  schemaVersion: z.literal(1),
  orderId: z.string().regex(regionRolloutIdPattern),
  /** The highest that it holds, and the highest that it has acted on. */
  revision: count.max(revisionMax),
  acted: count.max(revisionMax),
  attempt: count.max(attemptMax),
  /** What it was told with that revision: a registry that came back from a backup may have given the number twice. */
  wish: z.enum(wishes),
  state: z.enum(partStates),
  /** Its own rollout's id; null where it has begun none. */
  rollout: z.string().max(64).nullable(),
  /** Why it refuses or waits, and by which rule of its policy. */
  code: z.string().max(64).nullable(),
  rule: z.string().max(256).nullable(),
  reason: z.string().max(1_000).nullable(),
  waves: z.array(partWaveSchema).max(1_000),
  gates: z.array(partGateSchema).max(20_000),
  atMs: timeMs,
});
export type RolloutProgress = z.infer<typeof rolloutProgressSchema>;
