// Why: what the tables say of a device's moves, for the rooms that show devices and publish to them.
// Trusts: the transaction that it is given. Must never: change anything.

import type { MoveStateName } from '../../shared/wire/device-move.ts';
import type { DeviceView } from '../../shared/wire/http.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import { fromNullableColumn } from '../fleet/columns.ts';
import type { DevicesTable } from '../store/fleet-tables.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';

/** Nothing follows. */
export const finalStates: readonly MoveStateName[] = ['moved', 'refused', 'replaced', 'expired'];

export type Standing = DevicesTable['status'] | 'moved';

/** A device that moved away is stored as a quarantined one, so that whoever does not know of moves shuts it out. */
export function standingOf(device: Pick<DevicesTable, 'status' | 'moved_to'>): Standing {
  return device.status === 'quarantined' && device.moved_to !== null ? 'moved' : device.status;
}

/** By device the envelope (JSON) of the order that it is to follow. */
export function ordersOf(
  db: RegistryDb,
  qb: RegistryQueries,
  deviceIds: readonly string[],
  nowMs: number,
): Map<string, string> {
  const rows = db.all(
    qb
      .selectFrom('move_devices')
      .innerJoin('move_orders', 'move_orders.move_id', 'move_devices.move_id')
      .select(['move_devices.device_id as deviceId', 'move_orders.envelope as envelope'])
      .where('move_devices.device_id', 'in', [...deviceIds])
      .where('move_devices.state', 'not in', [...finalStates])
      .where('move_orders.expires_at_ms', '>', nowMs)
      .orderBy('move_orders.issued_at_ms'),
  );
  return new Map(rows.map(({ deviceId, envelope }) => [deviceId, envelope]));
}

/** How a device's moves are shown; undefined where it never had anything to do with one. */
export function movesOf(
  db: RegistryDb,
  qb: RegistryQueries,
  device: Pick<DevicesTable, 'device_id' | 'moved_to' | 'moved_from'>,
  nowMs: number,
): DeviceView['move'] {
  const last = db.first(
    qb
      .selectFrom('move_devices')
      .innerJoin('move_orders', 'move_orders.move_id', 'move_devices.move_id')
      .select([
        'move_orders.move_id as moveId',
        'move_orders.to_region as to',
        'move_orders.expires_at_ms as expiresAtMs',
        'move_devices.state as state',
        'move_devices.reason as reason',
      ])
      .where('move_devices.device_id', '=', device.device_id)
      .orderBy('move_orders.issued_at_ms', 'desc')
      .limit(1),
  );
  if (last === undefined && device.moved_to === null && device.moved_from === null) return undefined;
  return {
    movedFrom: device.moved_from,
    movedTo: device.moved_to,
    order:
      last === undefined
        ? null
        : {
            moveId: last.moveId,
            to: last.to,
            state: shownState(last.state as MoveStateName, last.expiresAtMs, nowMs),
            reason: fromNullableColumn<Reason>(last.reason),
            expiresAtMs: last.expiresAtMs,
          },
  };
}

/** An order that nobody followed in time ended, also where its device is away and cannot say so. */
export function shownState(state: MoveStateName, expiresAtMs: number, nowMs: number): MoveStateName {
  return finalStates.includes(state) || nowMs < expiresAtMs ? state : 'expired';
}
