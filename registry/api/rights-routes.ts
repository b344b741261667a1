// Why: the route by which a person gets everything that this region holds about their device.
// Trusts: requireAccess for who may; rights/ for what is read. Must never: leave out of the audit record that it was read.

import { z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { AuditPage } from '../../shared/wire/audit.ts';
import { describeIssues, deviceIdSchema } from '../../shared/wire/messages.ts';
import { rightsLineSchema } from '../../shared/wire/rights.ts';
import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import type { AuditRecord } from '../audit/record.ts';
import { createRightsExport } from '../rights/export.ts';
import { createTelemetryRecords } from '../telemetry/records.ts';
import { type Api, noteAudited, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { streamed } from './documents.ts';
import { createFlowGuard, passing } from './flow-guard.ts';

const entriesAtOnce = 200;
const querySchema = z.object({ device: deviceIdSchema });

/** What was done about it and what it did itself, without the addresses of the people who did it. */
async function* entriesAbout(
  audit: Pick<AuditRecord, 'list'>,
  deviceId: string,
): AsyncGenerator<Record<string, unknown>> {
  for (const about of [{ subject: deviceId }, { actor: `device:${deviceId}` }])
    for (let after: number | null = 0; after !== null; ) {
      const page: AuditPage = await audit.list({ ...about, after, limit: entriesAtOnce });
      // Named once, by the first of the two.
      for (const { address: _, ...entry } of page.entries)
        if (about.actor === undefined || entry.subject !== deviceId) yield entry;
      after = page.after;
    }
}

export function registerRightsRoutes(api: Api, parts: RegistryParts): void {
  const { audit, log } = parts;
  const guard = createFlowGuard(parts);

  api.openAPIRegistry.registerPath({
    method: 'get',
    path: '/api/v1/rights/export',
    summary:
      'Everything that this region holds about a device, one JSON document a line; the last one is `end`',
    request: { query: querySchema },
    responses: {
      200: {
        description: 'NDJSON, by section.',
        content: { 'application/x-ndjson': { schema: rightsLineSchema } },
      },
      default: problemResponse,
    },
  });
  // A stream has no type that a typed route could check.
  api.get('/api/v1/rights/export', async (c) => {
    const reader = requireAccess(c, 'rights.export');
    const { user, tokenId } = reader;
    const query = querySchema.safeParse(c.req.query());
    if (!query.success) throw new FleetError('input-invalid', describeIssues(query.error));
    noteAudited(c, { subject: query.data.device });
    const rights = createRightsExport({
      ...parts,
      records: createTelemetryRecords(parts),
      auditOf: (deviceId) => entriesAbout(audit, deviceId),
      // That it began is in the entry of the request, which is written before a byte leaves.
      async ended(deviceId, counts, whole) {
        const entries = Object.values(counts).reduce((sum, count) => sum + count, 0);
        log.emit('info', 'rights.exported', { deviceId, user, entries, records: counts.records ?? 0, whole });
        await audit.append({
          ...{
            actor: `user:${user}`,
            via: 'api',
            action: 'rights.exported',
            subject: deviceId,
            reason: null,
          },
          ...{ outcome: whole ? 'done' : 'failed', code: null, rule: null, address: null },
          detail: { tokenId, entries, ...counts },
        });
      },
    });
    // Records of every class are in it.
    const passage = await guard.passage(reader, telemetryClasses);
    const lines = unwrap(await rights.read(query.data.device, passage.sent));
    return c.body(streamed(passing(lines, passage)), 200, {
      'content-type': 'application/x-ndjson; charset=utf-8',
    });
  });
}
