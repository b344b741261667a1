// Why: takes what a device signs about itself: what runs, in which state, what it refused.
// Trusts: the signature of the enrolled key, nothing else. Must never: take a report twice or an older one.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Result, refuse } from '../../shared/kernel/result.ts';
import { checkReport, noReportYet } from '../../shared/trust/report.ts';
import { type Envelope, parseMessage, type Report, signedMessageSchema } from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import type { DevicesTable } from '../store/fleet-tables.ts';
import type { RegistryDb } from '../store/open.ts';
import { toColumn, toNullableColumn } from './columns.ts';
import type { FleetEvents } from './events.ts';
import type { FleetChange } from './fleet.ts';

export interface Reports {
  /** A message on the device's `reported` topic. */
  handle(deviceId: string, payload: Uint8Array): Promise<void>;
}

/** `repeated`: the same report delivered again (MQTT QoS 1); nothing to do and nothing to blame. */
type Taken = 'repeated' | Report;

export function createReports(
  core: RegistryCore,
  parts: { events: FleetEvents; changed: (change: FleetChange) => void },
): Reports {
  const { store, clock, log, region } = core;
  const { qb } = store;

  function check(device: DevicesTable, envelope: Envelope): Result<Report> {
    const checked = checkReport({
      envelope,
      devicePublicKey: new Uint8Array(device.public_key),
      deviceId: device.device_id,
      last: { ...noReportYet, counter: device.report_counter },
    });
    if (!checked.ok) return checked;
    if (checked.value.region !== region) {
      return refuse('message-malformed', `a report for the region ${checked.value.region}`);
    }
    return checked;
  }

  function keep(db: RegistryDb, device: DevicesTable, report: Report, sha256: string): void {
    const fresh = report.refusals.filter((refusal) => refusal.id > device.refusal_id_last);
    fresh.sort((a, b) => a.id - b.id);
    for (const { code, detail, atMs } of fresh) {
      parts.events.recordIn(db, { source: 'device', subject: device.device_id, code, detail, atMs });
    }
    db.run(
      qb
        .updateTable('devices')
        .set({
          report_counter: report.counter,
          report_sha256: sha256,
          reported_epoch: report.epoch,
          verified_time_ms: report.verifiedTimeMs,
          refusal_id_last: fresh.at(-1)?.id ?? device.refusal_id_last,
          timezone: report.timezone,
          agent: toColumn(report.agent),
          outbox: report.outbox === null ? device.outbox : toColumn(report.outbox),
          last_seen_ms: clock.wall(),
        })
        .where('device_id', '=', device.device_id),
    );
    db.run(qb.deleteFrom('device_models').where('device_id', '=', device.device_id));
    // Once per name: a device that names one twice has only itself confused.
    for (const model of new Map(report.models.map((entry) => [entry.name, entry])).values()) {
      db.run(
        qb.insertInto('device_models').values({
          device_id: device.device_id,
          name: model.name,
          state: model.state,
          active: model.active,
          candidate: model.candidate,
          last_good: model.lastGood,
          target: model.target,
          rollout_id: model.rolloutId,
          reason: toNullableColumn(model.reason),
          progress: toNullableColumn(model.progress),
          probe: toNullableColumn(model.probe),
        }),
      );
    }
  }

  function take(db: RegistryDb, deviceId: string, envelope: Envelope, sha256: string): Result<Taken> {
    const device = db.first(qb.selectFrom('devices').selectAll().where('device_id', '=', deviceId));
    if (device === undefined) return refuse('device-unknown', 'it is not enrolled here');
    if (device.status !== 'active') return refuse(`device-${device.status}`, 'it may not report');
    if (device.report_sha256 === sha256) return { ok: true, value: 'repeated' };
    const checked = check(device, envelope);
    if (checked.ok) keep(db, device, checked.value, sha256);
    return checked;
  }

  return {
    async handle(deviceId, payload) {
      const message = parseMessage(signedMessageSchema, payload);
      // By the signed payload: nothing is ever identified by its signature's bytes.
      const taken: Result<Taken> = message.ok
        ? await store.tx((db) =>
            take(
              db,
              deviceId,
              message.value.envelope,
              sha256Hex(Buffer.from(message.value.envelope.payload, 'base64')),
            ),
          )
        : message;
      if (!taken.ok) {
        log.emit('warn', 'report.refused', { deviceId, ...taken.refusal });
        await parts.events.recordStranger({ source: 'registry', subject: deviceId, ...taken.refusal });
      } else if (taken.value !== 'repeated') {
        log.emit('debug', 'report.accepted', {
          deviceId,
          counter: taken.value.counter,
          epoch: taken.value.epoch,
        });
        parts.changed({ kind: 'report', deviceId });
      }
    },
  };
}
