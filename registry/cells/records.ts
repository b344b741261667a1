// Why: cells as people ask for them: this region's, other regions', and all of them added up for a release.
// Trusts: the store, into which only verified cells came. Must never: read what devices told by themselves.

import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { mergeCells } from '../../shared/stats/merged-cells.ts';
import {
  type CellList,
  type CellStatement,
  cellStatementSchema,
  type MergedCells,
  type Withheld,
  withheldSchema,
} from '../../shared/wire/cells.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { Profiles } from '../telemetry/profiles.ts';

export interface CellQuery {
  release?: string | undefined;
  /** `NS/NAME`. */
  model?: string | undefined;
  fromDay: number;
  untilDay: number;
  /** Of that region alone; of all where absent. */
  region?: string | undefined;
}

/** One answer; the text of a cell may have some hundred kilobytes. */
const cellsMax = 500;
const decoder = new TextDecoder();

export interface CellRecords {
  /** By day, region and subject. `withReasons`: also which were withheld here and why. */
  list(query: CellQuery, withReasons: boolean): Promise<CellList>;
  /** Every cell of the days, in the order of `list`. */
  all(query: CellQuery): Promise<CellStatement[]>;
  /** By subject; the whole of each model as well where no release is named. */
  merged(query: CellQuery): Promise<MergedCells[]>;
}

export function createCellRecords(parts: {
  region: string;
  store: RegistryStore;
  profiles: Pick<Profiles, 'of'>;
}): CellRecords {
  const { region: own, store, profiles } = parts;
  const { qb } = store;

  const parsed = (body: Uint8Array): CellStatement =>
    cellStatementSchema.parse(JSON.parse(decoder.decode(body)));

  function ownIn(
    db: RegistryDb,
    { release, model, fromDay, untilDay }: CellQuery,
    limit: number,
  ): Uint8Array[] {
    let query = qb
      .selectFrom('cells')
      .select('body')
      .where('day', '>=', fromDay)
      .where('day', '<=', untilDay)
      .orderBy('day')
      .orderBy('kind')
      .orderBy('subject')
      .limit(limit);
    if (release !== undefined) query = query.where('subject', '=', release);
    if (model !== undefined) query = query.where('model', '=', model);
    return db.all(query).map(({ body }) => body);
  }

  function othersIn(db: RegistryDb, query: CellQuery, limit: number): Uint8Array[] {
    const { release, model, fromDay, untilDay, region } = query;
    let rows = qb
      .selectFrom('peer_cells')
      .select('body')
      .where('day', '>=', fromDay)
      .where('day', '<=', untilDay)
      .orderBy('day')
      .orderBy('region')
      .orderBy('kind')
      .orderBy('subject')
      .limit(limit);
    if (release !== undefined) rows = rows.where('subject', '=', release);
    if (model !== undefined) rows = rows.where('model', '=', model);
    if (region !== undefined) rows = rows.where('region', '=', region);
    return db.all(rows).map(({ body }) => body);
  }

  function withheldIn(db: RegistryDb, { release, model, fromDay, untilDay }: CellQuery): Withheld[] {
    let query = qb
      .selectFrom('cells_withheld')
      .select(['day', 'kind', 'subject', 'part', 'rule'])
      .where('day', '>=', fromDay)
      .where('day', '<=', untilDay)
      .orderBy('day')
      .orderBy('kind')
      .orderBy('subject')
      .orderBy('part');
    if (release !== undefined) query = query.where('subject', '=', release);
    if (model !== undefined) query = query.where('model', '=', model);
    return db.all(query).map((row) => withheldSchema.parse(row));
  }

  const lateIn = (db: RegistryDb, { fromDay, untilDay }: CellQuery): number =>
    db.first(
      qb
        .selectFrom('cell_days')
        .select((eb) => eb.fn.coalesce(eb.fn.sum<number>('late_records'), eb.lit(0)).as('late'))
        .where('day', '>=', fromDay)
        .where('day', '<=', untilDay),
    )?.late ?? 0;

  async function cellsOf(query: CellQuery, limit: number): Promise<CellStatement[]> {
    const bodies = await store.tx((db) => [
      ...(query.region === undefined || query.region === own ? ownIn(db, query, limit) : []),
      ...(query.region === own ? [] : othersIn(db, query, limit)),
    ]);
    const order = ({ day, region, kind, subject }: CellStatement): string =>
      `${String(day).padStart(7, '0')} ${region} ${kind} ${subject}`;
    return bodies
      .map((body) => parsed(body))
      .map((cell) => ({ cell, key: order(cell) }))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map(({ cell }) => cell);
  }

  return {
    async list(query, withReasons) {
      const cells = await cellsOf(query, cellsMax + 1);
      const ownAsked = query.region === undefined || query.region === own;
      const withheld = ownAsked ? await store.tx((db) => withheldIn(db, query)) : [];
      return {
        region: own,
        cells: cells.slice(0, cellsMax),
        truncated: cells.length > cellsMax,
        withheld: { count: withheld.length, list: withReasons ? withheld : null },
        lateRecords: ownAsked ? await store.tx((db) => lateIn(db, query)) : 0,
      };
    },

    all: (query) => cellsOf(query, Number.MAX_SAFE_INTEGER),

    async merged(query) {
      const bySubject = new Map<string, CellStatement[]>();
      for (const cell of await cellsOf(query, Number.MAX_SAFE_INTEGER)) {
        const key = `${cell.kind} ${cell.subject}`;
        bySubject.set(key, [...(bySubject.get(key) ?? []), cell]);
      }
      const found: MergedCells[] = [];
      for (const [, cells] of [...bySubject].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const subject = cells[0]?.subject ?? '';
        const profile = parseReleaseId(subject) === null ? null : await profiles.of(subject);
        const merged = mergeCells(cells, profile);
        if (merged !== null) found.push(merged);
      }
      return found;
    },
  };
}
