// Why: the routes of samples: which requests devices keep, the queue of those that came, and what was accepted.
// Trusts: requireAccess for who may; telemetry/ for what is said. Must never: show a sample to who may not read records.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { modelSchema } from '../../shared/wire/masking.ts';
import { nameSchema, releaseIdSchema } from '../../shared/wire/messages.ts';
import {
  sampleReasons,
  sampleRulesPutSchema,
  sampleRulesViewSchema,
} from '../../shared/wire/sample-rules.ts';
import {
  sampleEntrySchema,
  sampleIdSchema,
  sampleListSchema,
  samplePageSchema,
  sampleReviewSchema,
  sampleShownSchema,
  sampleStates,
} from '../../shared/wire/samples.ts';
import { createTelemetryRecords } from '../telemetry/records.ts';
import { createSampleDesk } from '../telemetry/samples.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';
import { createFlowGuard, sentWhole } from './flow-guard.ts';

const modelParams = z.object({ namespace: nameSchema, name: nameSchema });
const idParams = z.object({ id: sampleIdSchema });
const page = (max: number, usual: number) => ({
  cursor: sampleIdSchema.optional(),
  limit: z.coerce.number().int().positive().max(max).default(usual),
});
const rulesPath = '/api/v1/models/{namespace}/{name}/sample-rules';

const showRules = createRoute({
  method: 'get',
  path: rulesPath,
  summary: 'Of which requests of a model devices keep samples',
  request: { params: modelParams },
  responses: { 200: json(sampleRulesViewSchema, 'The rules in force.'), default: problemResponse },
});
const putRules = createRoute({
  method: 'put',
  path: rulesPath,
  summary: 'Set the rules; devices hold them with their next assignment, which is signed at once',
  request: { params: modelParams, ...body(sampleRulesPutSchema) },
  responses: { 200: json(sampleRulesViewSchema, 'The rules in force.'), default: problemResponse },
});

const list = createRoute({
  method: 'get',
  path: '/api/v1/samples',
  summary: 'Samples that devices sent, newest first, without what is in them',
  request: {
    query: z.object({
      model: modelSchema.optional(),
      release: releaseIdSchema.optional(),
      reason: z.enum(sampleReasons).optional(),
      state: z.enum(sampleStates).optional(),
      ...page(200, 50),
    }),
  },
  responses: { 200: json(sampleListSchema, 'A page.'), default: problemResponse },
});
const show = createRoute({
  method: 'get',
  path: '/api/v1/samples/{id}',
  summary: 'One sample with its inputs and outputs, as its device masked them',
  request: { params: idParams },
  responses: { 200: json(sampleShownSchema, 'The sample.'), default: problemResponse },
});
const review = createRoute({
  method: 'post',
  path: '/api/v1/samples/{id}/review',
  summary:
    'Accept a sample with what was right, or reject it; a later review takes the place of an earlier one',
  request: { params: idParams, ...body(sampleReviewSchema) },
  responses: { 200: json(sampleEntrySchema, 'As it is now.'), default: problemResponse },
});
const dataset = createRoute({
  method: 'get',
  path: '/api/v1/models/{namespace}/{name}/samples/dataset',
  summary: 'Accepted samples of a model as rows for training, in the order in which they were stored',
  request: {
    params: modelParams,
    // A page of large samples is some megabytes.
    query: z.object({ release: releaseIdSchema.optional(), ...page(100, 50) }),
  },
  responses: { 200: json(samplePageSchema, 'A page.'), default: problemResponse },
});

function registerRules(api: Api, parts: RegistryParts): void {
  const { sampling, fleet, releases, log } = parts;

  api.openapi(showRules, async (c) => {
    requireAccess(c, 'fleet.read');
    const { namespace, name } = c.req.valid('param');
    return c.json(await sampling.view(`${namespace}/${name}`), 200);
  });

  api.openapi(putRules, async (c) => {
    const { namespace, name } = c.req.valid('param');
    const { user } = requireAccess(c, 'samples.write', namespace);
    const model = `${namespace}/${name}`;
    const { rules } = c.req.valid('json');
    // A name that was typed wrong would ask for samples of nothing, for ever.
    if (rules !== null) unwrap(await releases.show(model));
    const view = await sampling.set(model, rules, user);
    log.emit('info', 'samples.rules.set', { user, model, cleared: rules === null });
    await fleet.director.reissueChanged();
    return c.json(view, 200);
  });
}

export function registerSampleRoutes(api: Api, parts: RegistryParts): void {
  registerRules(api, parts);
  const guard = createFlowGuard(parts);
  const desk = createSampleDesk({ ...parts, records: createTelemetryRecords(parts) });

  async function namespaceOf(id: string): Promise<string> {
    const model = await desk.modelOf(id);
    if (model === null) throw new FleetError('not-found', `there is no sample ${id}, or it was erased`);
    return model.slice(0, model.indexOf('/'));
  }

  api.openapi(list, async (c) => {
    const { cursor, limit, model, release, reason, state } = c.req.valid('query');
    const reader = requireAccess(
      c,
      'telemetry.read',
      model === undefined ? null : model.slice(0, model.indexOf('/')),
    );
    const passage = await guard.passage(reader, ['sample']);
    const filter = {
      ...(model === undefined ? {} : { model }),
      ...(release === undefined ? {} : { release }),
      ...(reason === undefined ? {} : { reason }),
      ...(state === undefined ? {} : { state }),
    };
    const page = await desk.list(filter, { cursor: cursor ?? null, limit });
    await sentWhole(passage, 'sample', page.samples.length, page);
    noteAudited(c, { detail: { records: page.samples.length } });
    return c.json(page, 200);
  });

  api.openapi(show, async (c) => {
    const { id } = c.req.valid('param');
    const reader = requireAccess(c, 'telemetry.read', await namespaceOf(id));
    const passage = await guard.passage(reader, ['sample']);
    const shown = unwrap(await desk.show(id));
    await sentWhole(passage, 'sample', 1, shown);
    return c.json(shown, 200);
  });

  api.openapi(review, async (c) => {
    const { id } = c.req.valid('param');
    const reader = requireAccess(c, 'samples.review', await namespaceOf(id));
    const { user } = reader;
    const passage = await guard.passage(reader, ['sample']);
    const wanted = c.req.valid('json');
    const entry = unwrap(await desk.review(id, wanted, user));
    await sentWhole(passage, 'sample', 1, entry);
    parts.log.emit('info', 'samples.reviewed', { user, sample: id, decision: wanted.decision });
    return c.json(entry, 200);
  });

  api.openapi(dataset, async (c) => {
    const { namespace, name } = c.req.valid('param');
    const reader = requireAccess(c, 'telemetry.read', namespace);
    const passage = await guard.passage(reader, ['sample']);
    const { release, cursor, limit } = c.req.valid('query');
    const filter = { model: `${namespace}/${name}`, ...(release === undefined ? {} : { release }) };
    const page = await desk.dataset(filter, { cursor: cursor ?? null, limit });
    await sentWhole(passage, 'sample', page.rows.length, page);
    noteAudited(c, { detail: { records: page.rows.length } });
    return c.json(page, 200);
  });
}
