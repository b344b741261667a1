// Why: the rollout file (contract, section 11) as a schema; reading YAML is the caller's.
// Trusts: nothing before the schema. Must never: accept a key it does not know.

import { z } from 'zod';
import {
  deviceIdSchema,
  nameSchema,
  providerNameSchema,
  providersMax,
  releaseIdSchema,
  versionSchema,
} from './messages.ts';
import { deferMaxMsDefault, timeWindowsSchema } from './windows.ts';

const durationPattern = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;
const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `10m` → 600000. */
export const durationSchema = z
  .string()
  .regex(durationPattern, 'expected a duration such as 30s, 10m, 24h')
  .transform((text) => {
    const match = durationPattern.exec(text);
    return Math.round(Number(match?.[1]) * unitMs[match?.[2] as keyof typeof unitMs]);
  });

const modelIdSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9-]{0,62}$/, 'expected NS/NAME');
const labelKey = z.string().min(1).max(63);

export const selectorSchema = z.strictObject({
  matchLabels: z.record(labelKey, z.string().max(128)).default({}),
  matchExpressions: z
    .array(
      z.strictObject({
        key: labelKey,
        operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
        values: z.array(z.string().max(128)).default([]),
      }),
    )
    .default([]),
  /**
   * Only devices of these regions: one file serves the registries of all, and in any other it is for no device. Where the
   * rollout goes, and in which order, is `spec.regions`.
   */
  regions: z.array(nameSchema).min(1).max(1_000).optional(),
  /** By id: of these alone, those that fulfil all else. */
  devices: z.array(deviceIdSchema).min(1).max(10_000).optional(),
  /** Names of groups that the registry keeps: of one of them at least. */
  groups: z.array(nameSchema).min(1).max(100).optional(),
  /** What the agent reports of its device; the versions are the least. */
  capabilities: z
    .strictObject({
      arch: z.array(z.string().min(1).max(32)).min(1).optional(),
      agent: versionSchema.optional(),
      runtime: versionSchema.optional(),
      memoryMiB: z.number().positive().optional(),
      /** Execution providers of ONNX Runtime that run on the device: one of them at least. */
      providers: z.array(providerNameSchema).min(1).max(providersMax).optional(),
    })
    .optional(),
});
export type Selector = z.infer<typeof selectorSchema>;

export const waveSchema = z
  .strictObject({
    count: z.number().int().positive().optional(),
    percent: z.number().positive().max(100).optional(),
    soak: durationSchema.default(0),
  })
  .refine(
    (wave) => (wave.count === undefined) !== (wave.percent === undefined),
    'give either count or percent',
  );
export type Wave = z.infer<typeof waveSchema>;

const fraction = z.number().min(0).max(1);

const stageRegions = z.array(nameSchema).min(1).max(1_000);
/** Regions that begin together: one name, several, or several with a pause behind them. */
export const stageSchema = z
  .union([nameSchema, stageRegions, z.strictObject({ names: stageRegions, soak: durationSchema.default(0) })])
  .transform((stage) => {
    if (typeof stage === 'string') return { names: [stage], soak: 0 };
    return Array.isArray(stage) ? { names: stage, soak: 0 } : stage;
  });
export type Stage = z.infer<typeof stageSchema>;

