// Why: takes opened batches into the store: chain, batch and records of one batch change together or not at all.
// Trusts: its caller to have checked signature and content. Must never: store records without their chain.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { standingOf } from '../moves/standing.ts';
import { fixed, type RegistryDb, type RegistryStore } from '../store/open.ts';
import { type BatchIdentity, type ChainEnd, placeOf } from './chain.ts';
import type { Evidence } from './evidence.ts';
import type { OpenedBatch, SignedBatch } from './open-batch.ts';

/** What became of a batch inside its transaction. */
export type Taken =
  | { status: 'stored' | 'repeated'; records: number }
  /** Nobody opened it yet: it became the next one only meanwhile. */
  | { status: 'unopened' };

export interface BatchStore {
  /** Where a device stands, before the transaction: what to check a statement with and what to open. */
  /** `carriedEpoch`: it came through another region, of an enrolment that may have ended with a move. */
  standing(db: RegistryDb, deviceId: string, carriedEpoch?: number): Result<Standing>;
  /** Refusals: those of `standing`, of `placeOf`, and of `opened`. */
  take(
    db: RegistryDb,
    batch: SignedBatch,
    opened: Result<OpenedBatch> | null,
    terms: { nowMs: number; carriedEpoch?: number | undefined },
  ): { taken: Result<Taken>; expectedSequence: number };
}

export interface Standing {
  publicKey: Uint8Array;
  epoch: number;
  end: ChainEnd | null;
  /** Sequences of this enrolment that a restore lost, first and last of each range. */
  lost: readonly (readonly [number, number])[];
}

export function isAmong(ranges: Standing['lost'], sequence: number): boolean {
  return ranges.some(([first, last]) => first <= sequence && sequence <= last);
}

const senderQuery = fixed((qb, deviceId: string) =>
  qb
    .selectFrom('devices')
    .select(['public_key', 'status', 'telemetry_epoch', 'moved_to'])
    .where('device_id', '=', deviceId),
);

const endedQuery = fixed((qb, deviceId: string, epoch: number) =>
  qb.selectFrom('moved_epochs').select('epoch').where('device_id', '=', deviceId).where('epoch', '=', epoch),
);

const chainQuery = fixed((qb, deviceId: string, epoch: number) =>
  qb
    .selectFrom('telemetry_chains')
    .select(['last_sequence', 'last_head_sha256'])
    .where('device_id', '=', deviceId)
    .where('epoch', '=', epoch),
);

const lostQuery = fixed((qb, deviceId: string, epoch: number) =>
  qb
    .selectFrom('telemetry_lost')
    .select(['first_sequence', 'last_sequence'])
    .where('device_id', '=', deviceId)
    .where('epoch', '=', epoch),
);

