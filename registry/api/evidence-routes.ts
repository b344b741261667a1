// Why: the routes of evidence: drift of a model against its reference profile.
// Trusts: requireAccess for who may; telemetry/ for what is said. Must never: read raw records for an answer.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { driftSchema } from '../../shared/wire/drift.ts';
import { deviceIdSchema, nameSchema, releaseIdSchema } from '../../shared/wire/messages.ts';
import { createDrift } from '../telemetry/drift.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json } from './documents.ts';

const dayMs = 24 * 3_600_000;
const timeMs = z.coerce.number().int().nonnegative();

const showDrift = createRoute({
  method: 'get',
  path: '/api/v1/models/{namespace}/{name}/drift',
  summary: 'What devices counted of a release’s inputs and outputs beside its reference profile',
  request: {
    params: z.object({ namespace: nameSchema, name: nameSchema }),
    query: z.object({
      /** Absent: the newest that has a profile. */
      release: releaseIdSchema.optional(),
      /** Unix milliseconds by the devices’ clocks, whole hours; a day ago where absent. */
      since: timeMs.optional(),
      until: timeMs.optional(),
      device: deviceIdSchema.optional(),
      /** Name of a label: a group for each of its values. */
      by: z.string().min(1).max(63).optional(),
    }),
  },
  responses: { 200: json(driftSchema, 'By group and feature.'), default: problemResponse },
});

export function registerEvidenceRoutes(api: Api, parts: RegistryParts): void {
  const drift = createDrift(parts, parts.fleet.evidence);

  api.openapi(showDrift, async (c) => {
    const { namespace, name } = c.req.valid('param');
    // Counts about one model are for whoever may read records and answers for its namespace.
    requireAccess(c, 'telemetry.read', namespace);
    const { since, until, release, device, by } = c.req.valid('query');
    if (device !== undefined && by !== undefined)
      throw new FleetError('input-invalid', 'one device has no groups: give device or by');
    const untilMs = until ?? parts.clock.wall();
    const report = await drift.report({
      model: `${namespace}/${name}`,
      fromMs: since ?? Math.max(0, untilMs - dayMs),
      untilMs,
      ...(release === undefined ? {} : { release }),
      ...(device === undefined ? {} : { device }),
      ...(by === undefined ? {} : { by }),
    });
    return c.json(unwrap(report), 200);
  });
}
