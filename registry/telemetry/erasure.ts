// Why: deletes what this region holds of a device, begun once and finished whatever happens in between, and signs that it did.
// Trusts: the keys' own database to overwrite what it deletes. Must never: sign before all of it is gone.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { signErasure } from '../../shared/trust/erasure.ts';
import {
  type Erasure,
  type ErasureRegions,
  type ErasureStatement,
  erasureSchema,
} from '../../shared/wire/erasure.ts';
import { schemaVersion } from '../../shared/wire/messages.ts';
import type { Audit, NewAuditEntry } from '../audit/audit.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { ErasuresTable } from '../store/telemetry-tables.ts';
import type { ErasureJournal } from './erasure-journal.ts';
import { insertRequestIn, putOutIn } from './erasure-outbox.ts';
import { createErasureReplay } from './erasure-replay.ts';
import { createErasureExchange, type ErasureExchange, type ErasurePeers } from './erasure-streams.ts';
import type { ErasedKey, TelemetryKeys } from './keys.ts';
import type { Withholding } from './withholding.ts';

export interface ErasureWish {
  untilMs: number | null;
  requestedBy: string;
  reason: string | null;
  /** Other regions are asked as well; each answers with its own certificate. */
  allRegions?: boolean;
  /** The request that asks names no device: the audit record gets an entry for each. */
  noteEach?: boolean;
}

/** Whom an audit entry names as the one who did it. */
type Noted = Pick<NewAuditEntry, 'actor' | 'via'>;

export interface Erasures {
  /** Refusal: `not-found` (nothing was ever here of such a device). */
  erase(deviceId: string, wanted: ErasureWish): Promise<Result<Erasure>>;
  /** Finished ones, newest first. */
  list(): Promise<Erasure[]>;
  /**
   * Before anything of a device is read or taken: what was erased is erased again where a backup brought it back, the
   * journal and the database agree afterwards. Once for each start; idempotent.
   */
  replay(): Promise<void>;
  /** Goes on with what an end in between left. */
  resume(): Promise<void>;
  /** Called after each erasure, and after keys went that came back. */
  onErased(listener: () => void): void;
  /** The lists from and to other regions, with what their rooms know of these. */
  exchange(peers: ErasurePeers): ErasureExchange;
  /** Of erasures that were asked of every region, newest first. */
  acrossRegions(): Promise<ErasureRegions[]>;
}

