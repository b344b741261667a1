// Why: the route of the report of models. Trusts: requireAccess for who may; registry/reports for the facts.
// Must never: give what this region's devices counted to somebody who may not read telemetry of that namespace.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError } from '../../shared/kernel/errors.ts';
import { modelOfRelease, parseModelId, parseReleaseId } from '../../shared/kernel/releases.ts';
import { modelsReportSchema } from '../../shared/wire/model-report.ts';
import { authorize } from '../policy/access.ts';
import { createModelFacts } from '../reports/model-facts.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json } from './documents.ts';
import { createFlowGuard, sitsIn } from './flow-guard.ts';

const dayMs = 86_400_000;
const daysDefault = 30;
const daysMax = 93;

const showModels = createRoute({
  method: 'get',
  path: '/api/v1/reports/models',
  summary:
    'What is known of models’ releases: card, golden cases, where they run, cells of all regions, incidents',
  request: {
    query: z.object({
      /** `NS/NAME` or `NS/NAME@VERSION`; every model where absent. */
      model: z
        .string()
        .refine(
          (text) => parseModelId(text) !== null || parseReleaseId(text) !== null,
          'expected NS/NAME or NS/NAME@VERSION',
        )
        .optional(),
      /** Unix milliseconds; 30 days ago where absent. */
      since: z.coerce.number().int().nonnegative().optional(),
    }),
  },
  responses: { 200: json(modelsReportSchema, 'By model and release.'), default: problemResponse },
});

export function registerReportRoutes(api: Api, parts: RegistryParts): void {
  const guard = createFlowGuard(parts);
  const facts = createModelFacts(parts, parts.fleet.evidence);

  api.openapi(showModels, async (c) => {
    const principal = requireAccess(c, 'cells.read');
    const { model, since } = c.req.valid('query');
    const nowMs = parts.clock.wall();
    const sinceMs = since ?? Math.max(0, nowMs - daysDefault * dayMs);
    if (nowMs - sinceMs > daysMax * dayMs)
      throw new FleetError('input-invalid', `ask for ${daysMax} days at most`);
    const isRelease = model !== undefined && parseReleaseId(model) !== null;
    const report = await facts.report({
      model: model === undefined ? undefined : isRelease ? modelOfRelease(model) : model,
      release: isRelease ? model : undefined,
      sinceMs,
      mayReadOwn: (namespace) =>
        sitsIn(parts.region, principal) && authorize(principal, 'telemetry.read', namespace).ok,
    });
    await guard.cells(principal, [], report);
    return c.json(report, 200);
  });
}
