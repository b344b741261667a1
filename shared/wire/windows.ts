// Why: windows of time as people write them in a rollout file and as they travel in an assignment.
// Trusts: nothing before the schema. Must never: know a time zone: each device has its own.

import { z } from 'zod';
import { weekdays } from '../kernel/windows.ts';

const clockTime = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'expected HH:MM');

export const timeWindowSchema = z.strictObject({
  days: z.array(z.enum(weekdays)).min(1).max(7).optional(),
  from: clockTime,
  to: clockTime,
});

export const timeWindowsSchema = z.array(timeWindowSchema).min(1).max(32);

/** How long a device may say "not now" to one update where its assignment names nothing. */
export const deferMaxMsDefault = 4 * 3_600_000;

/** When a device may begin to download, and to switch. */
export const windowPolicySchema = z.object({
  /** Absent: at any time. */
  download: timeWindowsSchema.exactOptional(),
  activate: timeWindowsSchema.exactOptional(),
  /** Bound on what the device defers one update in all, milliseconds. */
  deferMaxMs: z.number().int().nonnegative(),
});
export type WindowPolicy = z.infer<typeof windowPolicySchema>;
