// Why: requests that devices kept, in a queue until a person said what was right, and then as rows for training.
// Trusts: sealed records for what is in them, reviewers for labels. Must never: keep a value of a request outside its
// sealed record, or give a row whose record was erased.

import type { Clock } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { SampleReason } from '../../shared/wire/sample-rules.ts';
import {
  type CaptureRecord,
  captureRecordSchema,
  type SampleEntry,
  type SampleList,
  type SamplePage,
  type SampleReview,
  type SampleShown,
  type SampleState,
} from '../../shared/wire/samples.ts';
import { fromColumn } from '../fleet/columns.ts';
import { type RegistryDb, type RegistryStore, sql } from '../store/open.ts';
import type { SamplesTable } from '../store/sample-tables.ts';
import type { OpenedRecord } from './open-batch.ts';

export interface SamplePlaces {
  /** In the transaction that stores the batch, of class `sample`. */
  addIn(db: RegistryDb, deviceId: string, batchId: number, records: readonly OpenedRecord[]): void;
  /** After the device's sealed records were deleted: what they were about goes too, the number of accepted ones stays. */
  eraseIn(db: RegistryDb, deviceId: string): void;
  /** The same for one batch whose records were deleted. */
  expireIn(db: RegistryDb, batchId: number): void;
}

export interface SampleFilter {
  /** `NS/NAME`. */
  model?: string;
  release?: string;
  reason?: SampleReason;
  state?: SampleState;
}

export interface SampleDesk {
  /** Newest first. */
  list(filter: SampleFilter, page: { cursor: string | null; limit: number }): Promise<SampleList>;
  /** `NS/NAME` of the sample, null where there is none. */
  modelOf(id: string): Promise<string | null>;
  /** Refusal: `not-found` (no such sample, or it was erased). */
  show(id: string): Promise<Result<SampleShown>>;
  /** A review after a review takes its place. Refusal: `not-found`. */
  review(id: string, review: SampleReview, reviewer: string): Promise<Result<SampleEntry>>;
  /** Accepted ones in the order in which they were stored. */
  dataset(
    filter: { model: string; release?: string },
    page: { cursor: string | null; limit: number },
  ): Promise<SamplePage>;
}

interface Place {
  batchId: number;
  index: number;
}

const idOf = ({ batch_id, record_index }: SamplesTable): string => `${batch_id}.${record_index}`;

/** Of an id that its schema has passed. */
function placeOf(id: string): Place {
  const [batchId, index] = id.split('.').map(Number);
  return { batchId: batchId ?? 0, index: index ?? 0 };
}

/** Null for what is no sample: an agent that is newer, or a device that says anything. */
function captureOf(data: string): CaptureRecord | null {
  const parsed = captureRecordSchema.safeParse(JSON.parse(data));
  return parsed.success ? parsed.data : null;
}

export function createSamplePlaces({ qb }: Pick<RegistryStore, 'qb'>): SamplePlaces {
  return {
    addIn(db, deviceId, batchId, records) {
      for (const [index, { release, timeMs, data }] of records.entries()) {
        const name = release === null ? null : parseReleaseId(release);
        const capture = release === null || name === null ? null : captureOf(data);
        if (release === null || name === null || capture === null) continue;
        db.run(
          qb.insertInto('samples').values({
            ...{ batch_id: batchId, record_index: index, device_id: deviceId },
            ...{ model: `${name.namespace}/${name.name}`, release, time_ms: timeMs },
            reasons: JSON.stringify([...new Set(capture.reasons)]),
            state: 'waiting',
            ...{ label: null, comment: null, reviewer: null, reviewed_at_ms: null },
          }),
        );
      }
    },

    eraseIn(db, deviceId) {
      const left = qb.selectFrom('telemetry_sealed').select('batch_id');
      db.run(
        qb
          .deleteFrom('samples')
          .where('device_id', '=', deviceId)
          .where('state', 'in', ['waiting', 'rejected'])
          .where('batch_id', 'not in', left),
      );
      db.run(
        qb
          .updateTable('samples')
          .set({ state: 'erased', reasons: '[]', label: null, comment: null })
          .where('device_id', '=', deviceId)
          .where('state', '=', 'accepted')
          .where('batch_id', 'not in', left),
      );
    },

    expireIn(db, batchId) {
      db.run(
        qb
          .deleteFrom('samples')
          .where('batch_id', '=', batchId)
          .where('state', 'in', ['waiting', 'rejected']),
      );
      db.run(
        qb
          .updateTable('samples')
          .set({ state: 'erased', reasons: '[]', label: null, comment: null })
          .where('batch_id', '=', batchId),
      );
    },
  };
}

function entryOf(row: SamplesTable): SampleEntry {
  return {
    id: idOf(row),
    device: row.device_id,
    release: row.release,
    timeMs: row.time_ms,
    reasons: fromColumn<SampleReason[]>(row.reasons),
    state: row.state,
    label: row.label,
    comment: row.comment,
    reviewer: row.reviewer,
    reviewedAtMs: row.reviewed_at_ms,
  };
}

