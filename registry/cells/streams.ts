// Why: the list of cells that peers pull, and what this region takes of theirs.
// Trusts: nothing of a peer before a key of that region's root has signed it. Must never: let a later cell take the place of
// an earlier one, or a peer's cell stand under another region's name.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { modelOfRelease } from '../../shared/kernel/releases.ts';
import { checkCell } from '../../shared/trust/cells.ts';
import type { RoleKeys } from '../../shared/trust/tuf/metadata.ts';
import { type CellStatement, cellItemSchema } from '../../shared/wire/cells.ts';
import { describeIssues, payloadTypes } from '../../shared/wire/messages.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { IncomingStream, OutgoingStream } from '../regions/streams.ts';
import { fixed, type RegistryDb, type RegistryQueries, type RegistryStore, sql } from '../store/open.ts';

export const cellsStream = 'cells';

const sizesQuery = fixed((qb, after: number, limit: number) =>
  qb
    .selectFrom('cells')
    .select(['cell_id', sql<number>`length(body)`.as('bytes')])
    .where('cell_id', '>', after)
    .orderBy('cell_id')
    .limit(limit),
);
const pageQuery = fixed((qb, after: number, last: number) =>
  qb
    .selectFrom('cells')
    .select(['cell_id', 'body', 'signatures'])
    .where('cell_id', '>', after)
    .where('cell_id', '<=', last)
    .orderBy('cell_id'),
);

/** Read at once; a cell may have three quarters of a megabyte, and a page asks for some hundred. */
const pageBytesMax = 8 * 1024 * 1024;

/** The last of those that go into one page, the first at least; null where there is none. */
function lastOfPage(db: RegistryDb, qb: RegistryQueries, after: number, limit: number): number | null {
  let last: number | null = null;
  let sum = 0;
  for (const { cell_id: id, bytes } of db.all(sizesQuery(qb, after, limit))) {
    sum += bytes;
    if (last !== null && sum > pageBytesMax) break;
    last = id;
  }
  return last;
}

/** Every peer is given the same: a cell that one sees and another does not would be a difference. */
export function createCellsOutgoing(store: Pick<RegistryStore, 'qb'>): OutgoingStream {
  return {
    name: cellsStream,
    flow: 'cells',
    readIn(db, _peer, after, limit) {
      const last = lastOfPage(db, store.qb, after, limit);
      if (last === null) return [];
      return db.all(pageQuery(store.qb, after, last)).map(({ cell_id: id, body, signatures }) => ({
        id,
        body: {
          envelope: {
            payloadType: payloadTypes.cell,
            payload: Buffer.from(body).toString('base64'),
            signatures: JSON.parse(signatures),
          },
        },
      }));
    },
  };
}

/** `regionKeysOf`: the `ack` keys of a region, under each of its roots that is known here; none where none is. */
export function createCellsIncoming(parts: {
  store: Pick<RegistryStore, 'qb'>;
  regionKeysOf(db: RegistryDb, region: string): readonly Pick<RoleKeys, 'keys' | 'threshold'>[];
  events: Pick<FleetEvents, 'recordIn'>;
  clock: Clock;
}): IncomingStream {
  const { qb } = parts.store;
  /** By peer, the places of cells that were not valid when they were seen first. */
  const doubted = new Map<string, Set<number>>();

  const storedIn = (db: RegistryDb, { region, kind, subject, day }: CellStatement): Uint8Array | undefined =>
    db.first(
      qb
        .selectFrom('peer_cells')
        .select('body')
        .where((eb) => eb.and({ region, kind, subject, day })),
    )?.body;

  /** What is wrong with it, null where nothing is. */
  function takeOne(
    db: RegistryDb,
    peer: string,
    body: unknown,
    keys: ReturnType<typeof parts.regionKeysOf>,
  ): { code: ErrorCode; detail: string } | null {
    const item = cellItemSchema.safeParse(body);
    if (!item.success) return { code: 'cells-invalid', detail: describeIssues(item.error) };
    const { envelope } = item.data;
    const cell = checkCell(envelope, peer, keys);
    if (!cell.ok) return { code: 'cells-invalid', detail: cell.refusal.detail };
    const { kind, subject, day } = cell.value;
    const bytes = new Uint8Array(Buffer.from(envelope.payload, 'base64'));
    const stored = storedIn(db, cell.value);
    if (stored !== undefined) {
      if (Buffer.compare(stored, bytes) === 0) return null;
      return {
        code: 'cells-changed',
        detail: `${subject} of day ${day} is another than the one taken before`,
      };
    }
    const model = kind === 'release' ? modelOfRelease(subject) : subject;
    const row = { region: peer, kind, subject, day, model, body: bytes };
    const signatures = JSON.stringify(envelope.signatures);
    db.run(qb.insertInto('peer_cells').values({ ...row, signatures, taken_at_ms: parts.clock.wall() }));
    return null;
  }

  return {
    name: cellsStream,
    takeIn(db, peer, items) {
      const keys = parts.regionKeysOf(db, peer);
      // Nothing is wrong with its cells: they wait until its root is here.
      if (keys.length === 0)
        throw new FleetError('metadata-missing', `no root of region ${peer} is known here yet`);
      const wrong = new Map<ErrorCode, { ids: number[]; detail: string }>();
      for (const { id, body } of items) {
        const found = takeOne(db, peer, body, keys);
        if (found === null) continue;
        const { ids = [] } = wrong.get(found.code) ?? {};
        wrong.set(found.code, { ids: [...ids, id], detail: found.detail });
      }
      // The region may have got another key since its roots were looked at, which is done before each pull: once is a doubt.
      const invalid = wrong.get('cells-invalid');
      const before = doubted.get(peer);
      if (invalid?.ids.some((id) => before?.has(id) !== true)) {
        doubted.set(peer, new Set(invalid.ids));
        throw new FleetError('cells-invalid', `region ${peer}: ${invalid.detail}`);
      }
      doubted.delete(peer);
      // One event a code and pull, so that a peer cannot push out others' events.
      for (const [code, { ids, detail }] of wrong)
        parts.events.recordIn(db, {
          source: 'registry',
          subject: null,
          code,
          detail: `region ${peer}: ${ids.length} cells, the last at ${ids.at(-1)}: ${detail}`,
        });
    },
  };
}
