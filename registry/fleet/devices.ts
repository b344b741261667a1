// Why: the devices as people see them and the few things people do to them: label, revoke, release.
// Trusts: its callers to have checked the right. Must never: let a revoked device keep its connection.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { DeviceView } from '../../shared/wire/http.ts';
import { describeIssues, type Labels, labelsSchema } from '../../shared/wire/messages.ts';
import type { NewAuditEntry } from '../audit/audit.ts';
import type { RegistryCore } from '../core.ts';
import { movesOf, type Standing, standingOf } from '../moves/standing.ts';
import type { DeviceModelsTable, DevicesTable } from '../store/fleet-tables.ts';
import type { RegistryDb } from '../store/open.ts';
import { fromColumn, fromNullableColumn, toColumn } from './columns.ts';
import type { Director } from './director.ts';
import type { FleetEvents } from './events.ts';
import type { FleetChange } from './fleet.ts';
import { fleetLimits } from './limits.ts';

export type { Standing };

export interface Devices {
  list(): Promise<DeviceView[]>;
  /** Refusal: `device-unknown`. */
  show(deviceId: string): Promise<Result<DeviceView>>;
  /** Null where it never enrolled here. */
  standing(deviceId: string): Promise<Standing | null>;
  /** A null value removes a label. Refusals: `device-unknown`, `input-invalid`. */
  label(deviceId: string, patch: Record<string, string | null>): Promise<Result<DeviceView>>;
  /** Ends its connection at once; its key is never taken again. Idempotent. Refusal: `device-unknown`. */
  revoke(deviceId: string, by: string): Promise<Result<DeviceView>>;
  /** Two devices use its key: neither may come back before somebody decided. Idempotent. Refusal: `device-unknown`. */
  quarantine(deviceId: string, why: { code: string; detail: string }): Promise<Result<void>>;
  /** Ends a quarantine. Idempotent. Refusals: `device-unknown`, `device-revoked`. */
  release(deviceId: string, by: string): Promise<Result<DeviceView>>;
}

const nothingInOutbox: DeviceView['outbox'] = {
  producedRecords: 0,
  acknowledgedRecords: 0,
  droppedRecords: 0,
  pendingBatches: 0,
  bytes: 0,
};

type ModelView = DeviceView['models'][number];

function modelView(row: DeviceModelsTable): ModelView {
  return {
    name: row.name,
    active: row.active,
    activeSha256: row.active_sha256,
    candidate: row.candidate,
    lastGood: row.last_good,
    state: row.state as ModelView['state'],
    reason: fromNullableColumn(row.reason),
    probe: fromNullableColumn(row.probe),
    progress: fromNullableColumn(row.progress),
  };
}

function deviceView(
  row: DevicesTable,
  models: DeviceModelsTable[],
  region: string,
  move: DeviceView['move'],
): DeviceView {
  return {
    id: row.device_id,
    status: standingOf(row),
    region,
    labels: fromColumn(row.labels),
    timezone: row.timezone,
    presence: row.presence,
    lastSeenMs: row.last_seen_ms,
    models: models.map(modelView),
    agent: fromColumn(row.agent),
    outbox: fromNullableColumn<DeviceView['outbox']>(row.outbox) ?? nothingInOutbox,
    trust: {
      certificateExpiresAtMs: row.certificate_expires_at_ms,
      authority: `ca-${row.authority}`,
      held: fromNullableColumn(row.held),
      epoch: row.reported_epoch,
      verifiedTimeMs: row.verified_time_ms,
      clock: fromNullableColumn(row.clock),
      attacks: row.attacks,
    },
    ...(move === undefined ? {} : { move }),
  };
}