/** `evidence` is told of each batch in its transaction, once. */
export function createBatchStore(store: RegistryStore, evidence: Pick<Evidence, 'addIn'>): BatchStore {
  const { qb } = store;

  function standing(db: RegistryDb, deviceId: string, carriedEpoch?: number): Result<Standing> {
    const device = db.first(senderQuery(qb, deviceId));
    if (device === undefined) return refuse('device-unknown', 'it is not enrolled here');
    // One that moved away sends through the region where it is.
    const mayCarry = carriedEpoch !== undefined && standingOf(device) === 'moved';
    if (device.status !== 'active' && !mayCarry)
      return refuse(`device-${device.status}`, 'it may not send telemetry');
    const ended =
      carriedEpoch === undefined || carriedEpoch === device.telemetry_epoch
        ? undefined
        : db.first(endedQuery(qb, deviceId, carriedEpoch));
    const epoch = ended?.epoch ?? device.telemetry_epoch;
    const chain = db.first(chainQuery(qb, deviceId, epoch));
    const end =
      chain === undefined ? null : { sequence: chain.last_sequence, headSha256: chain.last_head_sha256 };
    const lost = db
      .all(lostQuery(qb, deviceId, epoch))
      .map((row) => [row.first_sequence, row.last_sequence] as const);
    return ok({ publicKey: new Uint8Array(device.public_key), epoch, end, lost });
  }

  function storedAt(
    db: RegistryDb,
    deviceId: string,
    epoch: number,
    sequence: number,
  ): (BatchIdentity & { records: number }) | null {
    const row = db.first(
      qb
        .selectFrom('telemetry_batches')
        .select(['head_sha256 as headSha256', 'wrap_sha256 as wrapSha256', 'records'])
        .where('device_id', '=', deviceId)
        .where('epoch', '=', epoch)
        .where('sequence', '=', sequence),
    );
    return row ?? null;
  }

  /** It is here after all: what is lost is what lies before and behind it. */
  function findIn(db: RegistryDb, deviceId: string, epoch: number, sequence: number): void {
    const key = { device_id: deviceId, epoch };
    const row = db.first(
      qb
        .deleteFrom('telemetry_lost')
        .where('device_id', '=', deviceId)
        .where('epoch', '=', epoch)
        .where('first_sequence', '<=', sequence)
        .where('last_sequence', '>=', sequence)
        .returning(['first_sequence', 'last_sequence', 'at_ms']),
    );
    if (row === undefined) return;
    for (const [first_sequence, last_sequence] of [
      [row.first_sequence, sequence - 1],
      [sequence + 1, row.last_sequence],
    ] as const)
      if (first_sequence <= last_sequence)
        db.run(
          qb.insertInto('telemetry_lost').values({ ...key, first_sequence, last_sequence, at_ms: row.at_ms }),
        );
  }

  /** Its number. `movesOn`: the chain goes on from it; not where it is found behind the chain's end. */
  function insert(
    db: RegistryDb,
    batch: SignedBatch,
    opened: OpenedBatch,
    terms: { nowMs: number; movesOn: boolean },
  ): number {
    const { deviceId, head, headSha256, statement } = batch;
    const { records, sealed, erased } = opened;
    const dropped = statement.format === 'tombstone' ? statement.recordCount : 0;
    let firstMs: number | null = null;
    let lastMs: number | null = null;
    for (const { timeMs } of records) {
      if (firstMs === null || timeMs < firstMs) firstMs = timeMs;
      if (lastMs === null || timeMs > lastMs) lastMs = timeMs;
    }
    const row = db.first(
      qb
        .insertInto('telemetry_batches')
        .values({
          device_id: deviceId,
          epoch: head.epoch,
          sequence: head.sequence,
          head_sha256: headSha256,
          wrap_sha256: statement.wrapSha256,
          class: head.class,
          format: statement.format,
          records: records.length,
          dropped,
          time_first_ms: firstMs,
          time_last_ms: lastMs,
          stored_at_ms: terms.nowMs,
        })
        .returning('batch_id'),
    );
    const batchId = row?.batch_id ?? 0;
    if (sealed !== null)
      db.run(
        qb.insertInto('telemetry_sealed').values({
          batch_id: batchId,
          key_id: sealed.keyId,
          releases: JSON.stringify(sealed.releases),
          sealed: sealed.bytes,
        }),
      );
    const end = { last_sequence: head.sequence, last_head_sha256: headSha256 };
    const key = { device_id: deviceId, epoch: head.epoch };
    db.run(
      qb
        .insertInto('telemetry_chains')
        .values({ ...key, ...end, batches: 1, records: records.length, dropped, erased })
        .onConflict((conflict) =>
          conflict.columns(['device_id', 'epoch']).doUpdateSet((eb) => ({
            ...(terms.movesOn ? end : {}),
            batches: eb('telemetry_chains.batches', '+', 1),
            records: eb('telemetry_chains.records', '+', records.length),
            dropped: eb('telemetry_chains.dropped', '+', dropped),
            erased: eb('telemetry_chains.erased', '+', erased),
          })),
        ),
    );
    return batchId;
  }

  return {
    standing,

    take(db, batch, opened, { nowMs, carriedEpoch }) {
      const { head, headSha256, deviceId } = batch;
      const present = standing(db, deviceId, carriedEpoch);
      if (!present.ok) return { taken: present, expectedSequence: 1 };
      const { epoch, end, lost } = present.value;
      const expectedSequence = (end?.sequence ?? 0) + 1;
      const stored = (sequence: number) => storedAt(db, deviceId, epoch, sequence);
      const place = placeOf(
        { head, headSha256, wrapSha256: batch.statement.wrapSha256 },
        { epoch, end, storedAt: stored, lostAt: (sequence) => isAmong(lost, sequence) },
      );
      if (!place.ok) return { taken: place, expectedSequence };
      if (place.value === 'repeated') {
        const records = stored(head.sequence)?.records ?? 0;
        return { taken: ok({ status: 'repeated', records }), expectedSequence };
      }
      if (opened === null) return { taken: ok({ status: 'unopened' }), expectedSequence };
      if (!opened.ok) return { taken: opened, expectedSequence };
      const movesOn = place.value === 'next';
      if (!movesOn) findIn(db, deviceId, epoch, head.sequence);
      const batchId = insert(db, batch, opened.value, { nowMs, movesOn });
      const { records } = opened.value;
      evidence.addIn(db, { deviceId, batchId, class: head.class, records, nowMs });
      return { taken: ok({ status: 'stored', records: records.length }), expectedSequence };
    },
  };
}
