// Why: the routes of the fleet: claims, devices, events.
// Trusts: requireAccess for who may; fleet/ for what happens. Must never: answer with a claim's key twice.

import { createRoute, z } from '@hono/zod-openapi';
import { unwrap } from '../../shared/kernel/errors.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import {
  claimCreateSchema,
  deviceLabelsSchema,
  deviceSchema,
  fleetEventSchema,
} from '../../shared/wire/http.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

/** Not checked against the form of an id: what is no device is `device-unknown`, whatever it looks like. */
const device = { params: z.object({ id: z.string().max(128) }) };

const createClaim = createRoute({
  method: 'post',
  path: '/api/v1/claims',
  summary: 'Make an enrolment claim; its private key is in this answer and never again',
  request: body(claimCreateSchema),
  responses: { 201: json(claimFileSchema, 'The claim file. A secret.'), default: problemResponse },
});
const listDevices = createRoute({
  method: 'get',
  path: '/api/v1/devices',
  summary: 'Every device that enrolled, also revoked ones',
  responses: { 200: json(z.array(deviceSchema), 'Devices, oldest first.'), default: problemResponse },
});
const showDevice = createRoute({
  method: 'get',
  path: '/api/v1/devices/{id}',
  summary: 'One device: what it runs, should run, and why',
  request: device,
  responses: { 200: json(deviceSchema, 'The device.'), default: problemResponse },
});
const labelDevice = createRoute({
  method: 'patch',
  path: '/api/v1/devices/{id}/labels',
  summary: 'Set labels; null removes one. Rollouts that match now apply',
  request: { ...device, ...body(deviceLabelsSchema) },
  responses: { 200: json(deviceSchema, 'The device.'), default: problemResponse },
});
const revokeDevice = createRoute({
  method: 'post',
  path: '/api/v1/devices/{id}/revoke',
  summary: 'End its connection at once and never take its key again; idempotent',
  request: device,
  responses: { 200: json(deviceSchema, 'The device.'), default: problemResponse },
});
const releaseDevice = createRoute({
  method: 'post',
  path: '/api/v1/devices/{id}/release',
  summary: 'End its quarantine; idempotent',
  request: device,
  responses: { 200: json(deviceSchema, 'The device.'), default: problemResponse },
});
const listEvents = createRoute({
  method: 'get',
  path: '/api/v1/events',
  summary: 'What the registry noticed and what devices refused, newest first',
  request: {
    query: z.object({
      subject: z.string().max(128).optional(),
      code: z.string().max(64).optional(),
      /** `true`: those alone that mean that somebody tried something. */
      attacks: z.enum(['true', 'false']).optional(),
      /** Go on with events older than this id. */
      before: z.coerce.number().int().positive().optional(),
      /** Not older than this, Unix time in milliseconds. */
      sinceMs: z.coerce.number().int().nonnegative().optional(),
      limit: z.coerce.number().int().positive().max(1_000).default(100),
    }),
  },
  responses: { 200: json(z.array(fleetEventSchema), 'Events.'), default: problemResponse },
});

export function registerFleetRoutes(api: Api, parts: RegistryParts): void {
  const { claims, devices, events } = parts.fleet;

  api.openapi(createClaim, async (c) => {
    const principal = requireAccess(c, 'claims.write');
    const claim = await claims.create({ ...c.req.valid('json'), createdBy: principal.user });
    noteAudited(c, { subject: claim.claimId, detail: { uses: claim.uses } });
    return c.json(claim, 201);
  });

  api.openapi(listDevices, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(await devices.list(), 200);
  });

  api.openapi(showDevice, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(unwrap(await devices.show(c.req.valid('param').id)), 200);
  });

  api.openapi(labelDevice, async (c) => {
    requireAccess(c, 'devices.write');
    return c.json(unwrap(await devices.label(c.req.valid('param').id, c.req.valid('json').labels)), 200);
  });

  api.openapi(revokeDevice, async (c) => {
    const principal = requireAccess(c, 'devices.write');
    return c.json(unwrap(await devices.revoke(c.req.valid('param').id, principal.user)), 200);
  });

  api.openapi(releaseDevice, async (c) => {
    const principal = requireAccess(c, 'devices.write');
    return c.json(unwrap(await devices.release(c.req.valid('param').id, principal.user)), 200);
  });

  api.openapi(listEvents, async (c) => {
    requireAccess(c, 'fleet.read');
    const { subject, code, attacks, before, sinceMs, limit } = c.req.valid('query');
    const query = {
      limit,
      attacks: attacks === 'true',
      ...(sinceMs === undefined ? {} : { sinceMs }),
      ...(subject === undefined ? {} : { subject }),
      ...(code === undefined ? {} : { code }),
      ...(before === undefined ? {} : { before }),
    };
    return c.json(await events.list(query), 200);
  });
}
