// Why: what became here of an order: this region's own rollouts for it, as counts, gates and states.
// Trusts: the tables of rollouts. Must never: read more of a device than its state.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import type { RolloutProgress } from '../../shared/wire/rollout-orders.ts';
import type { RolloutState } from '../../shared/wire/rollouts.ts';
import { readRollout, readWaves } from '../rollout/records.ts';
import { fixed, type RegistryDb, type RegistryQueries } from '../store/open.ts';
import { isEnded, type OwnRollout, type OwnStatus } from './order-decision.ts';

const encoder = new TextEncoder();

/** The same for the same order, region and attempt, whenever it is asked for: what was begun is never begun again. */
export function ownRolloutId(order: {
  coordinator: string;
  orderId: string;
  region: string;
  attempt: number;
}): string {
  const { coordinator, orderId, region, attempt } = order;
  return `r${sha256Hex(encoder.encode(`${coordinator}/${orderId}/${region}/${attempt}`)).slice(0, 16)}`;
}

/** Names of people of other regions begin with it. */
const fromRegion = 'region:';
export const ordererOf = (coordinator: string, user: string | null): string =>
  user === null ? `${fromRegion}${coordinator}` : `${fromRegion}${coordinator}/${user}`;

const countsQuery = fixed((qb, rolloutId: string) =>
  qb
    .selectFrom('rollout_devices')
    .select(['wave_index as wave', 'state'])
    .select((eb) => eb.fn.countAll<number>().as('devices'))
    .where('rollout_id', '=', rolloutId)
    .groupBy(['wave_index', 'state'])
    .orderBy('wave_index')
    .orderBy('state'),
);

function wasPausedByOrder(db: RegistryDb, qb: RegistryQueries, rolloutId: string): boolean {
  const last = db.first(
    qb
      .selectFrom('rollout_history')
      .select('user')
      .where('rollout_id', '=', rolloutId)
      .where('wave_index', 'is', null)
      .where('what', '=', 'paused')
      .orderBy('history_id', 'desc')
      .limit(1),
  );
  return last?.user?.startsWith(fromRegion) === true;
}

/** Null where there is none of that id. */
export function readOwn(db: RegistryDb, qb: RegistryQueries, rolloutId: string): OwnStatus | null {
  const rollout = readRollout(db, qb, rolloutId);
  if (rollout === undefined) return null;
  const waves = readWaves(db, qb, rolloutId);
  const counts = db.all(countsQuery(qb, rolloutId));
  const [, code = ''] = /^([a-z0-9-]+): /.exec(rollout.reason ?? '') ?? [];
  return {
    id: rollout.id,
    state: rollout.state,
    pausedByOrder: rollout.state === 'paused' && wasPausedByOrder(db, qb, rolloutId),
    waveFailed: waves.some(({ state }) => state === 'failed'),
    code: isErrorCode(code) ? code : null,
    waves: waves.map(({ index, state }) => {
      const devices: RolloutProgress['waves'][number]['devices'] = { total: 0 };
      for (const one of counts) {
        if (one.wave !== index) continue;
        devices['total'] = (devices['total'] ?? 0) + one.devices;
        devices[one.state] = one.devices;
      }
      return { index, state, devices };
    }),
    gates: waves.flatMap(({ gates }) =>
      gates.map(({ wave, gate, limit, value, devices, verdict }) => ({
        ...{ wave, gate, limit, value, devices, verdict },
      })),
    ),
  };
}

/** Rollouts of attempts before this one that have not ended, the latest first. */
export function readEarlier(
  db: RegistryDb,
  qb: RegistryQueries,
  order: Parameters<typeof ownRolloutId>[0],
): OwnRollout[] {
  if (order.attempt < 2) return [];
  const ids = Array.from({ length: order.attempt - 1 }, (_, at) =>
    ownRolloutId({ ...order, attempt: at + 1 }),
  );
  const rows = db.all(
    qb
      .selectFrom('rollouts')
      .select(['rollout_id', 'state'])
      .where('rollout_id', 'in', ids)
      .orderBy('number', 'desc'),
  );
  return rows.flatMap(({ rollout_id, state }) => {
    // One of the states that the controller writes.
    const known = state as RolloutState;
    return isEnded(known) ? [] : [{ id: rollout_id, state: known, pausedByOrder: false, waveFailed: false }];
  });
}
