// Why: the routes of telemetry: the records that this region stored, and how many there are.
// Trusts: requireAccess for who may; telemetry/ for what is read. Must never: build a whole answer in memory.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  type Erasure,
  erasureRegionsSchema,
  erasureRequestSchema,
  erasureSchema,
  labelErasureRequestSchema,
} from '../../shared/wire/erasure.ts';
import { telemetryCountsSchema, telemetryLostSchema } from '../../shared/wire/http.ts';
import { describeIssues, deviceIdSchema, nameSchema, releaseIdSchema } from '../../shared/wire/messages.ts';
import { storedRecordSchema, telemetryClasses } from '../../shared/wire/telemetry.ts';
import { createTelemetryRecords, type RecordFilter } from '../telemetry/records.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json, streamed } from './documents.ts';
import { createFlowGuard, passing } from './flow-guard.ts';

const wholeNumber = z.coerce.number().int().nonnegative();

const querySchema = z.object({
  device: deviceIdSchema.optional(),
  class: z.enum(telemetryClasses).optional(),
  /** Unix milliseconds by the device's clock: from `since` on, before `until`. */
  since: wholeNumber.optional(),
  until: wholeNumber.optional(),
  release: releaseIdSchema.optional(),
  /** Absent: all. */
  limit: wholeNumber.positive().optional(),
  /** `DEVICE:EPOCH:SEQUENCE:INDEX` of the last record seen; the answer goes on after it. */
  cursor: z.string().max(128).optional(),
  /** Region to which the answer is taken; absent: it stays where the reader sits. */
  to: nameSchema.optional(),
});
const countRecords = createRoute({
  method: 'get',
  path: '/api/v1/telemetry/counts',
  summary: 'How much of each device is stored here, over all its enrolments',
  request: { query: z.object({ device: deviceIdSchema.optional() }) },
  responses: {
    200: {
      description: 'Devices that sent anything, by id.',
      content: { 'application/json': { schema: z.array(telemetryCountsSchema) } },
    },
    default: problemResponse,
  },
});

const eraseDevice = createRoute({
  method: 'post',
  path: '/api/v1/devices/{id}/telemetry/erasure',
  summary: 'Delete what this region holds of a device, with the keys that open it; not to be undone',
  request: { params: z.object({ id: deviceIdSchema }), ...body(erasureRequestSchema) },
  responses: { 200: json(erasureSchema, 'What was deleted, signed.'), default: problemResponse },
});
const listErasures = createRoute({
  method: 'get',
  path: '/api/v1/telemetry/erasures',
  summary: 'What was deleted, with its certificates',
  responses: { 200: json(z.array(erasureSchema), 'Newest first.'), default: problemResponse },
});

const eraseLabelled = createRoute({
  method: 'post',
  path: '/api/v1/telemetry/erasures',
  summary: 'Delete what this region holds of every device with these labels; not to be undone',
  request: body(labelErasureRequestSchema),
  responses: { 200: json(z.array(erasureSchema), 'One for each device, signed.'), default: problemResponse },
});
const listAcross = createRoute({
  method: 'get',
  path: '/api/v1/telemetry/erasures/regions',
  summary: 'Erasures that were asked of every region, and what each region has said since',
  responses: { 200: json(z.array(erasureRegionsSchema), 'Newest first.'), default: problemResponse },
});

const listLost = createRoute({
  method: 'get',
  path: '/api/v1/telemetry/lost',
  summary: 'Batches that were acknowledged here and lost when the registry was restored from a backup',
  request: { query: z.object({ device: deviceIdSchema.optional() }) },
  responses: { 200: json(z.array(telemetryLostSchema), 'Ranges, oldest first.'), default: problemResponse },
});

function wishOf(
  asked: z.infer<typeof erasureRequestSchema>,
  user: string,
): Parameters<RegistryParts['fleet']['erasures']['erase']>[1] {
  const { untilMs, reason, allRegions } = asked;
  return {
    ...{ untilMs: untilMs ?? null, requestedBy: user, reason: reason ?? null },
    allRegions: allRegions ?? false,
  };
}

export function registerTelemetryRoutes(api: Api, parts: RegistryParts): void {
  const records = createTelemetryRecords(parts);
  const guard = createFlowGuard(parts);

  api.openAPIRegistry.registerPath({
    method: 'get',
    path: '/api/v1/telemetry',
    summary: 'Stored records in the order of storing, one JSON document a line',
    request: { query: querySchema },
    responses: {
      200: {
        description: 'NDJSON; each line as `telemetry query --json` prints it.',
        content: { 'application/x-ndjson': { schema: storedRecordSchema } },
      },
      default: problemResponse,
    },
  });
  // A stream has no type that a typed route could check.
  api.get('/api/v1/telemetry', async (c) => {
    const reader = requireAccess(c, 'telemetry.read');
    const query = querySchema.safeParse(c.req.query());
    if (!query.success) throw new FleetError('input-invalid', describeIssues(query.error));
    const { device, class: kind, since, until, release, limit, cursor, to } = query.data;
    const filter: RecordFilter = {
      ...(device === undefined ? {} : { device }),
      ...(kind === undefined ? {} : { class: kind }),
      ...(since === undefined ? {} : { sinceMs: since }),
      ...(until === undefined ? {} : { untilMs: until }),
      ...(release === undefined ? {} : { release }),
    };
    const passage = await guard.passage(reader, kind === undefined ? telemetryClasses : [kind], to);
    const options = { cursor: cursor ?? null, limit: limit ?? null, meter: passage.sent };
    const lines = unwrap(await records.read(filter, options));
    return c.body(streamed(passing(lines, passage)), 200, {
      'content-type': 'application/x-ndjson; charset=utf-8',
    });
  });

  api.openapi(eraseDevice, async (c) => {
    const { user } = requireAccess(c, 'telemetry.erase');
    const wanted = wishOf(c.req.valid('json'), user);
    return c.json(unwrap(await parts.fleet.erasures.erase(c.req.valid('param').id, wanted)), 200);
  });

  api.openapi(eraseLabelled, async (c) => {
    const { user } = requireAccess(c, 'telemetry.erase');
    const { labels, ...rest } = c.req.valid('json');
    const wanted = { ...wishOf(rest, user), noteEach: true };
    const devices = (await parts.fleet.devices.list()).filter((one) =>
      Object.entries(labels).every(([key, value]) => one.labels[key] === value),
    );
    const done: Erasure[] = [];
    noteAudited(c, { detail: { devices: devices.length } });
    for (const { id } of devices) done.push(unwrap(await parts.fleet.erasures.erase(id, wanted)));
    return c.json(done, 200);
  });

  api.openapi(listAcross, async (c) => {
    requireAccess(c, 'telemetry.read');
    return c.json(await parts.fleet.erasures.acrossRegions(), 200);
  });

  api.openapi(listErasures, async (c) => {
    requireAccess(c, 'telemetry.read');
    return c.json(await parts.fleet.erasures.list(), 200);
  });

  api.openapi(listLost, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(await records.lost(c.req.valid('query').device ?? null), 200);
  });

  api.openapi(countRecords, async (c) => {
    requireAccess(c, 'fleet.read');
    return c.json(await records.counts(c.req.valid('query').device ?? null), 200);
  });
}
