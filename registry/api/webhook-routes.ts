// Why: the routes of webhooks: who is told of events. Trusts: outlets/webhooks.ts. Must never: show a secret again.

import { createRoute, z } from '@hono/zod-openapi';
import { unwrap } from '../../shared/kernel/errors.ts';
import { webhookCreatedSchema, webhookCreateSchema, webhookSchema } from '../../shared/wire/webhooks.ts';
import type { Webhooks } from '../outlets/webhooks.ts';
import { type Api, noteAudited, problemResponse, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const add = createRoute({
  method: 'post',
  path: '/api/v1/webhooks',
  summary:
    'Post events to an address from now on; the secret that signs them is in this answer and never again',
  request: body(webhookCreateSchema),
  responses: { 201: json(webhookCreatedSchema, 'The webhook.'), default: problemResponse },
});
const list = createRoute({
  method: 'get',
  path: '/api/v1/webhooks',
  summary: 'Webhooks and how their deliveries go',
  responses: { 200: json(z.array(webhookSchema), 'Oldest first.'), default: problemResponse },
});
const remove = createRoute({
  method: 'delete',
  path: '/api/v1/webhooks/{id}',
  summary: 'Post no more to it',
  request: { params: z.object({ id: z.string().max(64) }) },
  responses: { 200: json(webhookSchema, 'The removed webhook.'), default: problemResponse },
});

export function registerWebhookRoutes(api: Api, webhooks: Webhooks): void {
  api.openapi(add, async (c) => {
    const { user } = requireAccess(c, 'webhooks.write');
    const made = await webhooks.add({ ...c.req.valid('json'), createdBy: user });
    noteAudited(c, { subject: made.id });
    return c.json(made, 201);
  });

  api.openapi(list, async (c) => {
    requireAccess(c, 'webhooks.write');
    return c.json(await webhooks.list(), 200);
  });

  api.openapi(remove, async (c) => {
    requireAccess(c, 'webhooks.write');
    return c.json(unwrap(await webhooks.remove(c.req.valid('param').id)), 200);
  });
}
