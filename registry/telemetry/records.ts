// Why: what the region holds in clear, read in the order in which it was stored, so that a reader can stop
// anywhere and go on later without missing or repeating a record.
// Trusts: its callers to have checked the right. Must never: hold a transaction open while somebody reads slowly.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { TelemetryCounts, TelemetryLost } from '../../shared/wire/http.ts';
import type { StoredRecord, TelemetryClass } from '../../shared/wire/telemetry.ts';
import { type RegistryStore, sql } from '../store/open.ts';
import { telemetryLimits } from './limits.ts';

export interface RecordFilter {
  device?: string;
  class?: TelemetryClass;
  /** By the device's clock: from `sinceMs` on, before `untilMs`. */
  sinceMs?: number;
  untilMs?: number;
  /** `NS/NAME@VERSION`. */
  release?: string;
}

/** Names a record: `DEVICE:EPOCH:SEQUENCE:INDEX`, from the fields that every answer carries. */
export type RecordCursor = string;

export interface TelemetryRecords {
  /**
   * Lines of NDJSON, each a `StoredRecord` with its line feed, some at a time; at most `limit` records after
   * `cursor`. Refusals: `input-invalid` (no cursor), `not-found` (a cursor of a record that is not there).
   */
  read(
    filter: RecordFilter,
    options: { cursor: RecordCursor | null; limit: number | null },
  ): Promise<Result<AsyncGenerator<string>>>;
  /** Devices that ever sent something. */
  counts(device: string | null): Promise<TelemetryCounts[]>;
  /** Batches that were acknowledged and lost in a restore, oldest first. */
  lost(device: string | null): Promise<TelemetryLost[]>;
}

interface Position {
  batchId: number;
  index: number;
}

interface Row {
  batchId: number;
  device: string;
  epoch: number;
  sequence: number;
  index: number;
  class: TelemetryClass;
  timeMs: number;
  release: string | null;
  data: string;
}

const cursorPattern = /^([0-9a-f]{32}):(\d{1,10}):(\d{1,15}):(\d{1,9})$/;

/** `data` is JSON text already; parsing it to write it again would only cost time. */
function lineOf(row: Row): string {
  const { device, epoch, sequence, index, timeMs, release } = row;
  const head: Omit<StoredRecord, 'data'> = {
    device,
    epoch,
    sequence,
    index,
    class: row.class,
    timeMs,
    release,
  };
  return `${JSON.stringify(head).slice(0, -1)},"data":${row.data}}\n`;
}

export function createTelemetryRecords(store: RegistryStore): TelemetryRecords {
  const { qb } = store;

  async function positionOf(cursor: RecordCursor): Promise<Result<Position>> {
    const match = cursorPattern.exec(cursor);
    if (match === null) return refuse('input-invalid', 'a cursor is DEVICE:EPOCH:SEQUENCE:INDEX of a record');
    const [, device = '', epoch, sequence, index] = match;
    const batch = await store.tx((db) =>
      db.first(
        qb
          .selectFrom('telemetry_batches')
          .select('batch_id')
          .where('device_id', '=', device)
          .where('epoch', '=', Number(epoch))
          .where('sequence', '=', Number(sequence)),
      ),
    );
    if (batch === undefined) return refuse('not-found', `there is no record ${cursor}`);
    return ok({ batchId: batch.batch_id, index: Number(index) });
  }

  /** Before the first record that may fit: a look at an hour must not walk through a year. */
  async function startOf({ sinceMs }: RecordFilter): Promise<Position> {
    if (sinceMs === undefined) return { batchId: 0, index: -1 };
    const first = await store.tx((db) =>
      db.first(
        qb
          .selectFrom('telemetry_batches')
          .select((eb) => eb.fn.min<number | null>('batch_id').as('batchId'))
          .where('time_last_ms', '>=', sinceMs),
      ),
    );
    return { batchId: first?.batchId ?? Number.MAX_SAFE_INTEGER, index: -1 };
  }

  async function page(filter: RecordFilter, after: Position, count: number): Promise<Row[]> {
    let query = qb
      .selectFrom('telemetry_batches as b')
      // CROSS JOIN keeps SQLite from turning the loops around: batches first is the order that is wanted.
      .crossJoin('telemetry_records as r')
      .select([
        'b.batch_id as batchId',
        'b.device_id as device',
        'b.epoch as epoch',
        'b.sequence as sequence',
        'r.record_index as index',
        'b.class as class',
        'r.time_ms as timeMs',
        'r.release as release',
        'r.data as data',
      ])
      .whereRef('r.batch_id', '=', 'b.batch_id')
      .where(sql<boolean>`(b.batch_id, r.record_index) > (${after.batchId}, ${after.index})`)
      .orderBy('b.batch_id')
      .orderBy('r.record_index')
      .limit(count);
    if (filter.device !== undefined) query = query.where('b.device_id', '=', filter.device);
    if (filter.class !== undefined) query = query.where('b.class', '=', filter.class);
    if (filter.release !== undefined) query = query.where('r.release', '=', filter.release);
    if (filter.sinceMs !== undefined) {
      // The unary plus keeps the order by batch: the start was found by time already.
      query = query
        .where(sql<boolean>`+b.time_last_ms >= ${filter.sinceMs}`)
        .where('r.time_ms', '>=', filter.sinceMs);
    }
    if (filter.untilMs !== undefined) {
      query = query.where('b.time_first_ms', '<', filter.untilMs).where('r.time_ms', '<', filter.untilMs);
    }
    return store.tx((db) => db.all(query));
  }

  async function* lines(filter: RecordFilter, from: Position, limit: number): AsyncGenerator<string> {
    let after = from;
    let left = limit;
    while (left > 0) {
      const wanted = Math.min(left, telemetryLimits.pageRecords);
      const rows = await page(filter, after, wanted);
      if (rows.length > 0) yield rows.map(lineOf).join('');
      const last = rows.at(-1);
      if (last === undefined || rows.length < wanted) return;
      after = { batchId: last.batchId, index: last.index };
      left -= rows.length;
    }
  }

  function lost(device: string | null): Promise<TelemetryLost[]> {
    const all = qb
      .selectFrom('telemetry_lost')
      .select([
        'device_id as device',
        'epoch',
        'first_sequence as firstSequence',
        'last_sequence as lastSequence',
        'at_ms as atMs',
      ])
      .orderBy('at_ms')
      .orderBy('device_id');
    const query = device === null ? all : all.where('device_id', '=', device);
    return store.tx((db) => db.all(query));
  }

  return {
    async read(filter, { cursor, limit }) {
      const from = cursor === null ? ok(await startOf(filter)) : await positionOf(cursor);
      if (!from.ok) return from;
      return ok(lines(filter, from.value, limit ?? Number.POSITIVE_INFINITY));
    },

    async counts(device) {
      const all = qb
        .selectFrom('telemetry_chains')
        .select((eb) => [
          'device_id as device',
          eb.fn.sum<number>('batches').as('batches'),
          eb.fn.sum<number>('records').as('records'),
          eb.fn.sum<number>('dropped').as('dropped'),
        ])
        .groupBy('device_id')
        .orderBy('device_id');
      const query = device === null ? all : all.where('device_id', '=', device);
      const [rows, missing] = [await store.tx((db) => db.all(query)), await lost(device)];
      return rows.map((row) => ({
        ...row,
        lostBatches: missing
          .filter((one) => one.device === row.device)
          .reduce((sum, one) => sum + one.lastSequence - one.firstSequence + 1, 0),
      }));
    },

    lost,
  };
}
