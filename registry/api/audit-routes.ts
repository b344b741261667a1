// Why: the routes of the audit record: a page of it, and all of it as a file that can be checked elsewhere.
// Trusts: registry/audit for what is read. Must never: build a whole export in memory.

import { createRoute, z } from '@hono/zod-openapi';
import { auditLineSchema, auditPageSchema } from '../../shared/wire/audit.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json, streamed } from './documents.ts';

const text = z.string().min(1).max(512).optional();
const list = createRoute({
  method: 'get',
  path: '/api/v1/audit',
  summary: 'Who did what, why, from where and with what outcome; oldest first',
  request: {
    query: z.object({
      /** Entries behind this id. */
      after: z.coerce.number().int().nonnegative().default(0),
      limit: z.coerce.number().int().positive().max(1_000).default(100),
      actor: text,
      action: text,
      subject: text,
    }),
  },
  responses: { 200: json(auditPageSchema, 'A page.'), default: problemResponse },
});

export function registerAuditRoutes(api: Api, parts: RegistryParts): void {
  const { audit } = parts;

  api.openapi(list, async (c) => {
    requireAccess(c, 'audit.read');
    const { after, limit, actor, action, subject } = c.req.valid('query');
    const query = {
      ...(actor === undefined ? {} : { actor }),
      ...(action === undefined ? {} : { action }),
      ...(subject === undefined ? {} : { subject }),
    };
    return c.json(await audit.list({ ...query, after, limit }), 200);
  });

  api.openAPIRegistry.registerPath({
    method: 'get',
    path: '/api/v1/audit/export',
    summary: 'The whole record with the region’s roots, its newest signed head and the heads of its peers',
    responses: {
      200: {
        description: 'NDJSON, for `lepton audit verify`; the last line signs all before it.',
        content: { 'application/x-ndjson': { schema: auditLineSchema } },
      },
      default: problemResponse,
    },
  });
  // A stream has no type that a typed route could check.
  api.get('/api/v1/audit/export', async (c) => {
    requireAccess(c, 'audit.read');
    const { entries, lines } = await audit.exported();
    noteAudited(c, { detail: { records: entries } });
    return c.body(streamed(lines), 200, { 'content-type': 'application/x-ndjson; charset=utf-8' });
  });
}
