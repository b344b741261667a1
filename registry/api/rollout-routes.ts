// Why: the routes of rollouts: start from a file, look, abort.
// Trusts: rollout/file.ts for the file, requireAccess for the right to the release's namespace.
// Must never: begin what the token's namespace does not cover.

import { createRoute, z } from '@hono/zod-openapi';
import { unwrap } from '../../shared/kernel/errors.ts';
import { deviceIdSchema } from '../../shared/wire/messages.ts';
import type { RolloutFile } from '../../shared/wire/rollout-file.ts';
import { rolloutPlanAskSchema, rolloutPlanSchema } from '../../shared/wire/rollout-plan.ts';
import {
  type RolloutStatus,
  rolloutAbortSchema,
  rolloutApproveSchema,
  rolloutCommandSchema,
  rolloutExplanationSchema,
  rolloutHistorySchema,
  rolloutRetrySchema,
  rolloutStartedSchema,
  rolloutStartSchema,
  rolloutStatusSchema,
  rolloutSummarySchema,
} from '../../shared/wire/rollouts.ts';
import { parseRolloutFile } from '../rollout/file.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json } from './documents.ts';

const rollout = { params: z.object({ id: z.string().max(128) }) };

const startRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts',
  summary: 'Begin what a rollout file says',
  request: { body: { required: true, content: { 'application/json': { schema: rolloutStartSchema } } } },
  responses: { 201: json(rolloutStartedSchema, 'It runs.'), default: problemResponse },
});
const planRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/plan',
  summary: 'What a rollout file would do; nothing is done',
  request: { body: { required: true, content: { 'application/json': { schema: rolloutPlanAskSchema } } } },
  responses: { 200: json(rolloutPlanSchema, 'By the facts of now.'), default: problemResponse },
});
const listRollouts = createRoute({
  method: 'get',
  path: '/api/v1/rollouts',
  summary: 'Rollouts, newest first',
  responses: { 200: json(z.array(rolloutSummarySchema), 'Rollouts.'), default: problemResponse },
});
const showRollout = createRoute({
  method: 'get',
  path: '/api/v1/rollouts/{id}',
  summary: 'Waves, gates and devices of one rollout',
  request: rollout,
  responses: { 200: json(rolloutStatusSchema, 'Its status.'), default: problemResponse },
});
const abortRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/{id}/abort',
  summary: 'End it; what is assigned stays, or goes back with `revert`',
  request: { ...rollout, body: { content: { 'application/json': { schema: rolloutAbortSchema } } } },
  responses: { 200: json(rolloutStatusSchema, 'Its status.'), default: problemResponse },
});

const commandOf = (verb: 'pause' | 'resume', summary: string) =>
  createRoute({
    method: 'post',
    path: `/api/v1/rollouts/{id}/${verb}`,
    summary,
    request: { ...rollout, body: { content: { 'application/json': { schema: rolloutCommandSchema } } } },
    responses: { 200: json(rolloutStatusSchema, 'Its status.'), default: problemResponse },
  });
const commands = [
  { verb: 'pause', route: commandOf('pause', 'Assign nothing more; what is assigned goes on') },
  { verb: 'resume', route: commandOf('resume', 'Go on where it was paused') },
] as const;
const approveRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/{id}/approve',
  summary: 'Say that a wave may begin',
  request: { ...rollout, body: { content: { 'application/json': { schema: rolloutApproveSchema } } } },
  responses: { 200: json(rolloutStatusSchema, 'Its status.'), default: problemResponse },
});
const explainRollout = createRoute({
  method: 'get',
  path: '/api/v1/rollouts/{id}/explanation',
  summary: 'Why it, its waves and devices are where they are, and what each waits for',
  request: { ...rollout, query: z.object({ device: deviceIdSchema.optional() }) },
  responses: { 200: json(rolloutExplanationSchema, 'By the facts of now.'), default: problemResponse },
});
const retryRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/{id}/retry',
  summary: 'Another try for the devices on which it failed, as a rollout of its own',
  request: { ...rollout, body: { content: { 'application/json': { schema: rolloutRetrySchema } } } },
  responses: { 201: json(rolloutStartedSchema, 'The other rollout runs.'), default: problemResponse },
});
const showHistory = createRoute({
  method: 'get',
  path: '/api/v1/rollouts/{id}/history',
  summary: 'What became of it and its waves, and by whose word',
  request: rollout,
  responses: { 200: json(rolloutHistorySchema, 'Oldest first.'), default: problemResponse },
});

