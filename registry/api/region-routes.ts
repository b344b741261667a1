// Why: the routes of regions: who there is, how the lines to them are, and who is invited.
// Trusts: regions/. Must never: show an invitation's secret again.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { nameSchema } from '../../shared/wire/messages.ts';
import { invitationCreateSchema, invitationSchema, regionsStatusSchema } from '../../shared/wire/regions.ts';
import type { Regions } from '../regions/regions.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const show = createRoute({
  method: 'get',
  path: '/api/v1/regions',
  summary: 'The regions, the lines to them, and how far the catalogue is mirrored',
  responses: { 200: json(regionsStatusSchema, 'As this region sees it.'), default: problemResponse },
});
const invite = createRoute({
  method: 'post',
  path: '/api/v1/regions/invitations',
  summary:
    'Invite a registry to join as a region; at the home region. The secret is in this answer and never again',
  request: body(invitationCreateSchema),
  responses: { 201: json(invitationSchema, 'The invitation.'), default: problemResponse },
});
const remove = createRoute({
  method: 'delete',
  path: '/api/v1/regions/{region}',
  summary: 'Take a region out; at the home region. Its name is never used again',
  request: { params: z.object({ region: nameSchema }) },
  responses: { 200: json(regionsStatusSchema, 'The regions now.'), default: problemResponse },
});

export function registerRegionRoutes(api: Api, parts: RegistryParts): void {
  const regions = (): Regions => {
    if (parts.regions === undefined || parts.regions === null)
      throw new FleetError('not-implemented', 'this registry has no line to other regions');
    return parts.regions;
  };

  api.openapi(show, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(await regions().status(), 200);
  });

  api.openapi(invite, async (c) => {
    const { user } = requireAccess(c, 'regions.write');
    return c.json(unwrap(await regions().invite({ ...c.req.valid('json'), createdBy: user })), 201);
  });

  api.openapi(remove, async (c) => {
    requireAccess(c, 'regions.write');
    unwrap(await regions().members.remove(c.req.valid('param').region));
    return c.json(await regions().status(), 200);
  });
}
