// Why: how good a release was, once labels came: labels and records find each other by request id, whichever came first.
// Trusts: records for the answers, people for the labels. Must never: keep an answer outside its sealed
// record, or a request id in clear.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { createPairs, type Pairs } from '../../shared/stats/quality.ts';
import {
  type LabelLine,
  type LabelsImported,
  predictionOf,
  type QualityView,
} from '../../shared/wire/quality.ts';
import type { Releases } from '../catalog/releases.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { OpenedRecord } from './open-batch.ts';

export interface QualityQuery {
  /** `NS/NAME`. */
  model: string;
  release?: string;
  fromMs: number;
  untilMs: number;
  /** The time in parts of this length; one part where absent. */
  windowMs?: number;
}

export interface PredictionPlaces {
  /** In the transaction that stores the batch, of class `app` or `sample`. */
  addIn(db: RegistryDb, deviceId: string, batchId: number, records: readonly OpenedRecord[]): void;
  eraseIn(db: RegistryDb, deviceId: string, untilMs: number): void;
  /** Those of one batch whose records were deleted; its times are those of its records. */
  expireIn(
    db: RegistryDb,
    batch: { batchId: number; deviceId: string; firstMs: number; lastMs: number },
  ): void;
}

export interface QualityDesk {
  import(labels: readonly LabelLine[]): Promise<LabelsImported>;
  /** Refusals: `not-found` (no such model, release of it), `input-invalid` (too many windows). */
  report(query: QualityQuery): Promise<Result<QualityView>>;
}

export const requestDigest = (requestId: string): Uint8Array =>
  Buffer.from(sha256Hex(new TextEncoder().encode(requestId)).slice(0, 32), 'hex');

const unknownShown = 10;
const windowsMax = 1_000;
/** A regression has as many values as rows: nobody reads a table of them. */
const classesShown = 1_000;
/** Places that are joined in one transaction. */
const pagePlaces = 5_000;

export function createPredictionPlaces({ qb }: Pick<RegistryStore, 'qb'>): PredictionPlaces {
  return {
    addIn(db, deviceId, batchId, records) {
      for (const [index, { release, timeMs, data }] of records.entries()) {
        // Most records of an application are none: a look at the text spares reading them.
        if (release === null || !data.includes('d":')) continue;
        const found = predictionOf(JSON.parse(data));
        if (found === null) continue;
        const place = {
          ...{ release, batch_id: batchId, record_index: index, device_id: deviceId, time_ms: timeMs },
        };
        db.run(
          qb
            .insertInto('prediction_places')
            .values({ request: requestDigest(found.requestId), ...place })
            .onConflict((conflict) => conflict.column('request').doUpdateSet(place)),
        );
      }
    },

    eraseIn(db, deviceId, untilMs) {
      db.run(
        qb.deleteFrom('prediction_places').where('device_id', '=', deviceId).where('time_ms', '<', untilMs),
      );
    },

    expireIn(db, { batchId, deviceId, firstMs, lastMs }) {
      // By device and time, of which there is an index.
      db.run(
        qb
          .deleteFrom('prediction_places')
          .where('device_id', '=', deviceId)
          .where('time_ms', '>=', firstMs)
          .where('time_ms', '<=', lastMs)
          .where('batch_id', '=', batchId),
      );
    },
  };
}

interface Window {
  fromMs: number;
  untilMs: number;
  predictions: number;
  pairs: Pairs;
}

function windowsOf({ fromMs, untilMs, windowMs = untilMs - fromMs }: QualityQuery): Window[] {
  const windows: Window[] = [];
  for (let at = fromMs; at < untilMs; at += windowMs)
    windows.push({
      ...{ fromMs: at, untilMs: Math.min(untilMs, at + windowMs) },
      ...{ predictions: 0, pairs: createPairs() },
    });
  return windows;
}

function windowView({ pairs, ...window }: Window): QualityView['releases'][number]['windows'][number] {
  const found = pairs.quality();
  if (found === null) return { ...window, count: 0, accuracy: null, macro: null, classes: [] };
  const classes = [...found.classes].sort((a, b) => b.support - a.support).slice(0, classesShown);
  return { ...window, count: found.count, accuracy: found.accuracy, macro: found.macro, classes };
}

