// Why: a cell: what a region tells others of one release, or of all releases of a model, on one day; and how cells are listed.
// Trusts: nothing before the schemas. Must never: hold a device's id, an exact count of devices, or a number of too few of them.

import { z } from 'zod';
import { parseModelId, parseReleaseId } from '../kernel/releases.ts';
import { energyMethods, energySources } from './energy.ts';
import { featureMeasures } from './feature-stats.ts';
import { envelopeSchema, nameSchema } from './messages.ts';

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
/** Null: not told by itself. */
const pooled = count.nullable();

/** Days since 1970 began, UTC. */
export const daySchema = z.number().int().nonnegative().max(1e6);

export const cellFeatureSchema = z.object({
  role: z.enum(['input', 'output']),
  tensor: z.string().min(1).max(512),
  index: z.number().int().nonnegative(),
  of: z.enum(featureMeasures),
  /** In the bins of the profile. */
  counts: z.array(pooled).max(4_098),
  missing: pooled,
  other: pooled,
  /** All that is null above, as one sum. */
  pooled: count,
});
export type CellFeature = z.infer<typeof cellFeatureSchema>;

const statementFields = z.object({
  schemaVersion: z.literal(1),
  region: nameSchema,
  /** Of the devices' clocks, UTC. */
  day: daySchema,
  /** `model`: all releases of it, also those that have no cell of their own. */
  kind: z.enum(['release', 'model']),
  /** `NS/NAME@VERSION` or `NS/NAME`. */
  subject: z.string().min(3).max(256),
  /** What every number in it was made of at least. */
  devicesMin: z.number().int().positive(),
  dominancePercent: z.number().int().positive().max(100),
  /** One of devicesMin, twice, four times … as many: never more than there were. */
  devicesAtLeast: z.number().int().positive(),
  answered: pooled,
  failed: pooled,
  /** By code, with `other` for what is not told by itself; null where `failed` is, and for a model. */
  errors: z.record(z.string().max(64), count).nullable(),
  /** Of answered requests, classes as in shared/stats/sketch.ts; null for a model. */
  latency: z.array(z.tuple([z.number().int().min(0).max(504), count])).nullable(),
  /** Ratios alone, to three digits. */
  energy: z.array(z.object({ method: z.enum(energyMethods), joulesPer1000: z.number().nonnegative() })),
  features: z
    .object({
      profileSha256: z.string().regex(/^[0-9a-f]{64}$/),
      rows: count,
      seenRows: count,
      features: z.array(cellFeatureSchema).max(10_000),
    })
    .nullable(),
});
/** Payload of an envelope that the region's `ack` key signs. */
export const cellStatementSchema = statementFields.refine(
  ({ kind, subject }) => (kind === 'release' ? parseReleaseId(subject) : parseModelId(subject)) !== null,
  { path: ['subject'], message: 'must be NS/NAME@VERSION of a release, NS/NAME of a model' },
);
export type CellStatement = z.infer<typeof cellStatementSchema>;

/** One item of the stream `cells`. */
export const cellItemSchema = z.object({ envelope: envelopeSchema });

/** `cells/neighbour`: it would differ by a few devices from the same cell some days before. */
export const withheldRules = [
  'cells/k',
  'cells/dominance',
  'cells/complement',
  'cells/neighbour',
  'cells/size',
] as const;
export type WithheldRule = (typeof withheldRules)[number];

export const withheldSchema = z.object({
  day: daySchema,
  kind: z.enum(['release', 'model']),
  subject: z.string(),
  /** `cell`: all of it; else a part: `answered`, `failed`, `latency`, `energy METHOD`, `features`, `feature KEY`. */
  part: z.string(),
  rule: z.enum(withheldRules),
});
export type Withheld = z.infer<typeof withheldSchema>;

/** `GET /api/v1/cells` */
export const cellListSchema = z.object({
  /** Whose list this is; cells of other regions are as far as they were pulled. */
  region: nameSchema,
  cells: z.array(cellStatementSchema),
  /** More cells than an answer may have: ask for fewer days. */
  truncated: z.boolean(),
  withheld: z.object({
    count,
    /** Null for whoever may not know which. */
    list: z.array(withheldSchema).nullable(),
  }),
  /** Records that came after their day was closed; they are in no cell. */
  lateRecords: count,
});
export type CellList = z.infer<typeof cellListSchema>;

/** What is told of a feature over regions and days. */
export const mergedFeatureSchema = z.object({
  role: z.enum(['input', 'output']),
  tensor: z.string(),
  index: z.number().int().nonnegative(),
  of: z.enum(featureMeasures),
  verdict: z.enum(['ok', 'drift', 'too-few']),
  /** Null where there are too few counts. Bins that some cell pooled are one here, so that more may have changed. */
  psi: z.number().nullable(),
  js: z.number().nullable(),
  threshold: z.number(),
  count,
  missing: pooled,
  /** Bins told by themselves by every cell, of all of them. */
  bins: count,
  binsAll: count,
});
export type MergedFeature = z.infer<typeof mergedFeatureSchema>;

export const latencyViewSchema = z.object({ p50: z.number(), p95: z.number(), p99: z.number() });

/** Cells of one release or model added up. */
export const mergedCellsSchema = z.object({
  kind: z.enum(['release', 'model']),
  subject: z.string(),
  regions: z.array(nameSchema),
  fromDay: daySchema,
  untilDay: daySchema,
  cells: count,
  /** Sum over regions of the most devices that a day tells. */
  devicesAtLeast: count,
  answered: count,
  failed: count,
  /** Cells that tell nothing of that. */
  answeredUntold: count,
  failedUntold: count,
  errors: z.record(z.string(), count),
  /** From above by at most 22 %; what was slower on too few devices counts as the slowest of enough. */
  latencyMs: latencyViewSchema.nullable(),
  /** Weighed by answered requests. */
  energy: z.array(
    z.object({
      method: z.enum(energyMethods),
      source: z.enum(Object.values(energySources)),
      joulesPer1000: z.number().nonnegative(),
    }),
  ),
  /** Against the release's profile; null where it has none, or no cell tells of it. */
  features: z.array(mergedFeatureSchema).nullable(),
  verdict: z.enum(['ok', 'drift', 'too-few', 'no-counts']),
});
export type MergedCells = z.infer<typeof mergedCellsSchema>;

/** `GET /api/v1/cells/merged` */
export const mergedListSchema = z.object({ region: nameSchema, merged: z.array(mergedCellsSchema) });
