// Why: everything that is known of a model's releases in one document: what they are, where they run, how they do, what
// went wrong. Trusts: nothing before the schemas. Must never: hold more of another region than its cells tell.

import { z } from 'zod';
import { latencyViewSchema, mergedCellsSchema } from './cells.ts';
import { driftVerdicts } from './drift.ts';
import { energySchema } from './energy.ts';
import { featureMeasures } from './feature-stats.ts';
import { manifestFileSchema } from './manifest.ts';
import { nameSchema, releaseIdSchema } from './messages.ts';

const count = z.number().int().nonnegative();
const timeMs = z.number().int().nonnegative();

export const incidentKinds = ['rollout', 'device', 'event', 'attack'] as const;
export const incidentSchema = z.object({
  kind: z.enum(incidentKinds),
  /** Of the last one. */
  atMs: timeMs,
  /** State of a rollout, or the code of a refusal or failure. */
  code: z.string(),
  /** In words, of the last one. */
  detail: z.string(),
  /** How often: devices, or events. */
  count,
});
export type Incident = z.infer<typeof incidentSchema>;

/** What this region's devices said themselves: for whoever may read telemetry. */
const ownSchema = z.object({
  requests: count,
  errors: z.record(z.string(), count),
  latencyMs: latencyViewSchema.nullable(),
  drift: z.enum([...driftVerdicts, 'no-profile', 'no-counts']),
  features: z.array(
    z.object({
      role: z.enum(['input', 'output']),
      tensor: z.string(),
      index: count,
      of: z.enum(featureMeasures),
      verdict: z.enum(driftVerdicts),
      psi: z.number().nullable(),
      count,
    }),
  ),
  energy: energySchema.shape.releases.element.shape.methods,
});
export type OwnFacts = z.infer<typeof ownSchema>;

export const releaseReportSchema = z.object({
  release: releaseIdSchema,
  counter: count,
  /** SHA-256 of manifest.json. */
  digest: z.string(),
  bytes: count,
  status: z.enum(['available', 'release-withdrawn', 'release-below-floor', 'release-lost']),
  pushedBy: z.string(),
  pushedAtMs: timeMs,
  /** Key ids. */
  signedBy: z.array(z.string()),
  files: z.array(manifestFileSchema),
  /** Markdown, as its publisher wrote it; null where the release has none. */
  card: z.object({ text: z.string(), truncated: z.boolean() }).nullable(),
  /** Lines of the card about the test part, where `lepton train` wrote it. */
  metrics: z.array(z.string()).nullable(),
  /** Golden cases on this region's devices; null where no device tried the release. */
  probes: z
    .object({
      devices: count,
      /** All cases right. */
      devicesPassed: count,
      goldenCases: count,
      latencyP95MsMedian: z.number(),
      memoryBytesPeakMax: z.number(),
      firstFailure: z.string().nullable(),
    })
    .nullable(),
  runs: z.object({
    /** Devices of this region that serve it. */
    active: count,
    /** Devices of this region that are to run it, by the state of their machine. */
    states: z.record(z.string(), count),
    /** As cells tell it, other regions alone. */
    regions: z.array(z.object({ region: nameSchema, devicesAtLeast: count, lastDay: count })),
  }),
  /** Of all regions; null where none tells of it. */
  cells: mergedCellsSchema.nullable(),
  own: ownSchema.nullable(),
  incidents: z.array(incidentSchema),
});
export type ReleaseReport = z.infer<typeof releaseReportSchema>;

/** `GET /api/v1/reports/models` */
export const modelsReportSchema = z.object({
  region: nameSchema,
  madeAtMs: timeMs,
  sinceMs: timeMs,
  models: z.array(
    z.object({
      name: z.string(),
      /** No release with a lower counter may be assigned. */
      floor: count,
      /** All releases together, of all regions that tell. */
      cells: mergedCellsSchema.nullable(),
      /** The newest first. */
      releases: z.array(releaseReportSchema),
    }),
  ),
  /** More releases than a report may have: ask for one model. */
  truncated: z.boolean(),
});
export type ModelsReport = z.infer<typeof modelsReportSchema>;