export function createQualityDesk(parts: {
  store: RegistryStore;
  releases: Pick<Releases, 'show'>;
  records: { ofBatch(batchId: number): Promise<OpenedRecord[]> };
  clock: Clock;
}): QualityDesk {
  const { store, releases, records, clock } = parts;
  const { qb } = store;

  /** Every prediction of the release in the time with its label, null where none came; in the order of batches. */
  function placesIn(db: RegistryDb, release: string, query: QualityQuery) {
    return db.all(
      qb
        .selectFrom('prediction_places as p')
        .leftJoin('labels as l', 'l.request', 'p.request')
        .select([
          'p.batch_id as batchId',
          'p.record_index as index',
          'p.time_ms as timeMs',
          'l.label as label',
        ])
        .where('p.release', '=', release)
        .where('p.time_ms', '>=', query.fromMs)
        .where('p.time_ms', '<', query.untilMs)
        .orderBy('p.batch_id'),
    );
  }

  async function ofRelease(release: string, query: QualityQuery): Promise<Window[]> {
    const windows = windowsOf(query);
    const places = await store.tx((db) => placesIn(db, release, query));
    const length = query.windowMs ?? query.untilMs - query.fromMs;
    const noRecords: OpenedRecord[] = [];
    let batch = { id: 0, records: noRecords };
    for (const { batchId, index, timeMs, label } of places) {
      const window = windows[Math.floor((timeMs - query.fromMs) / length)];
      if (window === undefined) continue;
      window.predictions += 1;
      if (label === null) continue;
      if (batch.id !== batchId) batch = { id: batchId, records: await records.ofBatch(batchId) };
      // Of a device that was erased meanwhile nothing is left to read.
      const record = batch.records[index];
      const found = record === undefined ? null : predictionOf(JSON.parse(record.data));
      if (found !== null) window.pairs.add(found.prediction, label);
    }
    return windows;
  }

  function importIn(db: RegistryDb, labels: readonly LabelLine[]): LabelsImported {
    const told = new Set<string>();
    const outcome: LabelsImported = { imported: labels.length, replaced: 0, unknown: 0, unknownIds: [] };
    for (const { requestId, label, timeMs } of labels) {
      const request = requestDigest(requestId);
      const before = db.first(qb.selectFrom('labels').select('label').where('request', '=', request));
      if (before !== undefined && before.label !== label) outcome.replaced += 1;
      const values = { label, time_ms: timeMs, imported_at_ms: clock.wall() };
      db.run(
        qb
          .insertInto('labels')
          .values({ request, ...values })
          .onConflict((conflict) => conflict.column('request').doUpdateSet(values)),
      );
      const place = qb.selectFrom('prediction_places').select('batch_id').where('request', '=', request);
      if (told.has(requestId) || db.first(place) !== undefined) continue;
      told.add(requestId);
      outcome.unknown += 1;
      if (outcome.unknownIds.length < unknownShown) outcome.unknownIds.push(requestId);
    }
    return outcome;
  }

  function waitingLabels(): Promise<number> {
    return store.tx(
      (db) =>
        db.first(
          qb
            .selectFrom('labels as l')
            .leftJoin('prediction_places as p', 'p.request', 'l.request')
            .select((eb) => eb.fn.countAll<number>().as('n'))
            .where('p.request', 'is', null),
        )?.n ?? 0,
    );
  }

  return {
    async import(labels) {
      const sum: LabelsImported = { imported: 0, replaced: 0, unknown: 0, unknownIds: [] };
      for (let at = 0; at < labels.length; at += pagePlaces) {
        const some = await store.tx((db) => importIn(db, labels.slice(at, at + pagePlaces)));
        sum.imported += some.imported;
        sum.replaced += some.replaced;
        sum.unknown += some.unknown;
        sum.unknownIds.push(...some.unknownIds.slice(0, unknownShown - sum.unknownIds.length));
      }
      return sum;
    },

    async report(query) {
      const { model, release, fromMs, untilMs, windowMs } = query;
      if (windowMs !== undefined && (untilMs - fromMs) / windowMs > windowsMax)
        return refuse('input-invalid', `that are more than ${windowsMax} windows: make them longer`);
      const shown = await releases.show(model);
      if (!shown.ok) return shown;
      const all = shown.value.versions.map(({ version }) => `${model}@${version}`);
      if (release !== undefined && !all.includes(release))
        return refuse('not-found', `${model} has no release ${release}`);
      const found: QualityView['releases'] = [];
      for (const name of release === undefined ? all : [release]) {
        const windows = await ofRelease(name, query);
        const used = release !== undefined || windows.some(({ predictions }) => predictions > 0);
        if (used) found.push({ release: name, windows: windows.map(windowView) });
      }
      const counted = found.some(({ windows }) => windows.some(({ count }) => count > 0));
      const hint = counted
        ? null
        : 'nothing to compare: records of class app need release, id and prediction, and labels come by lepton labels import FILE';
      return ok({ model, fromMs, untilMs, releases: found, waitingLabels: await waitingLabels(), hint });
    },
  };
}
