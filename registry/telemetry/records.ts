// Why: what the region holds of its devices' records, read in the order in which it was stored, so that a reader can
// stop anywhere and go on later without missing or repeating a record.
// Trusts: its callers to have checked the right. Must never: hold a transaction open while somebody reads slowly.

import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { Deflate } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { TelemetryCounts, TelemetryLost } from '../../shared/wire/http.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { type RegistryStore, sql } from '../store/open.ts';
import type { TelemetryKeys } from './keys.ts';
import type { OpenedRecord } from './open-batch.ts';
import { recordLines } from './record-lines.ts';
import { type BatchPlace, openRecords, plainOf, recordsIn, storageKey } from './sealed-records.ts';
import type { Withholding } from './withholding.ts';

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

/** Told of lines before they are handed out. */
export type RecordMeter = (telemetryClass: TelemetryClass, records: number, bytes: number) => void;

export interface TelemetryRecords {
  /**
   * Lines of NDJSON, each a `StoredRecord` with its line feed, whole lines at a time; at most `limit` records after
   * `cursor`. Refusals: `erasures-unconfirmed`, `input-invalid` (no cursor), `not-found` (a cursor of a record that is not there).
   */
  read(
    filter: RecordFilter,
    options: { cursor: RecordCursor | null; limit: number | null; meter?: RecordMeter },
  ): Promise<Result<AsyncGenerator<Uint8Array>>>;
  /** Of one batch, in its order; none where it is gone or its key was deleted. */
  ofBatch(batchId: number): Promise<OpenedRecord[]>;
  /** Devices that ever sent something. */
  counts(device: string | null): Promise<TelemetryCounts[]>;
  /** Batches that were acknowledged and lost in a restore, oldest first. */
  lost(device: string | null): Promise<TelemetryLost[]>;
}

interface Position {
  batchId: number;
  index: number;
}

interface Batch extends BatchPlace {
  batchId: number;
  class: TelemetryClass;
  keyId: string | null;
  /** JSON array; null where the records lie in clear, as earlier versions stored them. */
  releases: string | null;
  sealed: Uint8Array | null;
}

/** Batches that are read at once: some megabytes at most. */
const batchesAtOnce = 8;

const cursorPattern = /^([0-9a-f]{32}):(\d{1,10}):(\d{1,15}):(\d{1,9})$/;

/** Each with its records as they lie, in order. The next one is inflated on another core while this one is read. */
async function* openedAhead(
  batches: readonly Batch[],
  open: (batch: Batch) => Promise<Uint8Array>,
): AsyncGenerator<[Batch, Uint8Array]> {
  let next: Promise<Uint8Array> | null = null;
  try {
    for (const [at, batch] of batches.entries()) {
      const records = await (next ?? open(batch));
      const following = batches[at + 1];
      next = following === undefined ? null : open(following);
      // Whoever awaits it next hears of it; whoever stopped reading does not.
      next?.catch(() => undefined);
      yield [batch, records];
    }
  } finally {
    await next?.catch(() => undefined);
  }
}

