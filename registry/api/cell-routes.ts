// Why: the routes of cells: what this region and others told of a release's days, one by one and added up.
// Trusts: requireAccess for who may; registry/cells for what is told. Must never: answer a question about any other set of
// devices or hours: two such answers have a difference.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError } from '../../shared/kernel/errors.ts';
import { parseModelId, parseReleaseId } from '../../shared/kernel/releases.ts';
import { cellListSchema, mergedListSchema } from '../../shared/wire/cells.ts';
import { nameSchema, releaseIdSchema } from '../../shared/wire/messages.ts';
import { cellDayMs } from '../cells/publishing.ts';
import { type CellQuery, createCellRecords } from '../cells/records.ts';
import { authorize } from '../policy/access.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { json } from './documents.ts';
import { createFlowGuard, sitsIn } from './flow-guard.ts';

const timeMs = z.coerce.number().int().nonnegative();
const daysDefault = 31;
const daysMax = 93;

// Unix milliseconds; the whole UTC days in which they lie. Absent: the last 31 days.
const query = z.object({
  release: releaseIdSchema.optional(),
  /** `NS/NAME` */
  model: z
    .string()
    .refine((text) => parseModelId(text) !== null, 'expected NS/NAME')
    .optional(),
  from: timeMs.optional(),
  to: timeMs.optional(),
  region: nameSchema.optional(),
});

const listCells = createRoute({
  method: 'get',
  path: '/api/v1/cells',
  summary: 'Published cells of this region, and of others as far as they were pulled',
  request: { query },
  responses: {
    200: json(cellListSchema, 'By day, region and subject; which are withheld, for whoever may know.'),
    default: problemResponse,
  },
});
const mergeCells = createRoute({
  method: 'get',
  path: '/api/v1/cells/merged',
  summary: 'Cells of all regions added up by release and model, with percentiles and drift',
  request: { query },
  responses: { 200: json(mergedListSchema, 'By subject.'), default: problemResponse },
});

/** Of how many devices each is was looked at when it was published. */
const published: readonly number[] = [];

export function registerCellRoutes(api: Api, parts: RegistryParts): void {
  const guard = createFlowGuard(parts);
  const records = createCellRecords({ ...parts, profiles: parts.fleet.evidence.profiles });

  function asked({ release, model, from, to, region }: z.infer<typeof query>): CellQuery {
    const untilDay = Math.floor((to ?? parts.clock.wall()) / cellDayMs);
    const fromDay =
      from === undefined ? Math.max(0, untilDay - daysDefault + 1) : Math.floor(from / cellDayMs);
    if (fromDay > untilDay) throw new FleetError('input-invalid', 'from lies behind to');
    if (untilDay - fromDay >= daysMax)
      throw new FleetError('input-invalid', `ask for ${daysMax} days at most`);
    return { release, model, fromDay, untilDay, region };
  }

  const namespaceOf = ({ release, model }: CellQuery): string | null =>
    (release === undefined ? parseModelId(model ?? '') : parseReleaseId(release))?.namespace ?? null;

  api.openapi(listCells, async (c) => {
    const principal = requireAccess(c, 'cells.read');
    const wanted = asked(c.req.valid('query'));
    // Which are withheld, and how many, is no cell: it stays here.
    const withReasons =
      sitsIn(parts.region, principal) && authorize(principal, 'cells.withheld', namespaceOf(wanted)).ok;
    const list = await records.list(wanted, withReasons);
    await guard.cells(principal, published, list);
    return c.json(list, 200);
  });

  api.openapi(mergeCells, async (c) => {
    const principal = requireAccess(c, 'cells.read');
    const merged = await records.merged(asked(c.req.valid('query')));
    const list = { region: parts.region, merged };
    await guard.cells(principal, published, list);
    return c.json(list, 200);
  });
}
