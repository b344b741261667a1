// Why: the old region's part of a move: it takes the order that the catalogue's root signed, hands it to its devices with their
// assignments, sees how far they are, and lets them go once they are in the new region.
// Trusts: the catalogue root for orders; a device's own signed report for where it is.
// Must never: shut a device out before the device itself said from its new region that it is there.

import { openEnvelope } from '../../shared/crypto/dsse.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { openMove, readMove, signMove } from '../../shared/trust/device-move.ts';
import { readSignedBody } from '../../shared/trust/signed-body.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import { movedItemSchema } from '../../shared/wire/carried.ts';
import type { MoveOrder, MoveStateName, MoveView } from '../../shared/wire/device-move.ts';
import {
  type Envelope,
  payloadTypes,
  type Reason,
  type ReportedMove,
  reportSchema,
} from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import { fromNullableColumn, toColumn, toNullableColumn } from '../fleet/columns.ts';
import type { Director } from '../fleet/director.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { FleetChange } from '../fleet/fleet.ts';
import type { Tasks } from '../fleet/tasks.ts';
import type { IncomingStream, StreamItem } from '../regions/streams.ts';
import type { RegistryDb } from '../store/open.ts';
import { finalStates, shownState, standingOf } from './standing.ts';

export interface MoveOrders {
  /**
   * Hands an order to the devices that it names; the same one again changes nothing. Refusals: those of `openMove`,
   * `move-other-region`, `move-expired`, `move-replayed`, `device-unknown`, `device-revoked`, `device-moved`,
   * `device-quarantined`.
   */
  apply(envelope: Envelope, by: string): Promise<Result<MoveView>>;
  /** Signs with the root keys that lie on this disk: in development. Refusals: `move-malformed`, `keys-not-held`. */
  sign(order: Uint8Array): Promise<Result<Envelope>>;
  /** Newest first. */
  list(): Promise<MoveView[]>;
  /** What a device says of an order, in the transaction that takes its report. */
  reportedIn(db: RegistryDb, deviceId: string, move: ReportedMove): void;
  /** The list of devices that reached another region. */
  incoming: IncomingStream;
}

