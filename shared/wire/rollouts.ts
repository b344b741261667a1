// Why: rollouts as the registry's HTTP API tells of them and takes commands about them.
// Trusts: nothing before the schemas. Must never: differ from the contract (DESIGN 11 and 12).

import { z } from 'zod';
import { deviceIdSchema, machineStates } from './messages.ts';

const timeMs = z.number().int().nonnegative();

export const rolloutStates = [
  'draft',
  'awaiting-approval',
  'running',
  'paused',
  'rolling-back',
  'aborted',
  'succeeded',
  'failed',
] as const;
export const waveStates = ['pending', 'running', 'soaking', 'passed', 'failed', 'rolled-back'] as const;
export const rolloutDeviceStates = [...machineStates, 'pending', 'unreachable', 'incompatible'] as const;
export type RolloutState = (typeof rolloutStates)[number];
export type WaveState = (typeof waveStates)[number];
export type RolloutDeviceState = (typeof rolloutDeviceStates)[number];

/** `POST /api/v1/rollouts` takes the parsed rollout file (YAML or JSON text in `file`). */
export const rolloutStartSchema = z.object({ file: z.string().max(262_144) });
export const rolloutStartedSchema = z.object({ id: z.string() });
export const gateNames = [
  'probe',
  'success',
  'agreement',
  'latencyP95Ms',
  'latencyP95Ratio',
  'memoryMiB',
  'memoryRatio',
  'errorRate',
  'errorRateIncrease',
  'driftPsi',
] as const;
export const rolloutStatusSchema = z.object({
  id: z.string(),
  name: z.string(),
  release: z.string(),
  /** All of them, where several switch together. */
  releases: z.array(z.string()).exactOptional(),
  state: z.enum(rolloutStates),
  reason: z.string().nullable(),
  waves: z.array(
    z.object({
      index: z.number().int(),
      state: z.enum(waveStates),
      reason: z.string().nullable(),
      /** `total`, and for each device state that occurs its count. */
      devices: z.record(z.string(), z.number().int()),
    }),
  ),
  gates: z.array(
    z.object({
      wave: z.number().int(),
      gate: z.enum(gateNames),
      limit: z.number(),
      value: z.number().nullable(),
      devices: z.number().int(),
      verdict: z.enum(['pass', 'fail', 'waiting']),
    }),
  ),
  /** Given so far, of waves that the file names under `approvals`. */
  approvals: z
    .array(
      z.object({
        wave: z.number().int(),
        by: z.string(),
        comment: z.string().nullable(),
        atMs: timeMs,
        expiresAtMs: timeMs,
      }),
    )
    .default([]),
  devices: z.array(
    z.object({
      id: z.string(),
      wave: z.number().int(),
      state: z.enum(rolloutDeviceStates),
      reason: z.string().nullable(),
      /** What the device runs under the rollout's name, null where nothing. */
      release: z.string().nullable(),
    }),
  ),
});
export type RolloutStatus = z.infer<typeof rolloutStatusSchema>;
/** `GET /api/v1/rollouts`, newest first. */
export const rolloutSummarySchema = z.object({
  id: z.string(),
  name: z.string(),
  release: z.string(),
  /** Name under which the devices serve it. */
  as: z.string(),
  state: z.enum(rolloutStates),
  reason: z.string().nullable(),
  createdBy: z.string(),
  createdAtMs: timeMs,
  endedAtMs: timeMs.nullable(),
});
export type RolloutSummary = z.infer<typeof rolloutSummarySchema>;
/** `POST /api/v1/rollouts/{id}/abort`. Absent: what the file says under `onAbort`. */
export const rolloutAbortSchema = z.object({ revert: z.boolean().optional() });

/** `GET /api/v1/rollouts/{id}/explanation`: why each thing is where it is, and what it waits for. */
export const rolloutExplanationSchema = z.object({
  id: z.string(),
  name: z.string(),
  release: z.string(),
  state: z.enum(rolloutStates),
  because: z.string().nullable(),
  waves: z.array(
    z.object({
      index: z.number().int(),
      state: z.enum(waveStates),
      because: z.string().nullable(),
      /** In words, one for each thing. */
      waitsFor: z.array(z.string()),
    }),
  ),
  devices: z.array(
    z.object({
      id: z.string(),
      online: z.boolean(),
      /** What it runs under the rollout's name, null where nothing. */
      runs: z.string().nullable(),
      /** Null where it has none yet. */
      wave: z.number().int().nullable(),
      state: z.enum(rolloutDeviceStates),
      because: z.string().nullable(),
      /** Null where it waits for nothing. */
      waitsFor: z.string().nullable(),
      /** When time alone ends that, Unix milliseconds. */
      untilMs: timeMs.nullable(),
    }),
  ),
});
export type RolloutExplanation = z.infer<typeof rolloutExplanationSchema>;

/** `POST /api/v1/rollouts/{id}/pause` and `/resume`. */
export const rolloutCommandSchema = z.object({ comment: z.string().min(1).max(1_000).optional() });
/** `POST /api/v1/rollouts/{id}/approve`. `wave`: absent, the next one that waits for it. */
export const rolloutApproveSchema = rolloutCommandSchema.extend({
  wave: z.number().int().nonnegative().optional(),
});

/** `POST /api/v1/rollouts/{id}/retry`; the answer is that of starting one. Absent: every device on which it failed. */
export const rolloutRetrySchema = z.object({
  devices: z.array(deviceIdSchema).min(1).max(10_000).optional(),
});

/** `GET /api/v1/rollouts/{id}/history`, oldest first. */
export const rolloutHistorySchema = z.array(
  z.object({
    atMs: timeMs,
    /** Null for the rollout itself. */
    wave: z.number().int().nullable(),
    /** A state of the rollout or of the wave, or `approved`. */
    what: z.enum([...new Set([...rolloutStates, ...waveStates, 'approved'] as const)]),
    /** Who asked for it; null where it followed by itself. */
    by: z.string().nullable(),
    reason: z.string().nullable(),
  }),
);
export type RolloutHistory = z.infer<typeof rolloutHistorySchema>;