export function createSampleDesk(parts: {
  store: RegistryStore;
  records: { ofBatch(batchId: number): Promise<OpenedRecord[]> };
  clock: Clock;
}): SampleDesk {
  const { store, records, clock } = parts;
  const { qb } = store;

  function fitting({ model, release, reason, state }: SampleFilter) {
    let query = qb.selectFrom('samples');
    if (model !== undefined) query = query.where('model', '=', model);
    if (release !== undefined) query = query.where('release', '=', release);
    if (state !== undefined) query = query.where('state', '=', state);
    // A reason cannot hold a quote, so it is found as it stands in the array.
    if (reason !== undefined)
      query = query.where(sql<boolean>`instr(reasons, ${JSON.stringify(reason)}) > 0`);
    return query;
  }

  const rowAt = (db: RegistryDb, id: string): SamplesTable | undefined => {
    const { batchId, index } = placeOf(id);
    return db.first(
      qb.selectFrom('samples').selectAll().where('batch_id', '=', batchId).where('record_index', '=', index),
    );
  };

  /** Reads each batch once where rows come in its order. */
  function reader(): (row: SamplesTable) => Promise<CaptureRecord | null> {
    let batch: { id: number; records: OpenedRecord[] } = { id: 0, records: [] };
    return async ({ batch_id: id, record_index: index }) => {
      if (batch.id !== id) batch = { id, records: await records.ofBatch(id) };
      const record = batch.records[index];
      return record === undefined ? null : captureOf(record.data);
    };
  }

  return {
    async list(filter, { cursor, limit }) {
      const after = cursor === null ? null : placeOf(cursor);
      return store.tx((db) => {
        let page = fitting(filter).selectAll();
        if (after !== null)
          page = page.where(sql<boolean>`(batch_id, record_index) < (${after.batchId}, ${after.index})`);
        const rows = db.all(
          page
            .orderBy('batch_id', 'desc')
            .orderBy('record_index', 'desc')
            .limit(limit + 1),
        );
        const waiting = db.first(
          fitting({ ...filter, state: 'waiting' }).select((eb) => eb.fn.countAll<number>().as('n')),
        );
        const shown = rows.slice(0, limit);
        const last = rows.length > limit ? shown.at(-1) : undefined;
        return {
          samples: shown.map(entryOf),
          next: last === undefined ? null : idOf(last),
          waiting: filter.state === undefined || filter.state === 'waiting' ? (waiting?.n ?? 0) : 0,
        };
      });
    },

    modelOf: (id) => store.tx((db) => rowAt(db, id)?.model ?? null),

    async show(id) {
      const row = await store.tx((db) => rowAt(db, id));
      const capture = row === undefined ? null : await reader()(row);
      if (row === undefined || capture === null)
        return refuse('not-found', `there is no sample ${id}, or it was erased`);
      const { requestId, confidence, agreement, candidate, inputs, outputs } = capture;
      return ok({
        ...entryOf(row),
        ...{ requestId, confidence, inputs, outputs },
        ...(agreement === undefined ? {} : { agreement }),
        ...(candidate === undefined ? {} : { candidate }),
      });
    },

    review: (id, review, reviewer) =>
      store.tx((db) => {
        const row = rowAt(db, id);
        if (row === undefined || row.state === 'erased')
          return refuse('not-found', `there is no sample ${id}, or it was erased`);
        const values = {
          state: review.decision === 'accept' ? ('accepted' as const) : ('rejected' as const),
          label: review.decision === 'accept' ? review.label : null,
          comment: review.comment ?? null,
          reviewer,
          reviewed_at_ms: clock.wall(),
        };
        db.run(
          qb
            .updateTable('samples')
            .set(values)
            .where('batch_id', '=', row.batch_id)
            .where('record_index', '=', row.record_index),
        );
        return ok(entryOf({ ...row, ...values }));
      }),

    async dataset(filter, { cursor, limit }) {
      const after = cursor === null ? { batchId: 0, index: 0 } : placeOf(cursor);
      const found = await store.tx((db) =>
        db.all(
          fitting(filter)
            .selectAll()
            .where('state', 'in', ['accepted', 'erased'])
            .where(sql<boolean>`(batch_id, record_index) > (${after.batchId}, ${after.index})`)
            .orderBy('batch_id')
            .orderBy('record_index')
            .limit(limit + 1),
        ),
      );
      const some = found.slice(0, limit);
      const page: SamplePage = { rows: [], next: null, erased: 0 };
      const read = reader();
      for (const row of some) {
        const capture = row.state === 'accepted' ? await read(row) : null;
        if (capture === null || row.label === null) {
          page.erased += 1;
          continue;
        }
        const { inputs, outputs, reasons } = capture;
        page.rows.push({
          ...{ id: idOf(row), release: row.release, timeMs: row.time_ms, reasons, inputs, outputs },
          target: row.label,
        });
      }
      const last = found.length > limit ? some.at(-1) : undefined;
      return { ...page, next: last === undefined ? null : idOf(last) };
    },
  };
}
