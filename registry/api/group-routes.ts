// Why: the routes of named groups of devices.
// Trusts: requireAccess for the right. Must never: list who is in a group: that is asked anew by each rollout.

import { createRoute, z } from '@hono/zod-openapi';
import { unwrap } from '../../shared/kernel/errors.ts';
import { deviceGroupPutSchema, deviceGroupSchema } from '../../shared/wire/groups.ts';
import { nameSchema } from '../../shared/wire/messages.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json } from './documents.ts';

const group = { params: z.object({ name: nameSchema }) };

const listGroups = createRoute({
  method: 'get',
  path: '/api/v1/groups',
  summary: 'Named groups of devices, by name',
  responses: { 200: json(z.array(deviceGroupSchema), 'Groups.'), default: problemResponse },
});
const putGroup = createRoute({
  method: 'put',
  path: '/api/v1/groups/{name}',
  summary: 'Make a group, or say anew who is in it',
  request: {
    ...group,
    body: { required: true, content: { 'application/json': { schema: deviceGroupPutSchema } } },
  },
  responses: { 200: json(deviceGroupSchema, 'As it is kept.'), default: problemResponse },
});
const removeGroup = createRoute({
  method: 'delete',
  path: '/api/v1/groups/{name}',
  summary: 'Forget a group; devices that have a wave keep it',
  request: group,
  responses: { 200: json(z.object({ name: nameSchema }), 'It is gone.'), default: problemResponse },
});

export function registerGroupRoutes(api: Api, { rollouts }: RegistryParts): void {
  const { groups } = rollouts;

  api.openapi(listGroups, async (c) => {
    requireAccess(c, 'rollouts.read');
    return c.json(await groups.list(), 200);
  });

  api.openapi(putGroup, async (c) => {
    const { user } = requireAccess(c, 'rollouts.write', null);
    return c.json(
      unwrap(await groups.put(c.req.valid('param').name, c.req.valid('json').selector, user)),
      200,
    );
  });

  api.openapi(removeGroup, async (c) => {
    requireAccess(c, 'rollouts.write', null);
    return c.json(unwrap(await groups.remove(c.req.valid('param').name)), 200);
  });
}
