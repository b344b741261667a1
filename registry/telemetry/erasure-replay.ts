// Why: a backup brings back what was erased after it was taken; every certificate that is found erases again, without a
// new one: what was signed stays what happened (DESIGN 3 "Restore").
// Trusts: certificates that this region's own roots stand behind. Must never: delete for a word that nobody signed.

import type { Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkErasure } from '../../shared/trust/erasure.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { type Erasure, type ErasureStatement, erasureSchema } from '../../shared/wire/erasure.ts';
import type { Audit } from '../audit/audit.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { ErasuresTable } from '../store/telemetry-tables.ts';
import type { ErasureJournal } from './erasure-journal.ts';
import { putOutIn } from './erasure-outbox.ts';
import type { ErasedKey, TelemetryKeys } from './keys.ts';
import type { Withholding } from './withholding.ts';

export interface ErasureReplay {
  atStart(): Promise<void>;
  /**
   * Rows go in the transaction of the caller, keys with `keysGone` after its commit; a start does what a cut left. False
   * where it is known. Refusal: `erasure-invalid`.
   */
  replayIn(db: RegistryDb, erasure: Erasure, from: 'journal' | 'peer'): Result<boolean>;
  keysGone(): Promise<void>;
}

/** Signed by some root of the region that `roots` are of; what is used is what was signed. */
export function provenErasure(
  { certificate }: Erasure,
  region: string,
  roots: readonly RegionRoot[],
): Result<ErasureStatement> {
  for (const root of roots) {
    const checked = checkErasure(certificate, root);
    if (checked.ok && checked.value.region === region && root.region === region) return checked;
  }
  return refuse('erasure-invalid', `no root of region ${region} stands behind the certificate`);
}

export function createErasureReplay(parts: {
  region: string;
  store: RegistryStore;
  telemetryKeys: TelemetryKeys;
  journal: ErasureJournal;
  withholding: Withholding;
  clock: { wall(): number };
  log: Log;
  audit: Pick<Audit, 'appendIn'>;
  erased(): void;
  deleteIn(
    db: RegistryDb,
    row: ErasuresTable,
    keys: readonly ErasedKey[],
    goneAtMs: number,
  ): { batches: number; records: number };
}): ErasureReplay {
  const { region, store, telemetryKeys, journal, clock, log } = parts;
  const { qb } = store;
  let started: Promise<void> | null = null;

  /** Every root that this region ever had here: certificates are kept for longer than keys. */
  function rootsIn(db: RegistryDb): RegionRoot[] {
    const files = db.all(qb.selectFrom('metadata_files').select('bytes').where('name', 'like', 'region/%'));
    return files.flatMap(({ bytes }) => {
      const root = parseRegionRoot(bytes);
      return root.ok ? [root.value] : [];
    });
  }

  function replayIn(db: RegistryDb, erasure: Erasure, from: 'journal' | 'peer'): Result<boolean> {
    const { erasureId } = erasure.statement;
    const known = db.first(
      qb.selectFrom('erasures').select(['certificate']).where('erasure_id', '=', erasureId),
    );
    if (known !== undefined && known.certificate !== null) return ok(false);
    const proven = provenErasure(erasure, region, rootsIn(db));
    if (!proven.ok) return proven;
    const statement = proven.value;
    if (statement.erasureId !== erasureId) return refuse('erasure-invalid', 'it names another erasure');
    const { deviceId, requestedBy, reason, doneAtMs } = statement;
    const certificate = JSON.stringify({ statement, certificate: erasure.certificate });
    const row: ErasuresTable = {
      ...{ erasure_id: erasureId, device_id: deviceId, until_ms: statement.untilMs },
      ...{ requested_by: requestedBy, reason, begun_at_ms: doneAtMs, certificate },
    };
    const keys = statement.keys.map(({ keyId, epoch, fromMs, endsMs }) => ({
      ...{ keyId, epoch, madeAtMs: fromMs, endsAtMs: endsMs },
    }));
    // A database that does not know the erasure is older than it, and at a start nothing was added yet: where the erasure was of
    // everything, so is this one, hours of a device whose clock is ahead as well.
    const isAll = from === 'journal' && statement.untilMs >= statement.doneAtMs;
    const until_ms = isAll ? Number.MAX_SAFE_INTEGER : row.until_ms;
    const { batches, records } = parts.deleteIn(db, { ...row, until_ms }, keys, clock.wall());
    db.run(
      qb
        .insertInto('erasures')
        .values(row)
        .onConflict((conflict) => conflict.column('erasure_id').doUpdateSet({ certificate })),
    );
    putOutIn(db, qb, { kind: 'erased', erasure: { statement, certificate: erasure.certificate } });
    parts.audit.appendIn(db, {
      ...{
        actor: 'registry',
        via: from === 'journal' ? 'start' : 'region',
        action: 'telemetry.erasure.replay',
      },
      ...{ subject: deviceId, reason: null, outcome: 'done', code: null, rule: null, address: null },
      detail: { erasureId, keys: keys.length, batches, records, from },
    });
    log.emit('warn', 'erasure.replayed', { deviceId, erasureId, from, keys: keys.length, batches, records });
    return ok(true);
  }

  /** Of every erasure that was ever finished: the keys' database may be of another day than this one. */
  async function keysGone(): Promise<void> {
    const finished = await store.tx((db) =>
      db.all(qb.selectFrom('erasures').select('certificate').where('certificate', 'is not', null)),
    );
    const all = finished.map(({ certificate }) => erasureSchema.parse(JSON.parse(certificate ?? '')));
    const again = await telemetryKeys.eraseAgain(
      all.map(({ statement: { erasureId, deviceId, keys } }) => ({
        ...{ id: erasureId, deviceId },
        keys: keys.map(({ keyId, epoch, fromMs, endsMs }) => ({
          ...{ keyId, epoch, madeAtMs: fromMs, endsAtMs: endsMs },
        })),
      })),
    );
    if (again > 0) parts.erased();
    if (again > 0) log.emit('warn', 'erasure.keys.returned', { keys: again });
    // The log of the database still holds what rows were before.
    await store.flushLog();
    await journal.append(all);
  }

  async function once(): Promise<void> {
    const { erasures, malformed } = await journal.read();
    let unproven = malformed;
    for (const erasure of erasures) {
      const replayed = await store.tx((db) => replayIn(db, erasure, 'journal'));
      if (replayed.ok) continue;
      unproven += 1;
      const { erasureId, deviceId } = erasure.statement;
      log.emit('error', 'erasure.unproven', { erasureId, deviceId, detail: replayed.refusal.detail });
    }
    await keysGone();
    await parts.withholding.started(unproven);
    const restored = parts.withholding.view();
    if (restored !== null && restored.settled === null)
      log.emit('warn', 'erasure.withheld', { backup: restored.backup, unproven });
  }

  return {
    atStart() {
      started ??= once();
      return started;
    },
    replayIn,
    keysGone,
  };
}