export function createDevices(
  core: RegistryCore,
  parts: {
    events: FleetEvents;
    director: Director;
    changed: (change: FleetChange) => void;
    disconnect: (deviceId: string) => Promise<void>;
  },
): Devices {
  const { store, audit, clock, log, region } = core;
  const { qb } = store;
  const { events, director, changed, disconnect } = parts;

  const rowIn = (db: RegistryDb, deviceId: string): DevicesTable | undefined =>
    db.first(qb.selectFrom('devices').selectAll().where('device_id', '=', deviceId));

  const unknown = (deviceId: string) => refuse('device-unknown', `there is no device ${deviceId}`);

  async function show(deviceId: string): Promise<Result<DeviceView>> {
    return store.tx((db) => {
      const row = rowIn(db, deviceId);
      if (row === undefined) return unknown(deviceId);
      const models = db.all(
        qb.selectFrom('device_models').selectAll().where('device_id', '=', deviceId).orderBy('name'),
      );
      return ok(deviceView(row, models, region, movesOf(db, qb, row, clock.wall())));
    });
  }

  /**
   * Nobody knows which of the two devices goes on: boot and counter begin anew with the first report that knows
   * the assignment issued here. Reports of both from before know an older one and are never taken again.
   */
  function beginReportsAnew(db: RegistryDb, deviceId: string): void {
    const epoch = director.issueIn(db, deviceId, { renew: true });
    db.run(
      qb
        .updateTable('devices')
        .set({ report_anew: 1, report_from_epoch: epoch })
        .where('device_id', '=', deviceId),
    );
  }

  /** Changes the standing with an event beside it; refused or unchanged where `next` says so. */
  async function stand(
    deviceId: string,
    next: (present: Standing) => Result<DevicesTable['status']>,
    event: { code: string; detail: string },
    /** Beside it in the audit record, where no person asked for it. */
    audited?: NewAuditEntry,
  ): Promise<Result<boolean>> {
    return store.tx((db) => {
      const row = rowIn(db, deviceId);
      if (row === undefined) return unknown(deviceId);
      const status = next(standingOf(row));
      if (!status.ok) return status;
      if (status.value === row.status) return ok(false);
      db.run(
        qb
          .updateTable('devices')
          .set({ status: status.value, status_at_ms: clock.wall() })
          .where('device_id', '=', deviceId),
      );
      events.recordIn(db, { source: 'registry', subject: deviceId, ...event });
      if (audited !== undefined) audit.appendIn(db, audited);
      if (row.status === 'quarantined' && status.value === 'active') beginReportsAnew(db, deviceId);
      else director.issueIn(db, deviceId);
      return ok(true);
    });
  }

  return {
    show,

    async list() {
      return store.tx((db) => {
        const models = new Map<string, DeviceModelsTable[]>();
        for (const model of db.all(qb.selectFrom('device_models').selectAll().orderBy('name'))) {
          const those = models.get(model.device_id);
          if (those === undefined) models.set(model.device_id, [model]);
          else those.push(model);
        }
        const ordered = new Set(
          db.all(qb.selectFrom('move_devices').select('device_id').distinct()).map((row) => row.device_id),
        );
        const moved = (row: DevicesTable): boolean =>
          row.moved_to !== null || row.moved_from !== null || ordered.has(row.device_id);
        return db
          .all(qb.selectFrom('devices').selectAll().orderBy('enrolled_at_ms').orderBy('device_id'))
          .map((row) => {
            const move = moved(row) ? movesOf(db, qb, row, clock.wall()) : undefined;
            return deviceView(row, models.get(row.device_id) ?? [], region, move);
          });
      });
    },

    async standing(deviceId) {
      const row = await store.tx((db) =>
        db.first(qb.selectFrom('devices').select(['status', 'moved_to']).where('device_id', '=', deviceId)),
      );
      return row === undefined ? null : standingOf(row);
    },

    async label(deviceId, patch) {
      const labelled = await store.tx((db): Result<boolean> => {
        const row = rowIn(db, deviceId);
        if (row === undefined) return unknown(deviceId);
        const merged: Record<string, string | null> = { ...fromColumn<Labels>(row.labels), ...patch };
        const given = Object.entries(merged).filter(([, value]) => value !== null);
        const labels = labelsSchema.safeParse(Object.fromEntries(given));
        if (!labels.success) return refuse('input-invalid', describeIssues(labels.error));
        if (given.length > fleetLimits.labelsMax) {
          return refuse('input-invalid', `a device has at most ${fleetLimits.labelsMax} labels`);
        }
        if (toColumn(labels.data) === row.labels) return ok(false);
        db.run(
          qb
            .updateTable('devices')
            .set({ labels: toColumn(labels.data) })
            .where('device_id', '=', deviceId),
        );
        director.issueIn(db, deviceId);
        return ok(true);
      });
      if (!labelled.ok) return labelled;
      if (labelled.value) {
        log.emit('info', 'device.labelled', { deviceId });
        await director.publish([deviceId]);
        changed({ kind: 'member', deviceId });
      }
      return show(deviceId);
    },

    async revoke(deviceId, by) {
      const revoked = await stand(deviceId, () => ok('revoked'), {
        code: 'device-revoked',
        detail: `by ${by}`,
      });
      if (!revoked.ok) return revoked;
      if (revoked.value) log.emit('warn', 'device.revoked', { deviceId, by });
      // Also where nothing changed: an earlier call may have been cut off before this.
      await disconnect(deviceId);
      await director.publish([deviceId]);
      if (revoked.value) changed({ kind: 'member', deviceId });
      return show(deviceId);
    },

    async quarantine(deviceId, why) {
      const changedNow = await stand(
        deviceId,
        // What moved away is shut out already.
        (present) => ok(present === 'active' || present === 'moved' ? 'quarantined' : present),
        why,
        {
          ...{ actor: 'registry', via: 'device', action: 'devices.quarantine', subject: deviceId },
          ...{ reason: why.detail, outcome: 'done', code: why.code, rule: null, address: null, detail: {} },
        },
      );
      if (!changedNow.ok) return changedNow;
      if (changedNow.value) log.emit('warn', 'device.quarantined', { deviceId, ...why });
      await disconnect(deviceId);
      await director.publish([deviceId]);
      if (changedNow.value) changed({ kind: 'member', deviceId });
      return ok();
    },

    async release(deviceId, by) {
      const released = await stand(
        deviceId,
        (present) => {
          if (present === 'revoked')
            return refuse('device-revoked', 'a revoked key stays revoked; enrol it again');
          return present === 'moved' ? refuse('device-moved', 'it is of another region now') : ok('active');
        },
        { code: 'device-released', detail: `by ${by}` },
      );
      if (!released.ok) return released;
      if (released.value) {
        log.emit('info', 'device.released', { deviceId, by });
        await director.publish([deviceId]);
        changed({ kind: 'member', deviceId });
      }
      return show(deviceId);
    },
  };
}