export function createErasures(parts: {
  region: string;
  store: RegistryStore;
  audit: Pick<Audit, 'appendIn'>;
  telemetryKeys: TelemetryKeys;
  journal: ErasureJournal;
  withholding: Withholding;
  signer: Signer;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** Deletes what of the device is kept beside its records, which are gone by then: sums of counts, samples. */
  eraseIn(db: RegistryDb, erased: { deviceId: string; untilMs: number }): void;
  /** Gives devices another key where they have none. */
  equip(deviceIds: readonly string[]): Promise<void>;
  /** Runs it beside everything else; a failure is logged. */
  background(what: string, work: () => Promise<void>): void;
}): Erasures {
  const { region, store, audit, telemetryKeys, journal, clock, log } = parts;
  const { qb } = store;
  const listeners: (() => void)[] = [];
  const erased = (): void => {
    for (const listener of listeners) listener();
  };
  const finishing = new Map<string, Promise<Erasure>>();

  /** Sealed records of these keys, and what an earlier version stored in clear before then; chains stay. */
  function deleteIn(
    db: RegistryDb,
    { device_id: deviceId, until_ms: untilMs }: ErasuresTable,
    keys: readonly ErasedKey[],
    goneAtMs: number,
  ): { batches: number; records: number } {
    const sealed = qb.selectFrom('telemetry_sealed').select('batch_id');
    const ids = keys.map(({ keyId }) => keyId);
    const batches = db.all(
      qb
        .selectFrom('telemetry_batches')
        .select(['batch_id as batchId', 'epoch', 'records'])
        .where('device_id', '=', deviceId)
        .where((eb) =>
          eb.or([
            eb('batch_id', 'in', sealed.where('key_id', 'in', ids)),
            eb.and([
              eb('stored_at_ms', '<', untilMs),
              eb('batch_id', 'in', qb.selectFrom('telemetry_records').select('batch_id')),
            ]),
          ]),
        ),
    );
    for (const { batchId, epoch, records } of batches) {
      db.run(qb.deleteFrom('telemetry_sealed').where('batch_id', '=', batchId));
      db.run(qb.deleteFrom('telemetry_records').where('batch_id', '=', batchId));
      db.run(
        qb.updateTable('telemetry_batches').set({ gone_at_ms: goneAtMs }).where('batch_id', '=', batchId),
      );
      db.run(
        qb
          .updateTable('telemetry_chains')
          .set((eb) => ({ erased: eb('erased', '+', records) }))
          .where('device_id', '=', deviceId)
          .where('epoch', '=', epoch),
      );
    }
    return { batches: batches.length, records: batches.reduce((sum, { records }) => sum + records, 0) };
  }

  /** Everything of it that is not a key; what was deleted already is not counted again. */
  function deleteAllIn(
    db: RegistryDb,
    row: ErasuresTable,
    keys: readonly ErasedKey[],
    goneAtMs: number,
  ): { batches: number; records: number } {
    const deleted = deleteIn(db, row, keys, goneAtMs);
    parts.eraseIn(db, { deviceId: row.device_id, untilMs: row.until_ms });
    return deleted;
  }

  /** `noted`: whom the audit record names, where no request says there that it was done. */
  function finish(row: ErasuresTable, noted: Noted | null): Promise<Erasure> {
    const under = finishing.get(row.erasure_id);
    if (under !== undefined) return under;
    const work = finishOne(row, noted).finally(() => finishing.delete(row.erasure_id));
    finishing.set(row.erasure_id, work);
    return work;
  }

  async function finishOne(row: ErasuresTable, noted: Noted | null): Promise<Erasure> {
    const { erasure_id: erasureId, device_id: deviceId, until_ms: untilMs } = row;
    const keys = await telemetryKeys.erase({ id: erasureId, deviceId, untilMs });
    const doneAtMs = clock.wall();
    // Deleted and signed for in one commit: a second pass after a cut would find nothing left to count.
    const erasure = await store.tx((db) => {
      const deleted = deleteAllIn(db, row, keys, doneAtMs);
      const statement: ErasureStatement = {
        ...{ schemaVersion, erasureId, deviceId, region, untilMs },
        keys: keys.map(({ keyId, epoch, madeAtMs, endsAtMs }) => ({
          ...{ keyId, epoch },
          fromMs: madeAtMs,
          endsMs: endsAtMs,
        })),
        ...deleted,
        requestedBy: row.requested_by,
        reason: row.reason,
        doneAtMs,
      };
      const done = { statement, certificate: signErasure(statement, parts.signer) };
      db.run(
        qb
          .updateTable('erasures')
          .set({ certificate: JSON.stringify(done) })
          .where('erasure_id', '=', erasureId),
      );
      putOutIn(db, qb, { kind: 'erased', erasure: done });
      if (noted !== null)
        audit.appendIn(db, {
          ...{ ...noted, action: 'telemetry.erase', subject: deviceId, reason: row.reason },
          ...{ outcome: 'done', code: null, rule: null, address: null },
          detail: { erasureId, requestedBy: row.requested_by, records: deleted.records },
        });
      return done;
    });
    await store.flushLog();
    await journal.append([erasure]);
    const { batches, records } = erasure.statement;
    log.emit('info', 'telemetry.erased', { deviceId, erasureId, keys: keys.length, batches, records });
    erased();
    await parts.equip([deviceId]);
    return erasure;
  }

  async function resume(via: 'start' | 'region'): Promise<void> {
    const open = await store.tx((db) =>
      db.all(qb.selectFrom('erasures').selectAll().where('certificate', 'is', null).orderBy('begun_at_ms')),
    );
    for (const row of open) await finish(row, { actor: 'job:erasure', via });
  }

  function isHereIn(db: RegistryDb, deviceId: string): boolean {
    const device = qb.selectFrom('devices').select('device_id').where('device_id', '=', deviceId);
    return db.first(device) !== undefined;
  }

  const replay = createErasureReplay({ ...parts, erased, deleteIn: deleteAllIn });

  /** Until somebody names them there are no other regions. */
  const nobody: ErasurePeers = { peersIn: () => [], rootsIn: () => [] };
  let exchange = createErasureExchange({ ...parts, peers: nobody, replay, resume: () => resume('region') });

  return {
    async erase(deviceId, { untilMs, requestedBy, reason, allRegions = false, noteEach = false }) {
      const nowMs = clock.wall();
      const row: ErasuresTable = {
        erasure_id: Buffer.from(parts.entropy.bytes(12)).toString('hex'),
        device_id: deviceId,
        // A key made in this very millisecond is erased as well.
        until_ms: Math.min(untilMs ?? nowMs + 1, nowMs + 1),
        requested_by: requestedBy,
        reason,
        begun_at_ms: nowMs,
        certificate: null,
      };
      const known = await store.tx((db) => {
        if (!isHereIn(db, deviceId)) return false;
        db.run(qb.insertInto('erasures').values(row));
        if (allRegions) insertRequestIn(db, qb, region, row);
        return true;
      });
      if (!known) return refuse('not-found', `no device ${deviceId} was ever enrolled here`);
      return ok(await finish(row, noteEach ? { actor: `user:${requestedBy}`, via: 'api' } : null));
    },

    async list() {
      const rows = await store.tx((db) =>
        db.all(
          qb
            .selectFrom('erasures')
            .select('certificate')
            .where('certificate', 'is not', null)
            .orderBy('begun_at_ms', 'desc'),
        ),
      );
      return rows.map(({ certificate }) => erasureSchema.parse(JSON.parse(certificate ?? '')));
    },

    replay: replay.atStart,
    resume: () => resume('start'),
    onErased: (listener) => void listeners.push(listener),
    exchange(peers) {
      exchange = createErasureExchange({ ...parts, peers, replay, resume: () => resume('region') });
      return exchange;
    },
    acrossRegions: () => exchange.acrossRegions(),
  };
}
