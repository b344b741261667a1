// Why: the record of class `stats` that counts the requests of one served release, as the region reads it.
// Trusts: nothing before the schema. Must never: require more than what adds up over devices and windows.

import { z } from 'zod';
import { sketchSchema } from '../stats/sketch.ts';

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);

/** What agent/telemetry/stats.ts writes, less its quantiles, which do not add up. */
export const requestsStatsSchema = z.object({
  kind: z.literal('requests'),
  model: z.string().min(1).max(512),
  windowMs: z.number().nonnegative(),
  requests: count,
  /** By code. */
  errors: z.record(z.string().max(64), count),
  /** Of answered requests, milliseconds; null where none was answered. */
  latencySketch: sketchSchema.nullable(),
});
export type RequestsStats = z.infer<typeof requestsStatsSchema>;
