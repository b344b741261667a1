// Why: named groups of devices as the registry's HTTP API tells of them and takes them.
// Trusts: nothing before the schemas. Must never: carry the devices themselves: who is in a group is asked anew each time.

import { z } from 'zod';
import { nameSchema } from './messages.ts';
import { selectorSchema } from './rollout-file.ts';

/** Body of `PUT /api/v1/groups/{name}`. */
export const deviceGroupPutSchema = z.object({ selector: selectorSchema });

/** `GET /api/v1/groups`: an array of these, by name. */
export const deviceGroupSchema = z.object({
  name: nameSchema,
  selector: selectorSchema,
  changedBy: z.string(),
  /** Unix milliseconds. */
  changedAtMs: z.number().int().nonnegative(),
});
export type DeviceGroup = z.infer<typeof deviceGroupSchema>;
