// Why: what left a region, what was refused and what is kept there, as API, CLI and auditors read it.
// Trusts: nothing before the schema. Must never: hold anything of a record.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { nameSchema, telemetryClasses } from './messages.ts';
import { flowClasses, purposeSchema } from './region-policy.ts';

const count = z.number().int().nonnegative();

export const flowTotalSchema = z.object({
  class: z.enum(flowClasses),
  destination: z.string(),
  rule: z.string(),
  requests: count,
  records: count,
  bytes: count,
});
export type FlowTotal = z.infer<typeof flowTotalSchema>;

export const keptClassSchema = z.object({
  class: z.enum(telemetryClasses),
  batches: count,
  records: count,
  /** As they lie in the database: compressed and sealed. */
  bytes: count,
  oldestMs: count.nullable(),
  /** Null: kept until it is erased. */
  keptMs: count.nullable(),
  rule: z.string(),
  purposes: z.array(purposeSchema.omit({ classes: true })),
});
export type KeptClass = z.infer<typeof keptClassSchema>;

/** `GET /api/v1/reports/residency` and `lepton report residency --format json`. */
export const residencyReportSchema = z.object({
  schemaVersion: z.literal(1),
  region: nameSchema,
  madeAtMs: count,
  /** Whole days, UTC: from the first on, before the last. */
  sinceMs: count,
  untilMs: count,
  /** Null: no policy is in force, and the defaults decide. */
  policy: z
    .object({
      name: nameSchema,
      version: count,
      sha256: z.string().regex(sha256Pattern),
      signedBy: z.array(z.string()),
      putAtMs: count,
      cellDevicesMin: count,
    })
    .nullable(),
  /** By class, destination and rule. */
  left: z.array(flowTotalSchema),
  refused: z.array(flowTotalSchema),
  kept: z.array(keptClassSchema),
});
export type ResidencyReport = z.infer<typeof residencyReportSchema>;
