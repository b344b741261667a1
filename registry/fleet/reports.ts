// Why: takes what a device signs about itself: what runs, in which state, what it refused.
// Trusts: the signature of the enrolled key, nothing else. Must never: take a report twice or an older one.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkReport, type ReportStanding } from '../../shared/trust/report.ts';
import { type Envelope, parseMessage, type Report, signedMessageSchema } from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import type { Arrivals } from '../moves/arrivals.ts';
import type { MoveOrders } from '../moves/orders.ts';
import type { DevicesTable } from '../store/fleet-tables.ts';
import { fixed, type RegistryDb } from '../store/open.ts';
import type { DeviceCertificates } from './certificates.ts';
import { toColumn, toNullableColumn } from './columns.ts';
import type { FleetEvents } from './events.ts';
import type { FleetChange } from './fleet.ts';
import { heldRoles, newerThan } from './held-versions.ts';
import { createRate } from './rate.ts';

export interface Reports {
  /** A message on the device's `reported` topic. */
  handle(deviceId: string, payload: Uint8Array): Promise<void>;
}

/** `repeated`: the same report delivered again (MQTT QoS 1); nothing to do and nothing to blame. */
type Taken = 'repeated' | Report;

function standingOf(device: DevicesTable): ReportStanding {
  return {
    counter: device.report_counter,
    payloadSha256: device.report_sha256,
    boot: device.report_boot,
    bootCounter: device.report_boot_counter,
    session: device.report_session,
    fromEpoch: device.report_anew === 1 ? device.report_from_epoch : null,
  };
}

const deviceQuery = fixed((qb, deviceId: string) =>
  qb.selectFrom('devices').selectAll().where('device_id', '=', deviceId),
);

const issuedQuery = fixed((qb, deviceId: string) =>
  qb.selectFrom('assignments').select(['epoch', 'issued_at_ms']).where('device_id', '=', deviceId),
);

const forgetModels = fixed((qb, deviceId: string) =>
  qb.deleteFrom('device_models').where('device_id', '=', deviceId),
);

