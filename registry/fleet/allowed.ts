// Why: the director's last look before it signs: nobody is told to install what its publisher took back.
// Trusts: the catalogue's standing of releases, the device's last report. Must never: take from a device what it runs.

import { barredAmong } from '../catalog/barred.ts';
import { mayStay } from '../catalog/staying.ts';
import type { DesiredTable } from '../store/fleet-tables.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import { toColumn } from './columns.ts';
import { previousUnder } from './previous.ts';

/** As rollouts store it (registry/rollout/facts.ts). */
interface Previous {
  releaseId: string;
  manifestSha256: string;
  manifestBytes: number;
  counter: number;
  requires: string | null;
  rolloutId: string | null;
  policy: object;
}

/**
 * The rows that may be signed for the device. In place of a release that is barred and does not run there yet
 * comes what its rollout would go back to, else nothing. Rollouts do the same to `desired` when they are
 * stepped; until then, and whatever becomes of them, this holds.
 */
export function allowedRows(
  db: RegistryDb,
  qb: RegistryQueries,
  deviceId: string,
  rows: readonly DesiredTable[],
): DesiredTable[] {
  const barred = barredAmong(
    db,
    qb,
    rows.map((row) => row.release_id),
  );
  if (barred.size === 0) return [...rows];
  const models = db.all(
    qb
      .selectFrom('device_models')
      .select(['name', 'active', 'last_good as lastGood'])
      .where('device_id', '=', deviceId),
  );
  const onDevice = new Map(models.map((model) => [model.name, model]));
  return rows.flatMap((row) => {
    const there = onDevice.get(row.as_name);
    const because = barred.get(row.release_id);
    if (because === undefined || mayStay(because.code, there, row.release_id)) return [row];
    const previous = previousUnder<Previous>(db, qb, deviceId, {
      rolloutId: row.rollout_id,
      as: row.as_name,
    });
    if (previous === null) return [];
    const before = barredAmong(db, qb, [previous.releaseId]).get(previous.releaseId);
    if (before !== undefined && !mayStay(before.code, there, previous.releaseId)) return [];
    return [
      {
        ...row,
        release_id: previous.releaseId,
        manifest_sha256: previous.manifestSha256,
        manifest_bytes: previous.manifestBytes,
        counter: previous.counter,
        requires: previous.requires,
        rollout_id: previous.rolloutId,
        policy: toColumn(previous.policy),
      },
    ];
  });
}
