// Why: the routes of who may do what: tokens of people, keys of publishers.
// Trusts: policy/access.ts for rights. Must never: show a token again after it was made.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  pendingPushSchema,
  publisherPutSchema,
  publisherSchema,
  tokenCreatedSchema,
  tokenCreateSchema,
  tokenSchema,
} from '../../shared/wire/http.ts';
import { nameSchema } from '../../shared/wire/messages.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const namespaceParam = { params: z.object({ namespace: nameSchema }) };

const createToken = createRoute({
  method: 'post',
  path: '/api/v1/tokens',
  summary: 'Make a token; its secret is in this answer and never again',
  request: body(tokenCreateSchema),
  responses: { 201: json(tokenCreatedSchema, 'The token.'), default: problemResponse },
});
const listTokens = createRoute({
  method: 'get',
  path: '/api/v1/tokens',
  summary: 'Tokens, without their secrets',
  responses: { 200: json(z.array(tokenSchema), 'Tokens, oldest first.'), default: problemResponse },
});
const revokeToken = createRoute({
  method: 'delete',
  path: '/api/v1/tokens/{id}',
  summary: 'Make a token useless at once; idempotent',
  request: { params: z.object({ id: z.string().max(64) }) },
  responses: { 200: json(tokenSchema, 'The revoked token.'), default: problemResponse },
});
const putPublisher = createRoute({
  method: 'put',
  path: '/api/v1/publishers/{namespace}',
  summary: 'Name the keys of a namespace and how many of them must sign',
  request: { ...namespaceParam, ...body(publisherPutSchema) },
  responses: { 200: json(publisherSchema, 'The publisher.'), default: problemResponse },
});
const listPublishers = createRoute({
  method: 'get',
  path: '/api/v1/publishers',
  summary: 'Namespaces and their keys',
  responses: { 200: json(z.array(publisherSchema), 'By name.'), default: problemResponse },
});
const showPublisher = createRoute({
  method: 'get',
  path: '/api/v1/publishers/{namespace}',
  summary: 'One namespace',
  request: namespaceParam,
  responses: { 200: json(publisherSchema, 'The publisher.'), default: problemResponse },
});
const showPending = createRoute({
  method: 'get',
  path: '/api/v1/publishers/{namespace}/pending',
  summary: 'The step of a namespace that waits for more signatures, and what it does in words',
  request: namespaceParam,
  responses: { 200: json(pendingPushSchema, 'The waiting step.'), default: problemResponse },
});

export function registerAccessRoutes(api: Api, parts: RegistryParts): void {
  const { access, repository, releases } = parts;

  api.openapi(createToken, async (c) => {
    const wanted = c.req.valid('json');
    // Who is bound to a namespace makes tokens of that namespace only.
    const maker = requireAccess(c, 'tokens.write', wanted.namespace ?? null);
    // Who sits in another region makes tokens for that region only, whatever the policy says of it.
    const atRegion = wanted.at ?? maker.atRegion;
    if (maker.atRegion !== null && maker.atRegion !== parts.region && atRegion !== maker.atRegion)
      throw new FleetError(
        'role-forbidden',
        `this token is for ${maker.atRegion} and makes tokens for there only`,
      );
    const { token, view } = await access.create({
      user: wanted.user,
      role: wanted.role,
      namespace: wanted.namespace ?? null,
      ttlMs: wanted.ttlMs ?? null,
      atRegion,
    });
    noteAudited(c, {
      subject: view.id,
      detail: { user: view.user, role: view.role, namespace: view.namespace, at: view.atRegion },
    });
    return c.json({ ...view, token }, 201);
  });

  api.openapi(listTokens, async (c) => {
    requireAccess(c, 'tokens.write');
    return c.json(await access.list(), 200);
  });

  api.openapi(revokeToken, async (c) => {
    requireAccess(c, 'tokens.write');
    return c.json(unwrap(await access.revoke(c.req.valid('param').id)), 200);
  });

  api.openapi(putPublisher, async (c) => {
    const { namespace } = c.req.valid('param');
    const { keys, threshold } = c.req.valid('json');
    // Development: a publisher may take a namespace that is free; changing one is the admin's.
    const taken = (await repository.publisher(namespace)) !== null;
    requireAccess(c, taken ? 'publishers.write' : 'publishers.claim', namespace);
    return c.json(unwrap(await repository.delegate(namespace, keys, threshold)), 200);
  });

  api.openapi(listPublishers, async (c) => {
    requireAccess(c, 'catalogue.read');
    return c.json(await repository.publishers(), 200);
  });

  api.openapi(showPublisher, async (c) => {
    requireAccess(c, 'catalogue.read');
    const { namespace } = c.req.valid('param');
    const publisher = await repository.publisher(namespace);
    if (publisher === null) throw new FleetError('namespace-unknown', `there is no namespace ${namespace}`);
    return c.json(publisher, 200);
  });

  api.openapi(showPending, async (c) => {
    requireAccess(c, 'catalogue.read');
    const { namespace } = c.req.valid('param');
    const pending = await releases.pending(namespace);
    if (pending === null) throw new FleetError('not-found', `nothing of ${namespace} waits for signatures`);
    return c.json(
      {
        releaseId: pending.releaseId,
        metadata: Buffer.from(pending.metadata).toString('base64'),
        manifest: pending.manifest === null ? null : Buffer.from(pending.manifest).toString('base64'),
        version: pending.version,
        expiresAtMs: pending.expiresAtMs,
        stepId: pending.stepId,
        does: pending.does,
        signatures: pending.signatures,
        threshold: pending.threshold,
        pushedBy: pending.pushedBy,
        updatedAtMs: pending.updatedAtMs,
      },
      200,
    );
  });
}
