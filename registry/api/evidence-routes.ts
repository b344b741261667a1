// Why: the routes of evidence: drift of a model against its reference profile, its quality once labels
// came, and what its answers cost.
// Trusts: requireAccess for who may; telemetry/ for what is said. Must never: give a raw record away.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { driftSchema } from '../../shared/wire/drift.ts';
import { energySchema } from '../../shared/wire/energy.ts';
import { deviceIdSchema, nameSchema, releaseIdSchema } from '../../shared/wire/messages.ts';
import { labelsImportedSchema, labelsImportSchema, qualitySchema } from '../../shared/wire/quality.ts';
import { createDrift } from '../telemetry/drift.ts';
import { createQualityDesk } from '../telemetry/quality.ts';
import { createTelemetryRecords } from '../telemetry/records.ts';
import { hourMs } from '../telemetry/rollups.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';
import { createFlowGuard, sentWhole } from './flow-guard.ts';

const dayMs = 24 * 3_600_000;
const timeMs = z.coerce.number().int().nonnegative();
const modelParams = z.object({ namespace: nameSchema, name: nameSchema });
/** Unix milliseconds by the devices’ clocks; `until` is now where absent. */
const periodQuery = z.object({
  release: releaseIdSchema.optional(),
  since: timeMs.optional(),
  until: timeMs.optional(),
});

const showDrift = createRoute({
  method: 'get',
  path: '/api/v1/models/{namespace}/{name}/drift',
  summary: 'What devices counted of a release’s inputs and outputs beside its reference profile',
  request: {
    params: modelParams,
    // Absent: the newest release that has a profile, from a day ago. Whole hours.
    query: periodQuery.extend({
      device: deviceIdSchema.optional(),
      /** Name of a label: a group for each of its values. */
      by: z.string().min(1).max(63).optional(),
    }),
  },
  responses: { 200: json(driftSchema, 'By group and feature.'), default: problemResponse },
});

const importLabels = createRoute({
  method: 'post',
  path: '/api/v1/labels',
  summary: 'What was right, by request id; the same request again replaces its label',
  request: body(labelsImportSchema),
  responses: {
    200: json(labelsImportedSchema, 'How many, and of which no record came yet.'),
    default: problemResponse,
  },
});

const showQuality = createRoute({
  method: 'get',
  path: '/api/v1/models/{namespace}/{name}/quality',
  summary: 'Accuracy, precision, recall and F1 of the releases of a model, where labels came',
  request: {
    params: modelParams,
    // Absent: every release that answered, from a week ago.
    query: periodQuery.extend({
      /** Parts of this length, milliseconds; one where absent. */
      window: timeMs.positive().optional(),
    }),
  },
  responses: { 200: json(qualitySchema, 'By release and window.'), default: problemResponse },
});

const showEnergy = createRoute({
  method: 'get',
  path: '/api/v1/models/{namespace}/{name}/energy',
  summary: 'Joules for 1,000 answers of the releases of a model, measured, modelled or unknown',
  request: {
    params: modelParams,
    // Absent: every release that answered, from a week ago. Whole hours.
    query: periodQuery,
  },
  responses: { 200: json(energySchema, 'By release and by how it was found.'), default: problemResponse },
});

const noEnergy =
  'no device told of an answer in this time: look further back with since, or wait for the next window';
const unknownEnergy =
  'some devices cannot read a counter of their processor: name a model under energy in the manifest';

function registerEnergyRoute(api: Api, parts: RegistryParts): void {
  const { rollups } = parts.fleet.evidence;
  const guard = createFlowGuard(parts);

  api.openapi(showEnergy, async (c) => {
    const { namespace, name } = c.req.valid('param');
    const reader = requireAccess(c, 'telemetry.read', namespace);
    const { since, until, release } = c.req.valid('query');
    const model = `${namespace}/${name}`;
    const shown = unwrap(await parts.releases.show(model));
    const named = shown.versions.some(({ version }) => `${model}@${version}` === release);
    if (release !== undefined && !named)
      throw new FleetError('not-found', `${model} has no release ${release}`);
    const untilMs = until ?? parts.clock.wall();
    const fromHour = Math.floor((since ?? Math.max(0, untilMs - 7 * dayMs)) / hourMs);
    const releases = await rollups.energy.releases({
      ...{ model, fromHour, untilHour: Math.floor(Math.max(0, untilMs - 1) / hourMs) },
      ...(release === undefined ? {} : { release }),
    });
    const unknown = releases.some(({ methods }) => methods.some(({ source }) => source === 'unknown'));
    const hint = releases.length === 0 ? noEnergy : unknown ? unknownEnergy : null;
    const view = { model, fromMs: fromHour * hourMs, untilMs, releases, hint };
    const cells = releases.flatMap(({ methods }) => methods.map(({ devices }) => devices));
    await guard.cells(reader, cells, view);
    return c.json(view, 200);
  });
}

function registerQualityRoutes(api: Api, parts: RegistryParts): void {
  const guard = createFlowGuard(parts);
  const desk = createQualityDesk({ ...parts, records: createTelemetryRecords(parts) });

  api.openapi(importLabels, async (c) => {
    requireAccess(c, 'labels.write');
    return c.json(await desk.import(c.req.valid('json').labels), 200);
  });

  api.openapi(showQuality, async (c) => {
    const { namespace, name } = c.req.valid('param');
    const reader = requireAccess(c, 'telemetry.read', namespace);
    // Counted from single records, of nobody knows how many devices.
    const passage = await guard.passage(reader, ['app', 'sample']);
    const { since, until, release, window } = c.req.valid('query');
    const untilMs = until ?? parts.clock.wall();
    const report = await desk.report({
      model: `${namespace}/${name}`,
      fromMs: since ?? Math.max(0, untilMs - 7 * dayMs),
      untilMs,
      ...(release === undefined ? {} : { release }),
      ...(window === undefined ? {} : { windowMs: window }),
    });
    const view = unwrap(report);
    await sentWhole(passage, 'app', 0, view);
    return c.json(view, 200);
  });
}

export function registerEvidenceRoutes(api: Api, parts: RegistryParts): void {
  registerQualityRoutes(api, parts);
  registerEnergyRoute(api, parts);
  const guard = createFlowGuard(parts);
  const drift = createDrift(parts, parts.fleet.evidence);

  api.openapi(showDrift, async (c) => {
    const { namespace, name } = c.req.valid('param');
    // Counts about one model are for whoever may read records and answers for its namespace.
    const reader = requireAccess(c, 'telemetry.read', namespace);
    const { since, until, release, device, by } = c.req.valid('query');
    if (device !== undefined && by !== undefined)
      throw new FleetError('input-invalid', 'one device has no groups: give device or by');
    // What one device counted is what it told, whoever adds it up.
    const passage = device === undefined ? null : await guard.passage(reader, ['stats']);
    const untilMs = until ?? parts.clock.wall();
    const report = await drift.report({
      model: `${namespace}/${name}`,
      fromMs: since ?? Math.max(0, untilMs - dayMs),
      untilMs,
      ...(release === undefined ? {} : { release }),
      ...(device === undefined ? {} : { device }),
      ...(by === undefined ? {} : { by }),
    });
    const view = unwrap(report);
    if (passage !== null) await sentWhole(passage, 'stats', 0, view);
    else {
      const unknown = view.groups.length === 0 && view.requests.requests > 0 ? [0] : [];
      await guard.cells(reader, [...view.groups.map(({ devices }) => devices), ...unknown], view);
    }
    return c.json(view, 200);
  });
}