export function createReports(
  core: RegistryCore,
  parts: {
    events: FleetEvents;
    certificates: DeviceCertificates;
    arrivals: Pick<Arrivals, 'reportedIn'>;
    orders: Pick<MoveOrders, 'reportedIn'>;
    changed: (change: FleetChange) => void;
    /** Two devices use this key. */
    cloned: (deviceId: string, refusal: Refusal) => Promise<void>;
    /** The device knows of something that we do not: numbers for the operator, nothing is taken from them. */
    suspect: (deviceId: string, detail: string) => Promise<void>;
    /** It still has an older assignment than it should. */
    republish: (deviceId: string) => Promise<void>;
  },
): Reports {
  const { store, clock, log, region } = core;
  const { qb } = store;

  const { republishAfterMs, republishEveryMs, ratedDevicesMax } = core.limits;
  const republishing = createRate(clock, {
    burst: 1,
    perSecond: 1_000 / republishEveryMs,
    keysMax: ratedDevicesMax,
  });

  function check(device: DevicesTable, envelope: Envelope): Result<Report> {
    const checked = checkReport({
      envelope,
      devicePublicKey: new Uint8Array(device.public_key),
      deviceId: device.device_id,
      last: standingOf(device),
    });
    if (!checked.ok) return checked;
    if (checked.value.region !== region) {
      return refuse('message-malformed', `a report for the region ${checked.value.region}`);
    }
    // Also after the numbers began anew: a report from before may well have higher ones.
    if (checked.value.epoch < device.report_from_epoch) {
      return refuse('report-replayed', `from before epoch ${device.report_from_epoch}`);
    }
    return checked;
  }

  /** The epoch of ours that it holds. A higher one is of a time that this registry does not remember. */
  function knownEpoch(db: RegistryDb, report: Report): number {
    const issued = db.first(issuedQuery(qb, report.deviceId));
    return report.epoch > (issued?.epoch ?? 0) ? 0 : report.epoch;
  }

  function keep(db: RegistryDb, device: DevicesTable, report: Report, sha256: string): void {
    const fresh = report.refusals.filter((refusal) => refusal.id > device.refusal_id_last);
    fresh.sort((a, b) => a.id - b.id);
    for (const { code, detail, atMs, attack } of fresh) {
      const event = { source: 'device', subject: device.device_id, code, detail, atMs } as const;
      parts.events.recordIn(db, attack ? { ...event, attack } : event);
    }
    const nowMs = clock.wall();
    const refusalIds = report.refusals.map((refusal) => refusal.id);
    db.run(
      qb
        .updateTable('devices')
        .set({
          report_counter: report.counter,
          report_sha256: sha256,
          report_boot: report.boot,
          report_boot_counter:
            device.report_anew === 0 && report.boot === device.report_boot
              ? device.report_boot_counter
              : report.counter,
          report_session: report.session,
          report_anew: 0,
          reported_epoch: knownEpoch(db, report),
          verified_time_ms: report.verifiedTimeMs,
          // Another device, or a wiped one, counts its refusals from wherever it is.
          refusal_id_last:
            device.report_anew === 1
              ? Math.max(0, ...refusalIds)
              : (fresh.at(-1)?.id ?? device.refusal_id_last),
          held: report.held === null ? device.held : toColumn(report.held),
          clock:
            report.clock === null
              ? device.clock
              : toColumn({ offsetMs: report.clock.wallMs - nowMs, source: report.clock.source }),
          timezone: report.timezone,
          agent: toColumn(report.agent),
          outbox: report.outbox === null ? device.outbox : toColumn(report.outbox),
          last_seen_ms: nowMs,
        })
        .where('device_id', '=', device.device_id),
    );
    if (report.certificateExpiresAtMs !== null) {
      parts.certificates.heldIn(db, device.device_id, report.certificateExpiresAtMs);
    }
    db.run(forgetModels(qb, device.device_id));
    // Once per name: a device that names one twice has only itself confused.
    for (const model of new Map(report.models.map((entry) => [entry.name, entry])).values()) {
      db.run(
        qb.insertInto('device_models').values({
          device_id: device.device_id,
          name: model.name,
          state: model.state,
          active: model.active,
          active_sha256: model.activeSha256,
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
    const device = db.first(deviceQuery(qb, deviceId));
    if (device === undefined) return refuse('device-unknown', 'it is not enrolled here');
    if (device.status !== 'active') return refuse(`device-${device.status}`, 'it may not report');
    if (device.report_sha256 === sha256) return { ok: true, value: 'repeated' };
    const checked = check(device, envelope);
    if (checked.ok) {
      keep(db, device, checked.value, sha256);
      parts.arrivals.reportedIn(db, device, envelope);
      if (checked.value.move !== undefined) parts.orders.reportedIn(db, deviceId, checked.value.move);
    }
    // It has not taken the assignment yet that its release brought; nobody need be woken.
    else if (device.report_anew === 1 && checked.refusal.code === 'report-replayed') {
      return { ok: true, value: 'repeated' };
    }
    return checked;
  }

  /** Whether the device has verified what is newer than ours, or was never told of what is. */
  async function compare({ deviceId, held, epoch }: Report): Promise<void> {
    const ours = await store.tx((db) => ({
      assignment: db.first(issuedQuery(qb, deviceId)),
      roles: new Map(
        db
          .all(
            qb
              .selectFrom('metadata_roles')
              .select(['role', 'version'])
              .where('role', 'in', Object.values(heldRoles)),
          )
          .map((row) => [row.role, row.version]),
      ),
    }));
    const newer = held === null ? [] : newerThan(ours.roles, held);
    const issued = ours.assignment ?? { epoch: 0, issued_at_ms: 0 };
    if (epoch > issued.epoch) newer.push(`epoch ${epoch}`);
    if (newer.length > 0) await parts.suspect(deviceId, newer.join(', '));
    const isLate = epoch < issued.epoch && clock.wall() - issued.issued_at_ms > republishAfterMs;
    if (isLate && republishing.admit(deviceId)) await parts.republish(deviceId);
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
        if (taken.refusal.code === 'report-cloned') await parts.cloned(deviceId, taken.refusal);
        else await parts.events.recordStranger({ source: 'registry', subject: deviceId, ...taken.refusal });
      } else if (taken.value !== 'repeated') {
        log.emit('debug', 'report.accepted', {
          deviceId,
          counter: taken.value.counter,
          epoch: taken.value.epoch,
        });
        parts.changed({ kind: 'report', deviceId });
        await compare(taken.value);
      }
    },
  };
}
