// Why: the routes of moves between regions: handing in a signed order, looking how far devices are.
// Trusts: moves/ for every judgement; the order's own signatures for who moves devices.
// Must never: move a device on a token's word alone.

import { createRoute, z } from '@hono/zod-openapi';
import { unwrap } from '../../shared/kernel/errors.ts';
import { moveApplySchema, moveSchema, moveSignSchema } from '../../shared/wire/device-move.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const list = createRoute({
  method: 'get',
  path: '/api/v1/moves',
  summary: 'Orders that move devices of this region to others, and how far each device is; newest first',
  responses: { 200: json(z.array(moveSchema), 'Orders.'), default: problemResponse },
});
const apply = createRoute({
  method: 'post',
  path: '/api/v1/moves',
  summary: 'Hand an order to the devices that it names; signed by a threshold of the catalogue’s root keys',
  request: body(moveApplySchema),
  responses: { 200: json(moveSchema, 'The order and its devices.'), default: problemResponse },
});
const sign = createRoute({
  method: 'post',
  path: '/api/v1/moves/sign',
  summary: 'Sign an order with the root keys on this registry’s disk: in development only there are any',
  request: body(moveSignSchema),
  responses: { 200: json(moveApplySchema, 'The order with these signatures.'), default: problemResponse },
});

export function registerMoveRoutes(api: Api, parts: RegistryParts): void {
  const { moves } = parts.fleet;

  api.openapi(list, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(await moves.list(), 200);
  });

  api.openapi(apply, async (c) => {
    const { user } = requireAccess(c, 'devices.write');
    const move = unwrap(await moves.apply(c.req.valid('json').envelope, user));
    noteAudited(c, { subject: move.moveId, detail: { to: move.to, devices: move.devices.length } });
    return c.json(move, 200);
  });

  api.openapi(sign, async (c) => {
    requireAccess(c, 'keys.write');
    const order = new Uint8Array(Buffer.from(c.req.valid('json').order, 'base64'));
    return c.json({ envelope: unwrap(await moves.sign(order)) }, 200);
  });
}