/** Of `NS/NAME@VERSION`, or of the `NS/NAME` that is taken away. */
const namespaceOf = (id: string | undefined): string | null =>
  id?.includes('/') === true ? (id.split('/')[0] ?? null) : null;

/** The right to the namespace of each release: several that switch together may be of several publishers. */
function requireAll(
  c: Parameters<typeof requireAccess>[0],
  right: Parameters<typeof requireAccess>[1],
  releases: readonly (string | undefined)[],
): ReturnType<typeof requireAccess> {
  const [first, ...others] = [...new Set(releases.map(namespaceOf))];
  const principal = requireAccess(c, right, first ?? null);
  for (const namespace of others) requireAccess(c, right, namespace);
  return principal;
}

const releasesIn = ({ spec }: RolloutFile): (string | undefined)[] =>
  spec.releases ?? [spec.release ?? spec.remove];
const releasesOf = ({ release, releases }: Pick<RolloutStatus, 'release' | 'releases'>): string[] =>
  releases ?? [release];

export function registerRolloutRoutes(api: Api, parts: RegistryParts): void {
  const { rollouts } = parts;

  api.openapi(startRollout, async (c) => {
    const file = unwrap(parseRolloutFile(c.req.valid('json').file));
    const principal = requireAll(c, 'rollouts.write', releasesIn(file));
    const started = unwrap(await rollouts.begin(file, principal.user));
    noteAudited(c, { subject: started.id, detail: { releases: releasesIn(file).join(' ') } });
    return c.json(started, 201);
  });

  api.openapi(planRollout, async (c) => {
    const { file: text, bytesPerSecond = null } = c.req.valid('json');
    const file = unwrap(parseRolloutFile(text));
    const { user } = requireAll(c, 'rollouts.write', releasesIn(file));
    return c.json(unwrap(await rollouts.plan(file, user, bytesPerSecond)), 200);
  });

  api.openapi(listRollouts, async (c) => {
    requireAccess(c, 'rollouts.read');
    return c.json(await rollouts.list(), 200);
  });

  api.openapi(showRollout, async (c) => {
    requireAccess(c, 'rollouts.read');
    return c.json(unwrap(await rollouts.status(c.req.valid('param').id)), 200);
  });

  api.openapi(abortRollout, async (c) => {
    const { id } = c.req.valid('param');
    const about = unwrap(await rollouts.status(id));
    const principal = requireAll(c, 'rollouts.write', releasesOf(about));
    unwrap(await rollouts.abort(id, principal.user, c.req.valid('json')?.revert ?? null));
    return c.json(unwrap(await rollouts.status(id)), 200);
  });

  for (const { verb, route } of commands)
    api.openapi(route, async (c) => {
      const { id } = c.req.valid('param');
      const about = unwrap(await rollouts.status(id));
      const { user } = requireAll(c, 'rollouts.write', releasesOf(about));
      unwrap(await rollouts[verb](id, user, c.req.valid('json')?.comment ?? null));
      return c.json(unwrap(await rollouts.status(id)), 200);
    });

  api.openapi(approveRollout, async (c) => {
    const { id } = c.req.valid('param');
    const about = unwrap(await rollouts.status(id));
    const { user } = requireAll(c, 'rollouts.approve', releasesOf(about));
    const { wave = null, comment = null } = c.req.valid('json') ?? {};
    unwrap(await rollouts.approve(id, user, { wave, comment }));
    return c.json(unwrap(await rollouts.status(id)), 200);
  });

  api.openapi(retryRollout, async (c) => {
    const { id } = c.req.valid('param');
    const about = unwrap(await rollouts.status(id));
    const { user } = requireAll(c, 'rollouts.write', releasesOf(about));
    const started = unwrap(await rollouts.retry(id, user, c.req.valid('json')?.devices ?? null));
    noteAudited(c, { detail: { started: started.id } });
    return c.json(started, 201);
  });

  api.openapi(explainRollout, async (c) => {
    requireAccess(c, 'rollouts.read');
    const { device } = c.req.valid('query');
    return c.json(unwrap(await rollouts.explain(c.req.valid('param').id, device ?? null)), 200);
  });

  api.openapi(showHistory, async (c) => {
    requireAccess(c, 'rollouts.read');
    return c.json(unwrap(await rollouts.history(c.req.valid('param').id)), 200);
  });
}
