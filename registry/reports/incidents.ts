// Why: what went wrong with a release: rollouts that did not end well, devices that failed or went back, what was refused.
// Trusts: the store. Must never: list devices: how many they were is enough here.

import type { Incident } from '../../shared/wire/model-report.ts';
import { fromColumn } from '../fleet/columns.ts';
import { type RegistryDb, type RegistryQueries, sql } from '../store/open.ts';

const badStates = ['failed', 'aborted', 'rolling-back', 'paused'];
/** Of one release. */
const incidentsMax = 100;

function rolloutsIn(db: RegistryDb, qb: RegistryQueries, release: string, sinceMs: number): Incident[] {
  return db
    .all(
      qb
        .selectFrom('rollout_parts')
        .innerJoin('rollouts', 'rollouts.rollout_id', 'rollout_parts.rollout_id')
        .select(['rollouts.name', 'rollouts.state', 'rollouts.reason'])
        .select(['rollouts.created_at_ms as createdAtMs', 'rollouts.ended_at_ms as endedAtMs'])
        .where('rollout_parts.release_id', '=', release)
        .where('rollouts.state', 'in', badStates)
        .where((eb) => eb(eb.fn.coalesce('rollouts.ended_at_ms', 'rollouts.created_at_ms'), '>=', sinceMs)),
    )
    .map(({ name, state, reason, createdAtMs, endedAtMs }) => ({
      ...{ kind: 'rollout' as const, atMs: endedAtMs ?? createdAtMs, code: state, count: 1 },
      detail: `${name}${reason === null ? '' : `: ${reason}`}`,
    }));
}

/** Devices whose part in a rollout of it has a reason, by its code. */
function devicesIn(db: RegistryDb, qb: RegistryQueries, release: string, sinceMs: number): Incident[] {
  const rows = db.all(
    qb
      .selectFrom('rollout_parts')
      .innerJoin('rollout_devices', 'rollout_devices.rollout_id', 'rollout_parts.rollout_id')
      .select(['rollout_devices.reason', 'rollout_devices.step_at_ms as atMs'])
      .where('rollout_parts.release_id', '=', release)
      .where('rollout_devices.reason', 'is not', null)
      .where('rollout_devices.step', 'in', ['assigned', 'reverted'])
      .where('rollout_devices.step_at_ms', '>=', sinceMs)
      .orderBy('rollout_devices.step_at_ms'),
  );
  const byCode = new Map<string, Incident>();
  for (const { reason, atMs } of rows) {
    const { code, detail } = fromColumn<{ code: string; detail: string }>(reason ?? '{}');
    const { count = 0 } = byCode.get(code) ?? {};
    byCode.set(code, { kind: 'device', atMs, code, detail, count: count + 1 });
  }
  return [...byCode.values()];
}

/** Events whose words name the release: refusals by devices and by the registry, attacks, withdrawals. */
function eventsIn(db: RegistryDb, qb: RegistryQueries, release: string, sinceMs: number): Incident[] {
  const rows = db.all(
    qb
      .selectFrom('fleet_events')
      .select(['code', 'attack', 'detail', 'at_ms as atMs'])
      .where('at_ms', '>=', sinceMs)
      .where(sql<number>`instr(detail, ${release})`, '>', 0)
      .orderBy('id'),
  );
  const byCode = new Map<string, Incident>();
  for (const { code, attack, detail, atMs } of rows) {
    // `acme/pump@1.0.0` stands in `acme/pump@1.0.0-rc.1` as well.
    if (!namesRelease(detail, release)) continue;
    const kind = attack === 1 ? 'attack' : 'event';
    const { count = 0 } = byCode.get(`${kind} ${code}`) ?? {};
    byCode.set(`${kind} ${code}`, { kind, atMs, code, detail, count: count + 1 });
  }
  return [...byCode.values()];
}

export function namesRelease(text: string, release: string): boolean {
  for (let at = text.indexOf(release); at >= 0; at = text.indexOf(release, at + 1)) {
    const before = text[at - 1] ?? ' ';
    const behind = text.slice(at + release.length);
    if (!/[a-z0-9-]/.test(before) && !/^(-|\.?[0-9A-Za-z])/.test(behind)) return true;
  }
  return false;
}

/** The newest first. */
export function incidentsIn(
  db: RegistryDb,
  qb: RegistryQueries,
  release: string,
  sinceMs: number,
): Incident[] {
  return [rolloutsIn, devicesIn, eventsIn]
    .flatMap((read) => read(db, qb, release, sinceMs))
    .sort((a, b) => b.atMs - a.atMs || (a.code < b.code ? -1 : 1))
    .slice(0, incidentsMax);
}
