// Why: the director's last look before it signs: nobody is told to install what its publisher took back.
// Trusts: the catalogue's standing of releases, the device's last report. Must never: take from a device what it runs.

import { barredAmong } from '../catalog/barred.ts';
import type { DesiredTable } from '../store/fleet-tables.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import { fromNullableColumn, toColumn } from './columns.ts';

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
  const isBarred = (releaseId: string): boolean => barredAmong(db, qb, [releaseId]).size > 0;
  const barred = barredAmong(
    db,
    qb,
    rows.map((row) => row.release_id),
  );
  if (barred.size === 0) return [...rows];
  const models = db.all(
    qb.selectFrom('device_models').select(['name', 'active']).where('device_id', '=', deviceId),
  );
  const active = new Map(models.map((model) => [model.name, model.active]));
  return rows.flatMap((row) => {
    const runs = (releaseId: string): boolean => active.get(row.as_name) === releaseId;
    if (!barred.has(row.release_id) || runs(row.release_id)) return [row];
    const previous = previousIn(db, qb, deviceId, row);
    if (previous === null) return [];
    if (isBarred(previous.releaseId) && !runs(previous.releaseId)) return [];
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

function previousIn(
  db: RegistryDb,
  qb: RegistryQueries,
  deviceId: string,
  row: Pick<DesiredTable, 'rollout_id' | 'as_name'>,
): Previous | null {
  if (row.rollout_id === null) return null;
  const member = db.first(
    qb
      .selectFrom('rollout_devices as m')
      .innerJoin('rollouts as o', 'o.rollout_id', 'm.rollout_id')
      .select(['m.previous', 'm.companions', 'o.as_name as as'])
      .where('m.rollout_id', '=', row.rollout_id)
      .where('m.device_id', '=', deviceId),
  );
  if (member === undefined) return null;
  if (member.as === row.as_name) return fromNullableColumn<Previous>(member.previous);
  // Of a rollout of several releases.
  return fromNullableColumn<Record<string, Previous | null>>(member.companions)?.[row.as_name] ?? null;
}
