// Why: the routes of who may issue certificates, which of them are worth nothing any more, and what a broker of
// another maker must know of it.
// Trusts: requireAccess for who may; fleet/ for what happens. Must never: answer with a key.

import { createRoute, z } from '@hono/zod-openapi';
import { readDeviceRequest } from '../../shared/host/certificates.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import {
  authorityRetireSchema,
  authoritySchema,
  brokerCertificateRequestSchema,
  brokerCertificateSchema,
  brokerFilesSchema,
  revokedDeviceSchema,
} from '../../shared/wire/http.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const listAuthorities = createRoute({
  method: 'get',
  path: '/api/v1/authorities',
  summary: 'Certificate authorities of the fleet, newest first, and how many devices depend on each',
  responses: { 200: json(z.array(authoritySchema), 'Authorities.'), default: problemResponse },
});
const rotateAuthority = createRoute({
  method: 'post',
  path: '/api/v1/authorities',
  summary: 'Make the next authority beside the present ones; devices renew their certificates by themselves',
  responses: {
    201: json(z.array(authoritySchema), 'Authorities, the new one first.'),
    default: problemResponse,
  },
});
const retireAuthority = createRoute({
  method: 'post',
  path: '/api/v1/authorities/{id}/retire',
  summary: 'End an authority; refused while active devices depend on it, unless forced. Idempotent',
  request: { params: z.object({ id: z.string().max(128) }), ...body(authorityRetireSchema) },
  responses: { 200: json(z.array(authoritySchema), 'Authorities.'), default: problemResponse },
});
const listRevoked = createRoute({
  method: 'get',
  path: '/api/v1/devices/revoked',
  summary: 'Devices that are shut out, latest first, with their certificates that have not ended',
  responses: { 200: json(z.array(revokedDeviceSchema), 'Devices.'), default: problemResponse },
});
const brokerFiles = createRoute({
  method: 'get',
  path: '/api/v1/broker/files',
  summary: 'Access rules, revocation lists, authorities and settings for an external broker; signs new lists',
  responses: { 200: json(brokerFilesSchema, 'Texts of the files.'), default: problemResponse },
});
const brokerCertificate = createRoute({
  method: 'post',
  path: '/api/v1/broker/certificate',
  summary: 'A server certificate for an external broker that made its own key',
  request: body(brokerCertificateRequestSchema),
  responses: { 200: json(brokerCertificateSchema, 'Certificate, PEM.'), default: problemResponse },
});

export function registerAuthorityRoutes(api: Api, parts: RegistryParts): void {
  const { authorities, revocation } = parts.fleet;

  api.openapi(listAuthorities, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(await authorities.list(), 200);
  });

  api.openapi(rotateAuthority, async (c) => {
    const principal = requireAccess(c, 'authorities.write');
    return c.json(unwrap(await authorities.rotate(principal.user)), 201);
  });

  api.openapi(retireAuthority, async (c) => {
    const principal = requireAccess(c, 'authorities.write');
    const { force } = c.req.valid('json');
    const retired = await authorities.retire(c.req.valid('param').id, { force, by: principal.user });
    return c.json(unwrap(retired), 200);
  });

  api.openapi(listRevoked, async (c) => {
    requireAccess(c, 'broker.read');
    return c.json(await revocation.revoked(), 200);
  });

  api.openapi(brokerFiles, async (c) => {
    requireAccess(c, 'broker.read');
    return c.json(await revocation.brokerFiles(), 200);
  });

  api.openapi(brokerCertificate, async (c) => {
    const principal = requireAccess(c, 'authorities.write');
    const { csr, hosts } = c.req.valid('json');
    const { publicKey, deviceId } = unwrap(await readDeviceRequest(csr));
    const certificate = await parts.authorities.certifyBroker(publicKey, hosts);
    parts.log.emit('info', 'certificate.issued', { broker: deviceId, hosts, by: principal.user });
    return c.json({ certificate }, 200);
  });
}
