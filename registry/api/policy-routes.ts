// Why: the routes of the region's policy: what is in force, what it answers, what it would delete, and what went where.
// Trusts: policy/ for every judgement. Must never: put a policy in force by itself.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { nameSchema } from '../../shared/wire/messages.ts';
import {
  flowClasses,
  policyDecisionSchema,
  policyPutSchema,
  policyVersionSchema,
  policyViewSchema,
  retentionPlanSchema,
} from '../../shared/wire/region-policy.ts';
import { residencyReportSchema } from '../../shared/wire/residency-report.ts';
import { createRetention } from '../policy/retention.ts';
import { residencyFacts } from '../reports/residency-facts.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const path = '/api/v1/policy';
const dayMs = 86_400_000;
const timeMs = z.coerce.number().int().nonnegative();

const show = createRoute({
  method: 'get',
  path,
  summary: 'The policy in force, with its signatures',
  responses: {
    200: json(policyViewSchema, 'The policy; null before the first one.'),
    default: problemResponse,
  },
});
const put = createRoute({
  method: 'put',
  path,
  summary:
    'Put a policy in force that root keys of the region have signed; the same one again changes nothing',
  request: body(policyPutSchema),
  responses: { 200: json(policyViewSchema, 'The policy in force.'), default: problemResponse },
});
const history = createRoute({
  method: 'get',
  path: `${path}/history`,
  summary: 'Every version that was in force',
  responses: { 200: json(z.array(policyVersionSchema), 'Newest first.'), default: problemResponse },
});
const decision = createRoute({
  method: 'get',
  path: `${path}/decision`,
  summary: 'Whether data of a class may go to a region, and which rule says so',
  request: { query: z.object({ class: z.enum(flowClasses), destination: nameSchema }) },
  responses: { 200: json(policyDecisionSchema, 'The decision.'), default: problemResponse },
});
const retention = createRoute({
  method: 'get',
  path: `${path}/retention`,
  summary: 'What is older than its class is kept, and would be deleted now',
  responses: { 200: json(retentionPlanSchema, 'By class.'), default: problemResponse },
});
const residency = createRoute({
  method: 'get',
  path: '/api/v1/reports/residency',
  summary: 'What left the region under which rule, what was refused, and what is kept',
  // Unix milliseconds; absent: the last 30 days.
  request: { query: z.object({ since: timeMs.optional(), until: timeMs.optional() }) },
  responses: { 200: json(residencyReportSchema, 'Whole days, UTC.'), default: problemResponse },
});

export function registerPolicyRoutes(api: Api, parts: RegistryParts): void {
  const { policies, masking, fleet, clock } = parts;
  const { events } = fleet;
  const desk = createRetention({ ...parts, events });

  api.openapi(show, async (c) => {
    requireAccess(c, 'policy.read');
    return c.json(await policies.view(), 200);
  });

  api.openapi(put, async (c) => {
    const { user } = requireAccess(c, 'policy.write');
    const { envelope } = c.req.valid('json');
    const done = await policies.put(envelope, {
      by: user,
      masking,
      alongside(db, { version, sha256, name }) {
        const detail = `version ${version} of ${name}, SHA-256 ${sha256}, by ${user}`;
        events.recordIn(db, { source: 'registry', subject: null, code: 'policy-in-force', detail });
      },
    });
    const { status, version } = unwrap(done);
    noteAudited(c, {
      subject: version.name,
      detail: { version: version.version, sha256: version.sha256, policy: status },
    });
    if (masking.isPending()) await fleet.director.reissueChanged();
    return c.json(await policies.view(), 200);
  });

  api.openapi(history, async (c) => {
    requireAccess(c, 'policy.read');
    return c.json(await policies.history(), 200);
  });

  api.openapi(decision, async (c) => {
    requireAccess(c, 'policy.read');
    const { class: flow, destination } = c.req.valid('query');
    return c.json({ class: flow, destination, ...policies.flow(flow, destination) }, 200);
  });

  api.openapi(retention, async (c) => {
    requireAccess(c, 'policy.read');
    return c.json(await desk.plan(), 200);
  });

  api.openapi(residency, async (c) => {
    requireAccess(c, 'policy.read');
    const { since, until } = c.req.valid('query');
    const untilMs = until ?? clock.wall();
    const sinceMs = since ?? Math.max(0, untilMs - 30 * dayMs);
    if (sinceMs > untilMs) throw new FleetError('input-invalid', 'since lies behind until');
    return c.json(await residencyFacts(parts, { sinceMs, untilMs }), 200);
  });
}