export const rolloutFileSchema = z.strictObject({
  apiVersion: z.literal('lepton/v1'),
  kind: z.literal('Rollout'),
  metadata: z.strictObject({ name: nameSchema }),
  spec: z
    .strictObject({
      release: releaseIdSchema.optional(),
      releases: z.array(releaseIdSchema).min(1).optional(),
      remove: modelIdSchema.optional(),
      as: nameSchema.optional(),
      /**
       * Stages in their order: all regions of one must have succeeded before the next begins. Waves, soaks, gates and
       * approvals are each region's own. Absent: this region alone.
       */
      regions: z.array(stageSchema).min(1).max(100).optional(),
      /** Whether later stages wait for a region that is cut off; it is waited for at the end in either case. */
      onUnreachable: z.union([z.literal('wait'), z.strictObject({ skipAfter: durationSchema })]).optional(),
      selector: selectorSchema.default({ matchLabels: {}, matchExpressions: [] }),
      waves: z.array(waveSchema).min(1).optional(),
      /** In place of `waves`: the first of `start` devices, each next one `factor` times as many, until all are reached. */
      growth: z
        .strictObject({
          start: z.number().int().positive().default(1),
          factor: z.number().min(1.1).max(100).default(2),
          soak: durationSchema.default(0),
        })
        .optional(),
      /** Of two rollouts that want one device the higher goes first. */
      priority: z.number().int().min(-100).max(100).default(0),
      /** Where an earlier one of the same priority is under way: take its devices over, or wait until it has ended. */
      whenBusy: z.enum(['supersede', 'queue']).default('supersede'),
      shadow: z
        .strictObject({
          requests: z.number().int().positive(),
          cpuPercent: z.number().positive().max(100).default(25),
          timeout: durationSchema.default(3_600_000),
        })
        .optional(),
      gates: z
        .strictObject({
          success: fraction.optional(),
          agreement: fraction.optional(),
          latencyP95Ms: z.number().positive().optional(),
          /** Times the p95 of what the same devices ran before. */
          latencyP95Ratio: z.number().positive().optional(),
          memoryMiB: z.number().positive().optional(),
          /** Times the peak of what the same device ran before, each by its own probe; the middle one of the devices. */
          memoryRatio: z.number().positive().optional(),
          errorRate: fraction.optional(),
          /** By how much the share of failed requests may be above that of what the same devices ran before. */
          errorRateIncrease: fraction.optional(),
          driftPsi: z.number().positive().optional(),
          minDevices: z.number().int().positive().optional(),
          /** Requests, answers or rows without which no gate on evidence passes. */
          minRequests: z.number().int().positive().max(1_000_000).default(100),
        })
        .prefault({}),
      deadlines: z
        .strictObject({
          fetching: durationSchema.default(3_600_000),
          probing: durationSchema.default(300_000),
          shadowing: durationSchema.default(3_600_000),
          soaking: durationSchema.default(3_600_000),
          unreachable: z
            .strictObject({
              after: durationSchema,
              counts: z.enum(['wait', 'ignore', 'fail']).default('wait'),
            })
            .optional(),
        })
        .prefault({}),
      /** Devices with the same value of `label` are a site, those without it one more. */
      disruption: z
        .strictObject({
          label: labelKey,
          maxUnavailable: z.number().int().positive(),
          /** Sites in which devices are being updated at the same time; absent: all. */
          maxSites: z.number().int().positive().optional(),
        })
        .optional(),
      windows: z
        .strictObject({
          download: timeWindowsSchema.optional(),
          activate: timeWindowsSchema.optional(),
          /** How long a device may defer one update in all (`lepton-agent defer`). */
          deferMax: durationSchema.default(deferMaxMsDefault),
        })
        .optional(),
      approvals: z
        .strictObject({
          required: z.number().int().positive(),
          /** Indexes of the waves that wait for it; absent: the first, so that nothing begins without. */
          waves: z.array(z.number().int().nonnegative()).min(1).optional(),
          /** How long an approval counts for a wave that has not begun. */
          expires: durationSchema.default(7 * 86_400_000),
        })
        .optional(),
      onGateFailure: z.enum(['rollback', 'pause']).default('rollback'),
      onAbort: z.enum(['keep', 'revert']).default('keep'),
    })
    .refine(
      (spec) =>
        [spec.release, spec.releases, spec.remove].filter((given) => given !== undefined).length === 1,
      'give exactly one of release, releases, remove',
    )
    .refine((spec) => spec.waves === undefined || spec.growth === undefined, 'give either waves or growth'),
});
export type RolloutFile = z.infer<typeof rolloutFileSchema>;
export type RolloutSpec = RolloutFile['spec'];
