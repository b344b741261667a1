// Why: the routes of rollouts: start from a file, look, abort.
// Trusts: rollout/file.ts for the file, requireAccess for the right to the release's namespace.
// Must never: begin what the token's namespace does not cover.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { deviceIdSchema } from '../../shared/wire/messages.ts';
import {
  type RegionRolloutStatus,
  regionRolloutExplanationSchema,
  regionRolloutStatusSchema,
  rolloutResumeSchema,
} from '../../shared/wire/region-rollouts.ts';
import type { RolloutFile } from '../../shared/wire/rollout-file.ts';
import { isRegionRolloutId } from '../../shared/wire/rollout-orders.ts';
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
import type { RegionRollouts } from '../regions/region-rollouts.ts';
import { parseRolloutFile } from '../rollout/file.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json } from './documents.ts';

/** Ids of rollouts across regions are of their own kind. */
const statusSchema = z.union([regionRolloutStatusSchema, rolloutStatusSchema]);
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
  summary: 'Waves, gates and devices of one rollout; of one across regions, each region',
  request: rollout,
  responses: { 200: json(statusSchema, 'Its status.'), default: problemResponse },
});
const abortRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/{id}/abort',
  summary: 'End it; what is assigned stays, or goes back with `revert`',
  request: { ...rollout, body: { content: { 'application/json': { schema: rolloutAbortSchema } } } },
  responses: { 200: json(statusSchema, 'Its status.'), default: problemResponse },
});

const pauseRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/{id}/pause',
  summary: 'Assign nothing more; what is assigned goes on',
  request: { ...rollout, body: { content: { 'application/json': { schema: rolloutCommandSchema } } } },
  responses: { 200: json(statusSchema, 'Its status.'), default: problemResponse },
});
const resumeRollout = createRoute({
  method: 'post',
  path: '/api/v1/rollouts/{id}/resume',
  summary: 'Go on where it was paused; across regions, with those that failed or `without` them',
  request: { ...rollout, body: { content: { 'application/json': { schema: rolloutResumeSchema } } } },
  responses: { 200: json(statusSchema, 'Its status.'), default: problemResponse },
});
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
  responses: {
    200: json(z.union([regionRolloutExplanationSchema, rolloutExplanationSchema]), 'By the facts of now.'),
    default: problemResponse,
  },
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

  const across = (): RegionRollouts => {
    if (parts.regionRollouts === undefined || parts.regionRollouts === null)
      throw new FleetError('not-implemented', 'this registry has no line to other regions');
    return parts.regionRollouts;
  };
  const statusOf = async (id: string): Promise<RolloutStatus | RegionRolloutStatus> =>
    isRegionRolloutId(id) ? unwrap(await across().status(id)) : unwrap(await rollouts.status(id));
  /** What each region decides for itself is said there. */
  const here = (id: string, what: string): string => {
    if (isRegionRolloutId(id))
      throw new FleetError('rollout-decided-there', `each region ${what} for itself`);
    return id;
  };

  api.openapi(startRollout, async (c) => {
    const { file: text } = c.req.valid('json');
    const file = unwrap(parseRolloutFile(text));
    const { user } = requireAll(c, 'rollouts.write', releasesIn(file));
    const isAcross = file.spec.regions !== undefined;
    const started = unwrap(await (isAcross ? across().begin(text, file, user) : rollouts.begin(file, user)));
    noteAudited(c, { subject: started.id, detail: { releases: releasesIn(file).join(' ') } });
    return c.json(started, 201);
  });

  api.openapi(planRollout, async (c) => {
    const { file: text, bytesPerSecond = null } = c.req.valid('json');
    const file = unwrap(parseRolloutFile(text));
    const { user } = requireAll(c, 'rollouts.write', releasesIn(file));
    const isAcross = file.spec.regions !== undefined;
    const planned = await (isAcross
      ? across().plan(text, file, user, bytesPerSecond)
      : rollouts.plan(file, user, bytesPerSecond));
    return c.json(unwrap(planned), 200);
  });

  api.openapi(listRollouts, async (c) => {
    requireAccess(c, 'rollouts.read');
    const own = await rollouts.list();
    const wide = (await parts.regionRollouts?.list()) ?? [];
    // Both come newest first; of the same moment the one across regions stands above its part.
    const all = [...wide, ...own].sort((a, b) => b.createdAtMs - a.createdAtMs);
    return c.json(wide.length === 0 ? own : all, 200);
  });

  api.openapi(showRollout, async (c) => {
    requireAccess(c, 'rollouts.read');
    return c.json(await statusOf(c.req.valid('param').id), 200);
  });

  api.openapi(abortRollout, async (c) => {
    const { id } = c.req.valid('param');
    const { user } = requireAll(c, 'rollouts.write', releasesOf(await statusOf(id)));
    const revert = c.req.valid('json')?.revert ?? null;
    unwrap(await (isRegionRolloutId(id) ? across() : rollouts).abort(id, user, revert));
    return c.json(await statusOf(id), 200);
  });

  api.openapi(pauseRollout, async (c) => {
    const { id } = c.req.valid('param');
    const { user } = requireAll(c, 'rollouts.write', releasesOf(await statusOf(id)));
    const comment = c.req.valid('json')?.comment ?? null;
    unwrap(await (isRegionRolloutId(id) ? across() : rollouts).pause(id, user, comment));
    return c.json(await statusOf(id), 200);
  });

  api.openapi(resumeRollout, async (c) => {
    const { id } = c.req.valid('param');
    const { user } = requireAll(c, 'rollouts.write', releasesOf(await statusOf(id)));
    const { comment = null, without = [] } = c.req.valid('json') ?? {};
    if (!isRegionRolloutId(id) && without.length > 0)
      throw new FleetError('input-invalid', `${id} is a rollout of this region alone`);
    const resumed = await (isRegionRolloutId(id)
      ? across().resume(id, user, { without, comment })
      : rollouts.resume(id, user, comment));
    unwrap(resumed);
    return c.json(await statusOf(id), 200);
  });

  api.openapi(approveRollout, async (c) => {
    const id = here(c.req.valid('param').id, 'approves its waves');
    const about = unwrap(await rollouts.status(id));
    const { user } = requireAll(c, 'rollouts.approve', releasesOf(about));
    const { wave = null, comment = null } = c.req.valid('json') ?? {};
    unwrap(await rollouts.approve(id, user, { wave, comment }));
    return c.json(unwrap(await rollouts.status(id)), 200);
  });

  api.openapi(retryRollout, async (c) => {
    const id = here(c.req.valid('param').id, 'tries its devices again');
    const about = unwrap(await rollouts.status(id));
    const { user } = requireAll(c, 'rollouts.write', releasesOf(about));
    const started = unwrap(await rollouts.retry(id, user, c.req.valid('json')?.devices ?? null));
    noteAudited(c, { detail: { started: started.id } });
    return c.json(started, 201);
  });

  api.openapi(explainRollout, async (c) => {
    requireAccess(c, 'rollouts.read');
    const { id } = c.req.valid('param');
    const { device } = c.req.valid('query');
    if (device !== undefined) here(id, 'knows its devices');
    const said = isRegionRolloutId(id)
      ? unwrap(await across().explain(id))
      : unwrap(await rollouts.explain(id, device ?? null));
    return c.json(said, 200);
  });

  api.openapi(showHistory, async (c) => {
    requireAccess(c, 'rollouts.read');
    const { id } = c.req.valid('param');
    const history = await (isRegionRolloutId(id) ? across() : rollouts).history(id);
    return c.json(unwrap(history), 200);
  });
}
