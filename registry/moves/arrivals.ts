// Why: the new region's part of a move: who joins with a claim that names it, what of it stays as it is, and the word to the
// region that it came from.
// Trusts: the device's own key for what it says of itself. Must never: tell the old region of a device that has not reported
// from here: it might still be there.

import type { Joining } from '../../shared/wire/device-move.ts';
import { activationPolicySchema, type Envelope } from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import { toColumn } from '../fleet/columns.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { OutgoingStream } from '../regions/streams.ts';
import type { DevicesTable } from '../store/fleet-tables.ts';
import type { RegistryDb } from '../store/open.ts';
import { finalStates } from './standing.ts';

export interface Arrivals {
  /** In the transaction that enrols it. */
  admittedIn(db: RegistryDb, joining: Joining): void;
  /** In the transaction that takes a report of it. */
  reportedIn(
    db: RegistryDb,
    device: Pick<DevicesTable, 'device_id' | 'move_id' | 'moved_from'>,
    report: Envelope,
  ): void;
  outgoing: OutgoingStream;
}

export function createArrivals(core: RegistryCore, parts: { events: FleetEvents }): Arrivals {
  const { store, clock, log } = core;
  const { qb } = store;

  /**
   * What it runs becomes what it is to run, where the catalogue here knows it, for nobody here has said anything else yet; the
   * names of the others. What this region wanted of it in an earlier stay is forgotten.
   */
  function takeOver(db: RegistryDb, { deviceId, runs }: Joining): string[] {
    db.run(qb.deleteFrom('desired').where('device_id', '=', deviceId));
    const kept: string[] = [];
    const policy = toColumn(activationPolicySchema.parse({ deadlinesMs: {} }));
    for (const { as, releaseId, manifestSha256 } of runs) {
      const release = db.first(
        qb
          .selectFrom('releases')
          .select(['counter', 'manifest', 'requires'])
          .where('release_id', '=', releaseId)
          .where('manifest_sha256', '=', manifestSha256)
          // One that a home which is none any more had named: the device would refuse it.
          .where('admitted', '=', 1),
      );
      if (release === undefined) {
        kept.push(as);
        continue;
      }
      db.run(
        qb
          .insertInto('desired')
          .values({
            ...{ device_id: deviceId, as_name: as, release_id: releaseId, manifest_sha256: manifestSha256 },
            ...{ manifest_bytes: release.manifest.length, counter: release.counter, rollout_id: null },
            ...{ policy, requires: release.requires },
          })
          .onConflict((conflict) => conflict.doNothing()),
      );
    }
    return kept;
  }

  /**
   * One that was here before and comes from elsewhere had left, whether this region has heard of that or not (orders.ts): what
   * it still has of that stay is taken, and what it was ordered then is over.
   */
  function endEarlierStay(db: RegistryDb, { deviceId, from }: Joining): void {
    const device = db.first(
      qb.selectFrom('devices').select('telemetry_epoch').where('device_id', '=', deviceId),
    );
    if (device === undefined || device.telemetry_epoch === 0) return;
    db.run(
      qb
        .insertInto('moved_epochs')
        .values({
          ...{ device_id: deviceId, epoch: device.telemetry_epoch - 1 },
          ...{ to_region: from, at_ms: clock.wall() },
        })
        .onConflict((conflict) => conflict.doNothing()),
    );
    db.run(
      qb
        .updateTable('move_devices')
        .set({ state: 'moved', reason: null, at_ms: clock.wall() })
        .where('device_id', '=', deviceId)
        .where('state', 'not in', [...finalStates]),
    );
  }

  return {
    admittedIn(db, joining) {
      const { deviceId, from, moveId } = joining;
      endEarlierStay(db, joining);
      const kept = takeOver(db, joining);
      db.run(
        qb
          .updateTable('devices')
          .set({ moved_from: from, move_id: moveId, kept: kept.length === 0 ? null : toColumn(kept) })
          .where('device_id', '=', deviceId),
      );
    },

    reportedIn(db, { device_id: deviceId, move_id: moveId, moved_from: from }, report) {
      if (moveId === null || from === null) return;
      db.run(
        qb.insertInto('move_arrivals').values({
          ...{ device_id: deviceId, from_region: from, move_id: moveId },
          ...{ report: toColumn(report), at_ms: clock.wall() },
        }),
      );
      db.run(qb.updateTable('devices').set({ move_id: null }).where('device_id', '=', deviceId));
      const detail = `it came from ${from} by order ${moveId}`;
      parts.events.recordIn(db, { source: 'registry', subject: deviceId, code: 'device-arrived', detail });
      log.emit('info', 'device.arrived', { deviceId, moveId, from });
    },

    outgoing: {
      name: 'moved',
      flow: 'carried',
      readIn: (db, peer, after, limit) =>
        db
          .all(
            qb
              .selectFrom('move_arrivals')
              .selectAll()
              .where('from_region', '=', peer)
              .where('id', '>', after)
              .orderBy('id')
              .limit(limit),
          )
          .map((row) => ({
            id: row.id,
            body: { deviceId: row.device_id, moveId: row.move_id, report: JSON.parse(row.report) as object },
          })),
    },
  };
}
