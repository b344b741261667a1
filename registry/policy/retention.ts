// Why: raw telemetry that is older than the region's policy keeps its class is deleted, in small steps, and said so.
// Trusts: the policy in force. Must never: delete what no policy names, or keep the store from others for long.

import type { Clock, Log } from '../../shared/kernel/ports.ts';
import type { RetentionPlan } from '../../shared/wire/region-policy.ts';
import { type TelemetryClass, telemetryClasses } from '../../shared/wire/telemetry.ts';
import type { Audit } from '../audit/audit.ts';
import type { FleetEvents } from '../fleet/events.ts';
import { type RegistryDb, type RegistryQueries, type RegistryStore, sql } from '../store/open.ts';
import { createPredictionPlaces } from '../telemetry/quality.ts';
import { createSamplePlaces } from '../telemetry/samples.ts';
import type { RegionPolicies } from './flows.ts';
import { keptRecords, madeMs } from './kept-records.ts';

export interface Expired {
  class: TelemetryClass;
  rule: string;
  batches: number;
  records: number;
  bytes: number;
}

export interface Retention {
  /** What `run` would delete now. */
  plan(): Promise<RetentionPlan>;
  /** Deletes it; what was deleted. A run that is under way is waited for and another one begins. */
  run(): Promise<Expired[]>;
  /** Ends a run between two steps. */
  stop(): Promise<void>;
}

/** Batches that are deleted in one transaction: some megabytes, some milliseconds. */
const batchesPerStep = 100;

interface OldBatch {
  batchId: number;
  deviceId: string;
  epoch: number;
  records: number;
  firstMs: number;
  lastMs: number;
  bytes: number;
}

/** Batches of a class that were made before, the oldest first, as many as one step deletes. */
export const oldestBatches = (qb: RegistryQueries, kind: TelemetryClass, beforeMs: number) =>
  qb
    .selectFrom('telemetry_batches as b')
    .leftJoin('telemetry_sealed as s', 's.batch_id', 'b.batch_id')
    .select(['b.batch_id as batchId', 'b.device_id as deviceId', 'b.epoch as epoch', 'b.records as records'])
    .select([
      sql<number>`coalesce(time_first_ms, 0)`.as('firstMs'),
      sql<number>`coalesce(time_last_ms, 0)`.as('lastMs'),
      sql<number>`coalesce(length(s.sealed), 0)`.as('bytes'),
    ])
    .where('b.class', '=', kind)
    .where('b.gone_at_ms', 'is', null)
    .where('b.time_last_ms', 'is not', null)
    .where(madeMs, '<', beforeMs)
    .orderBy(madeMs)
    .limit(batchesPerStep);

export function createRetention(parts: {
  store: RegistryStore;
  policies: Pick<RegionPolicies, 'retentionMs'>;
  events: Pick<FleetEvents, 'recordIn'>;
  audit: Pick<Audit, 'appendIn'>;
  clock: Clock;
  log: Log;
}): Retention {
  const { store, policies, events, audit, clock, log } = parts;
  const { qb } = store;
  const samples = createSamplePlaces(store);
  const predictions = createPredictionPlaces(store);
  let last: Promise<unknown> = Promise.resolve();
  let stopped = false;

  function deleteIn(db: RegistryDb, batch: OldBatch): void {
    const { batchId, deviceId, epoch, records } = batch;
    db.run(qb.deleteFrom('telemetry_sealed').where('batch_id', '=', batchId));
    db.run(qb.deleteFrom('telemetry_records').where('batch_id', '=', batchId));
    samples.expireIn(db, batchId);
    predictions.expireIn(db, batch);
    // The batch itself stays: what comes again is known by it, and the chain has no gap.
    db.run(
      qb.updateTable('telemetry_batches').set({ gone_at_ms: clock.wall() }).where('batch_id', '=', batchId),
    );
    db.run(
      qb
        .updateTable('telemetry_chains')
        .set((eb) => ({ expired: eb('expired', '+', records) }))
        .where('device_id', '=', deviceId)
        .where('epoch', '=', epoch),
    );
  }

  /** One step, with its entry in the record of who did what; how much it deleted. */
  function stepIn(db: RegistryDb, kind: TelemetryClass, beforeMs: number, rule: string): Expired {
    const batches: OldBatch[] = db.all(oldestBatches(qb, kind, beforeMs));
    for (const batch of batches) deleteIn(db, batch);
    const sum = (of: (batch: OldBatch) => number): number =>
      batches.reduce((total, batch) => total + of(batch), 0);
    const done = {
      batches: batches.length,
      records: sum(({ records }) => records),
      bytes: sum(({ bytes }) => bytes),
    };
    if (batches.length > 0)
      audit.appendIn(db, {
        ...{ actor: 'job:retention', via: 'job', action: 'telemetry.expire', subject: kind, reason: null },
        ...{ outcome: 'done', code: null, rule, address: null },
        detail: { ...done, beforeMs },
      });
    return { class: kind, rule, ...done };
  }

  async function ofClass(kind: TelemetryClass): Promise<Expired | null> {
    const { ms, rule } = policies.retentionMs(kind);
    if (ms === null) return null;
    const beforeMs = clock.wall() - ms;
    const total: Expired = { class: kind, rule, batches: 0, records: 0, bytes: 0 };
    for (let full = true; full && !stopped; ) {
      const step = await store.tx((db) => stepIn(db, kind, beforeMs, rule));
      total.batches += step.batches;
      total.records += step.records;
      total.bytes += step.bytes;
      full = step.batches === batchesPerStep;
    }
    return total.batches === 0 ? null : total;
  }

  async function run(): Promise<Expired[]> {
    const done: Expired[] = [];
    for (const kind of telemetryClasses) {
      const expired = await ofClass(kind);
      if (expired !== null) done.push(expired);
    }
    if (done.length === 0) return done;
    const words = done.map(
      ({ class: kind, rule, records, batches }) =>
        `${kind}: ${records} records in ${batches} batches (${rule})`,
    );
    const event = { source: 'registry', subject: null, code: 'telemetry-expired' } as const;
    await store.tx((db) => events.recordIn(db, { ...event, detail: words.join('; ') }));
    for (const { class: kind, ...counts } of done) log.emit('info', 'telemetry.expired', { kind, ...counts });
    return done;
  }

  return {
    async plan() {
      const nowMs = clock.wall();
      const kept = await keptRecords(store, (kind) => {
        const { ms } = policies.retentionMs(kind);
        return ms === null ? 'none' : { before: nowMs - ms };
      });
      return telemetryClasses.map((kind) => {
        const { ms: keptMs, rule } = policies.retentionMs(kind);
        const { batches, records, bytes, oldestMs } = kept.get(kind) ?? {
          ...{ batches: 0, records: 0, bytes: 0, oldestMs: null },
        };
        return { class: kind, keptMs, rule, batches, records, bytes, oldestMs };
      });
    },

    run() {
      const next = last.then(run);
      last = next.catch(() => undefined);
      return next;
    },

    async stop() {
      stopped = true;
      await last;
    },
  };
}
