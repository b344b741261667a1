// Why: the routes of the authorities' keys: look, plan a change, put a signed one in force.
// Trusts: signing/key-desk.ts for every judgement. Must never: let anybody but an admin change what devices trust.

import { createRoute } from '@hono/zod-openapi';
import { unwrap } from '../../shared/kernel/errors.ts';
import {
  keyInstallSchema,
  keyPlanCreateSchema,
  keysInstalledSchema,
  keysStatusSchema,
} from '../../shared/wire/http.ts';
import { keyPlanSchema } from '../../shared/wire/key-plan.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const showKeys = createRoute({
  method: 'get',
  path: '/api/v1/keys',
  summary: 'Every role: its keys, where they are, its threshold, and when its word ends',
  responses: { 200: json(keysStatusSchema, 'The roles.'), default: problemResponse },
});
const planKeys = createRoute({
  method: 'post',
  path: '/api/v1/keys/plan',
  summary:
    'What is in force, to be carried to machines without a network; makes fresh online keys on request',
  request: body(keyPlanCreateSchema),
  responses: { 200: json(keyPlanSchema, 'The plan.'), default: problemResponse },
});
const installKeys = createRoute({
  method: 'post',
  path: '/api/v1/keys/install',
  summary: 'Put a signed bundle in force, all of it or nothing; idempotent',
  request: body(keyInstallSchema),
  responses: { 200: json(keysInstalledSchema, 'What is in force now.'), default: problemResponse },
});

export function registerKeyRoutes(api: Api, parts: RegistryParts): void {
  const { repository, fleet, keyring } = parts;

  api.openapi(showKeys, async (c) => {
    requireAccess(c, 'keys.read');
    return c.json(await repository.keys.status(), 200);
  });

  api.openapi(planKeys, async (c) => {
    requireAccess(c, 'keys.write');
    return c.json(await repository.keys.plan(c.req.valid('json')), 200);
  });

  api.openapi(installKeys, async (c) => {
    requireAccess(c, 'keys.write');
    const installed = unwrap(await repository.keys.install(c.req.valid('json').bundle));
    // Also where it was in force already: whoever asks again may have been cut off in between.
    const reissued = await fleet.director.reissue();
    const { status, documents, signedHere, deleted } = installed;
    return c.json({ status, documents, signedHere, deleted, reissued, keys: keyring.kind }, 200);
  });
}