export function createMoveOrders(
  core: RegistryCore,
  parts: {
    events: FleetEvents;
    director: Director;
    tasks: Tasks;
    changed: (change: FleetChange) => void;
    disconnect: (deviceId: string) => Promise<void>;
  },
): MoveOrders {
  const { store, repository, keyring, clock, log, region } = core;
  const { qb } = store;
  const { events, director, tasks } = parts;
  /** Of devices that left in a commit, until what follows it is done. */
  let left: string[] = [];

  function setState(
    db: RegistryDb,
    key: { moveId: string; deviceId: string },
    state: MoveStateName,
    reason: Reason | null,
  ): void {
    db.run(
      qb
        .updateTable('move_devices')
        .set({ state, reason: toNullableColumn(reason), at_ms: clock.wall() })
        .where('move_id', '=', key.moveId)
        .where('device_id', '=', key.deviceId)
        .where('state', 'not in', [...finalStates]),
    );
  }

  function mayGo(db: RegistryDb, deviceId: string, issuedAtMs: number): Result<void> {
    const device = db.first(
      qb.selectFrom('devices').select(['status', 'moved_to']).where('device_id', '=', deviceId),
    );
    if (device === undefined) return refuse('device-unknown', `there is no device ${deviceId}`);
    const standing = standingOf(device);
    if (standing !== 'active') return refuse(`device-${standing}`, `device ${deviceId} follows no order`);
    const newer = db.first(
      qb
        .selectFrom('move_devices')
        .innerJoin('move_orders', 'move_orders.move_id', 'move_devices.move_id')
        .select('move_orders.move_id')
        .where('device_id', '=', deviceId)
        .where('issued_at_ms', '>=', issuedAtMs),
    );
    return newer === undefined
      ? ok()
      : refuse('move-replayed', `order ${newer.move_id} for ${deviceId} is not older`);
  }

  function applyIn(db: RegistryDb, order: MoveOrder, envelope: Envelope, by: string): Result<boolean> {
    const { moveId, from, to, issuedAtMs, expiresAtMs } = order;
    const known = qb.selectFrom('move_orders').select('move_id').where('move_id', '=', moveId);
    if (db.first(known) !== undefined) return ok(false);
    if (expiresAtMs <= clock.wall()) return refuse('move-expired', `it ended at ${expiresAtMs} (Unix ms)`);
    for (const deviceId of order.deviceIds) {
      const may = mayGo(db, deviceId, issuedAtMs);
      if (!may.ok) return may;
    }
    const nowMs = clock.wall();
    db.run(
      qb
        .updateTable('move_devices')
        .set({ state: 'replaced', at_ms: nowMs })
        .where('device_id', 'in', order.deviceIds)
        .where('state', 'not in', [...finalStates]),
    );
    db.run(
      qb.insertInto('move_orders').values({
        ...{ move_id: moveId, envelope: toColumn(envelope), from_region: from, to_region: to.region },
        ...{ issued_at_ms: issuedAtMs, expires_at_ms: expiresAtMs, applied_by: by, applied_at_ms: nowMs },
      }),
    );
    for (const deviceId of order.deviceIds) {
      const row = { move_id: moveId, device_id: deviceId, state: 'ordered', reason: null, at_ms: nowMs };
      db.run(qb.insertInto('move_devices').values(row));
      const detail = `to ${to.region} by order ${moveId}, handed in by ${by}`;
      events.recordIn(db, { source: 'registry', subject: deviceId, code: 'move-ordered', detail });
    }
    return ok(true);
  }

  function listIn(db: RegistryDb): MoveView[] {
    const devices = db.all(qb.selectFrom('move_devices').selectAll().orderBy('device_id'));
    const nowMs = clock.wall();
    return db
      .all(qb.selectFrom('move_orders').selectAll().orderBy('issued_at_ms', 'desc').orderBy('move_id'))
      .map((row) => ({
        moveId: row.move_id,
        from: row.from_region,
        to: row.to_region,
        issuedAtMs: row.issued_at_ms,
        expiresAtMs: row.expires_at_ms,
        appliedBy: row.applied_by,
        appliedAtMs: row.applied_at_ms,
        devices: devices
          .filter((device) => device.move_id === row.move_id)
          .map((device) => ({
            id: device.device_id,
            state: shownState(device.state as MoveStateName, row.expires_at_ms, nowMs),
            reason: fromNullableColumn<Reason>(device.reason),
            atMs: device.at_ms,
          })),
      }));
  }

  const isUnderWay = (db: RegistryDb, key: { moveId: string; deviceId: string }): boolean =>
    db.first(
      qb
        .selectFrom('move_devices')
        .select('state')
        .where('move_id', '=', key.moveId)
        .where('device_id', '=', key.deviceId)
        .where('state', 'not in', [...finalStates]),
    ) !== undefined;

  /** Whether the device itself says, later than all it said here, that it is in that region. */
  function hasLeft(
    db: RegistryDb,
    peer: string,
    item: StreamItem,
  ): { deviceId: string; moveId: string } | null {
    const body = movedItemSchema.safeParse(item.body);
    if (!body.success) return null;
    const { deviceId, moveId, report } = body.data;
    const device = db.first(qb.selectFrom('devices').selectAll().where('device_id', '=', deviceId));
    if (device === undefined || device.moved_to !== null) return null;
    // It was let in anew and is on its way here: that it left before was heard late, or is told again.
    if (device.move_id !== null && !isUnderWay(db, { moveId, deviceId })) return null;
    const opened = openEnvelope(report, payloadTypes.report, [new Uint8Array(device.public_key)], 1);
    const read = opened.ok ? readSignedBody(reportSchema, opened.value, 'message-malformed') : opened;
    const said =
      read.ok && read.value.deviceId === deviceId && read.value.region === peer ? read.value : null;
    if (said === null) {
      const detail = `${peer} says that it is there, and shows no report of its own that says so`;
      events.recordIn(db, {
        source: 'registry',
        subject: deviceId,
        code: 'report-signature-invalid',
        detail,
      });
      return null;
    }
    // Of an earlier stay there: it came back since.
    return said.counter > device.report_counter ? { deviceId, moveId } : null;
  }

  function letGo(
    db: RegistryDb,
    peer: string,
    { deviceId, moveId }: { deviceId: string; moveId: string },
  ): void {
    const nowMs = clock.wall();
    const device = db.first(
      qb.selectFrom('devices').select(['status', 'telemetry_epoch']).where('device_id', '=', deviceId),
    );
    if (device === undefined) return;
    // A revoked key stays revoked, wherever it is used.
    const status = device.status === 'revoked' ? 'revoked' : 'quarantined';
    db.run(
      qb
        .updateTable('devices')
        .set({ status, moved_to: peer, status_at_ms: nowMs })
        .where('device_id', '=', deviceId),
    );
    db.run(
      qb
        .insertInto('moved_epochs')
        .values({ device_id: deviceId, epoch: device.telemetry_epoch, to_region: peer, at_ms: nowMs })
        .onConflict((conflict) => conflict.doNothing()),
    );
    setState(db, { moveId, deviceId }, 'moved', null);
    const detail = `it is in ${peer} now`;
    events.recordIn(db, { source: 'registry', subject: deviceId, code: 'device-moved', detail });
    log.emit('info', 'device.moved', { deviceId, moveId, to: peer });
  }

  async function afterLeaving(deviceIds: readonly string[]): Promise<void> {
    for (const deviceId of deviceIds) await parts.disconnect(deviceId);
    await director.publish(deviceIds);
    for (const deviceId of deviceIds) parts.changed({ kind: 'member', deviceId });
  }

  return {
    async apply(envelope, by) {
      const root = trustRoot(housePolicy, await repository.catalogueRoot());
      const opened = root.ok ? openMove(envelope, root.value) : root;
      if (!opened.ok) return opened;
      const { order } = opened.value;
      if (order.from !== region)
        return refuse('move-other-region', `it is for devices of ${order.from}; this is ${region}`);
      const applied = await store.tx((db) => applyIn(db, order, envelope, by));
      if (!applied.ok) return applied;
      const { moveId, deviceIds, to } = order;
      if (applied.value)
        log.emit('info', 'device.move.applied', { moveId, to: to.region, devices: deviceIds.length, by });
      await director.publish(deviceIds);
      const view = (await store.tx(listIn)).find((one) => one.moveId === moveId);
      return view === undefined ? refuse('internal', `move ${moveId} was not stored`) : ok(view);
    },

    async sign(bytes) {
      const order = readMove(bytes);
      if (!order.ok) return order;
      const root = trustRoot(housePolicy, await repository.catalogueRoot());
      if (!root.ok) return root;
      const signers = (root.value.roles.get('root')?.keys ?? []).flatMap(
        ({ publicKey }) => keyring.held(publicKey) ?? [],
      );
      if (signers.length === 0)
        return refuse('keys-not-held', 'no key of the catalogue’s root lies on this registry’s disk');
      return ok(signMove(bytes, signers));
    },

    list: () => store.tx(listIn),

    reportedIn(db, deviceId, { moveId, state, reason }) {
      const ended = reason?.code === 'move-expired' ? 'expired' : 'refused';
      setState(db, { moveId, deviceId }, state === 'ended' ? ended : state, reason);
    },

    incoming: {
      name: 'moved',
      takeIn(db, peer, items) {
        for (const item of items) {
          const who = hasLeft(db, peer, item);
          if (who === null) continue;
          letGo(db, peer, who);
          left.push(who.deviceId);
        }
      },
      taken() {
        const these = left;
        left = [];
        if (these.length > 0) tasks.run('devices moved', () => afterLeaving(these));
      },
    },
  };
}