export function createTelemetryRecords(parts: {
  store: RegistryStore;
  telemetryKeys: Pick<TelemetryKeys, 'open'>;
  deflate: Deflate;
  /** Absent: nothing is withheld. */
  withholding?: Pick<Withholding, 'mayRead'>;
}): TelemetryRecords {
  const { store, telemetryKeys, deflate, withholding } = parts;
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

  /** The next batches that may hold what is asked for, from the one at the position on. */
  async function batchesFrom(filter: RecordFilter, after: Position, count: number): Promise<Batch[]> {
    let query = qb
      .selectFrom('telemetry_batches as b')
      .leftJoin('telemetry_sealed as s', 's.batch_id', 'b.batch_id')
      .select([
        'b.batch_id as batchId',
        'b.device_id as deviceId',
        'b.epoch as epoch',
        'b.sequence as sequence',
        'b.class as class',
        's.key_id as keyId',
        's.releases as releases',
        's.sealed as sealed',
      ])
      .where('b.batch_id', '>=', after.batchId)
      .where('b.records', '>', 0)
      .orderBy('b.batch_id')
      .limit(count);
    const { release } = filter;
    if (filter.device !== undefined) query = query.where('b.device_id', '=', filter.device);
    if (filter.class !== undefined) query = query.where('b.class', '=', filter.class);
    // A name cannot hold a quote, so it is found as it stands in the array.
    if (release !== undefined)
      query = query.where((eb) =>
        eb.or([eb('s.releases', 'is', null), eb(sql`instr(s.releases, ${JSON.stringify(release)})`, '>', 0)]),
      );
    // The unary plus keeps the order by batch: the start was found by time already.
    if (filter.sinceMs !== undefined) query = query.where(sql<boolean>`+b.time_last_ms >= ${filter.sinceMs}`);
    if (filter.untilMs !== undefined) query = query.where('b.time_first_ms', '<', filter.untilMs);
    return store.tx((db) => db.all(query));
  }

  /** In the order of the batch; none where its key is gone. A fault where the key is there and does not open it. */
  async function plainRecordsOf(batch: Batch, keys: Map<string, Uint8Array | null>): Promise<Uint8Array> {
    const { keyId, sealed } = batch;
    if (keyId === null || sealed === null) return plainOf(await clearRecordsOf(batch.batchId));
    let key = keys.get(keyId);
    if (key === undefined) {
      const pair = await telemetryKeys.open(batch.deviceId, batch.epoch, keyId);
      key = pair === null ? null : storageKey(pair.secretKey);
      pair?.secretKey.fill(0);
      keys.set(keyId, key);
    }
    if (key === null) return new Uint8Array(0);
    const records = await openRecords(sealed, batch, { key, deflate });
    if (records !== null) return records;
    const { deviceId, epoch, sequence } = batch;
    throw new FleetError(
      'state-corrupt',
      `batch ${epoch}:${sequence} of ${deviceId} does not open with its key`,
    );
  }

  function clearRecordsOf(batchId: number): Promise<OpenedRecord[]> {
    const query = qb
      .selectFrom('telemetry_records')
      .select(['time_ms as timeMs', 'release', 'data'])
      .where('batch_id', '=', batchId)
      .orderBy('record_index');
    return store.tx((db) => db.all(query));
  }

  async function* lines(
    filter: RecordFilter,
    from: Position,
    { limit, meter }: { limit: number; meter: RecordMeter | undefined },
  ): AsyncGenerator<Uint8Array> {
    const { sinceMs = 0, untilMs = Number.POSITIVE_INFINITY, release = null } = filter;
    const keys = new Map<string, Uint8Array | null>();
    let after = from;
    let left = limit;
    while (left > 0) {
      const batches = await batchesFrom(filter, after, batchesAtOnce);
      for await (const [batch, plain] of openedAhead(batches, (one) => plainRecordsOf(one, keys))) {
        const first = batch.batchId === after.batchId ? after.index + 1 : 0;
        const found = recordLines(plain, batch, { first, limit: left, sinceMs, untilMs, release });
        left -= found.records;
        if (found.records === 0) continue;
        meter?.(batch.class, found.records, found.lines.length);
        yield found.lines;
      }
      const last = batches.at(-1);
      if (last === undefined || batches.length < batchesAtOnce) return;
      after = { batchId: last.batchId + 1, index: -1 };
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
    async read(filter, { cursor, limit, meter }) {
      const readable = withholding?.mayRead() ?? ok();
      if (!readable.ok) return readable;
      const from = cursor === null ? ok(await startOf(filter)) : await positionOf(cursor);
      if (!from.ok) return from;
      return ok(lines(filter, from.value, { limit: limit ?? Number.POSITIVE_INFINITY, meter }));
    },

    async ofBatch(batchId) {
      if (withholding !== undefined) unwrap(withholding.mayRead());
      const [batch] = await batchesFrom({}, { batchId, index: -1 }, 1);
      return batch?.batchId === batchId ? recordsIn(await plainRecordsOf(batch, new Map())) : [];
    },

    async counts(device) {
      const all = qb
        .selectFrom('telemetry_chains')
        .select((eb) => [
          'device_id as device',
          eb.fn.sum<number>('batches').as('batches'),
          eb.fn.sum<number>('records').as('records'),
          eb.fn.sum<number>('dropped').as('dropped'),
          eb.fn.sum<number>('erased').as('erased'),
          eb.fn.sum<number>('expired').as('expired'),
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
