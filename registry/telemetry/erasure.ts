// Why: deletes what this region holds of a device, begun once and finished whatever happens in between, and signs that it did.
// Trusts: the keys' own database to overwrite what it deletes. Must never: sign before all of it is gone.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { signErasure } from '../../shared/trust/erasure.ts';
import { type Erasure, type ErasureStatement, erasureSchema } from '../../shared/wire/erasure.ts';
import { schemaVersion } from '../../shared/wire/messages.ts';
import type { Audit } from '../audit/audit.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { ErasuresTable } from '../store/telemetry-tables.ts';
import type { ErasedKey, TelemetryKeys } from './keys.ts';

export interface Erasures {
  /** Refusal: `not-found` (no such device was ever here). */
  erase(
    deviceId: string,
    wanted: { untilMs: number | null; requestedBy: string; reason: string | null },
  ): Promise<Result<Erasure>>;
  /** Finished ones, newest first. */
  list(): Promise<Erasure[]>;
  /** Goes on with what an end in between left. */
  resume(): Promise<void>;
}

export function createErasures(parts: {
  region: string;
  store: RegistryStore;
  audit: Pick<Audit, 'appendIn'>;
  telemetryKeys: TelemetryKeys;
  signer: Signer;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** Deletes what of the device is kept beside its records, which are gone by then: sums of counts, samples. */
  eraseIn(db: RegistryDb, erased: { deviceId: string; untilMs: number }): void;
  /** Gives devices another key where they have none. */
  equip(deviceIds: readonly string[]): Promise<void>;
}): Erasures {
  const { region, store, audit, telemetryKeys, clock, log } = parts;
  const { qb } = store;

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

  /** `resumed`: the one who asked was never answered, so that no request says in the audit record that it was done. */
  async function finish(row: ErasuresTable, resumed = false): Promise<Erasure> {
    const { erasure_id: erasureId, device_id: deviceId, until_ms: untilMs } = row;
    const keys = await telemetryKeys.erase({ id: erasureId, deviceId, untilMs });
    const doneAtMs = clock.wall();
    // Deleted and signed for in one commit: a second pass after a cut would find nothing left to count.
    const erasure = await store.tx((db) => {
      const deleted = deleteIn(db, row, keys, doneAtMs);
      parts.eraseIn(db, { deviceId, untilMs });
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
      if (resumed)
        audit.appendIn(db, {
          ...{ actor: 'job:erasure', via: 'start', action: 'telemetry.erase', subject: deviceId },
          ...{ reason: row.reason, outcome: 'done', code: null, rule: null, address: null },
          detail: { erasureId, requestedBy: row.requested_by, records: deleted.records },
        });
      return done;
    });
    await store.flushLog();
    const { batches, records } = erasure.statement;
    log.emit('info', 'telemetry.erased', { deviceId, erasureId, keys: keys.length, batches, records });
    await parts.equip([deviceId]);
    return erasure;
  }

  return {
    async erase(deviceId, { untilMs, requestedBy, reason }) {
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
        const device = qb.selectFrom('devices').select('device_id').where('device_id', '=', deviceId);
        if (db.first(device) === undefined) return false;
        db.run(qb.insertInto('erasures').values(row));
        return true;
      });
      if (!known) return refuse('not-found', `no device ${deviceId} was ever enrolled here`);
      return ok(await finish(row));
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

    async resume() {
      const open = await store.tx((db) =>
        db.all(qb.selectFrom('erasures').selectAll().where('certificate', 'is', null).orderBy('begun_at_ms')),
      );
      for (const row of open) await finish(row, true);
    },
  };
}
