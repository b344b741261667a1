// Why: the routes of masking: what of a record leaves no device of this region, or leaves it changed.
// Trusts: telemetry/masking.ts for the rules, the director for bringing them to devices. Must never: show the key.

import { createRoute } from '@hono/zod-openapi';
import { maskingPutSchema, maskingViewSchema } from '../../shared/wire/masking.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const path = '/api/v1/masking';

const show = createRoute({
  method: 'get',
  path,
  summary: 'Rules that devices apply to records before they seal them',
  responses: { 200: json(maskingViewSchema, 'The rules in force.'), default: problemResponse },
});
const put = createRoute({
  method: 'put',
  path,
  summary: 'Set the rules; devices hold them with their next assignment, which is signed at once',
  request: body(maskingPutSchema),
  responses: { 200: json(maskingViewSchema, 'The rules in force.'), default: problemResponse },
});

export function registerMaskingRoutes(api: Api, parts: RegistryParts): void {
  const { masking, fleet, log } = parts;

  api.openapi(show, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(masking.view(), 200);
  });

  api.openapi(put, async (c) => {
    const { user } = requireAccess(c, 'masking.write');
    const { rules, newKey } = c.req.valid('json');
    const view = await masking.set(rules, newKey);
    log.emit('info', 'masking.set', { user, rules: rules.length, newKey });
    await fleet.director.reissueChanged();
    return c.json(view, 200);
  });
}
