// Why: answers a device that shows a claim: checks the claim and the device's key, issues its certificate.
// Trusts: the broker, which let only the claim's own certificate publish on this topic.
// Must never: spend a use twice for one key, or issue for a key that did not sign its request.

import { readDeviceRequest } from '../../shared/host/certificates.ts';
import { asFleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkJoining } from '../../shared/trust/device-move.ts';
import type { Joining } from '../../shared/wire/device-move.ts';
import {
  type EnrolReply,
  type EnrolRequest,
  encodeMessage,
  enrolRequestSchema,
  type Labels,
  parseMessage,
  schemaVersion,
} from '../../shared/wire/messages.ts';
import { enrolReplyTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import type { Arrivals } from '../moves/arrivals.ts';
import type { RegistryDb } from '../store/open.ts';
import type { DeviceCertificate, DeviceCertificates } from './certificates.ts';
import { fromColumn, fromNullableColumn, toColumn } from './columns.ts';
import type { Director } from './director.ts';
import type { FleetEvents } from './events.ts';
import type { FleetChange } from './fleet.ts';
import { fleetLimits } from './limits.ts';
import { messageId } from './message-id.ts';

export interface Enrolment {
  /** One request; always answered on the attempt's reply topic. */
  handle(bus: RegistryBus, from: { claimId: string; attempt: string }, payload: Uint8Array): Promise<void>;
}

interface Requested {
  claimId: string;
  deviceId: string;
  publicKey: Uint8Array;
  request: EnrolRequest;
  /** The device's own word, with a claim that names its devices. */
  joining: Joining | null;
}

export function createEnrolment(
  core: RegistryCore,
  parts: {
    events: FleetEvents;
    director: Director;
    certificates: DeviceCertificates;
    arrivals: Pick<Arrivals, 'admittedIn'>;
    changed: (change: FleetChange) => void;
  },
): Enrolment {
  const { store, authorities, repository, clock, entropy, log, region } = core;
  const { qb } = store;

  /** Spends a use, unless this key has spent one of this claim before. The certificate issued then, or null. */
  function spend(
    db: RegistryDb,
    { claimId, deviceId, joining }: Requested,
  ): Result<{ labels: Labels; certificate: string | null; authority: number }> {
    const nowMs = clock.wall();
    const claim = db.first(qb.selectFrom('claims').selectAll().where('claim_id', '=', claimId));
    if (claim === undefined) return refuse('claim-unknown', `no claim ${claimId} was made here`);
    const device = db.first(qb.selectFrom('devices').select('status').where('device_id', '=', deviceId));
    if (device?.status === 'revoked') {
      return refuse('device-revoked', `the key of ${deviceId} was revoked; enrol with a new key`);
    }
    // Whoever has the file of such a claim has nothing yet: the device's key must say that it wants to come.
    const named = fromNullableColumn<string[]>(claim.device_ids);
    if (named !== null && !named.includes(deviceId))
      return refuse('claim-other-device', `claim ${claimId} is not for ${deviceId}`);
    if (named !== null && joining === null)
      return refuse('joining-invalid', `claim ${claimId} needs the device’s own word that it joins`);
    const labels = fromColumn<Labels>(claim.labels);
    const { authority } = claim;
    const use = db.first(
      qb
        .selectFrom('claim_uses')
        .select('certificate')
        .where('claim_id', '=', claimId)
        .where('device_id', '=', deviceId),
    );
    // A crash after the answer was sent burns nothing, even where the claim has ended since.
    if (use !== undefined) return ok({ labels, certificate: use.certificate, authority });
    if (nowMs >= claim.expires_at_ms) {
      return refuse('claim-expired', `the claim ended at ${claim.expires_at_ms} (Unix ms)`);
    }
    if (claim.used >= claim.uses) return refuse('claim-used-up', `all ${claim.uses} uses are spent`);
    db.run(
      qb
        .updateTable('claims')
        .set({ used: claim.used + 1 })
        .where('claim_id', '=', claimId),
    );
    db.run(
      qb
        .insertInto('claim_uses')
        .values({ claim_id: claimId, device_id: deviceId, certificate: null, at_ms: nowMs }),
    );
    return ok({ labels, certificate: null, authority });
  }

  /** The device and its certificate, stored together; what is there of an earlier enrolment stays. */
  function admit(
    db: RegistryDb,
    by: Requested,
    issued: { labels: Labels; certificate: DeviceCertificate },
  ): void {
    const nowMs = clock.wall();
    db.run(
      qb
        .updateTable('claim_uses')
        .set({ certificate: issued.certificate.certificate })
        .where('claim_id', '=', by.claimId)
        .where('device_id', '=', by.deviceId),
    );
    const standing = {
      status: 'active' as const,
      claim_id: by.claimId,
      labels: toColumn(issued.labels),
      timezone: by.request.timezone,
      agent: toColumn(by.request.agent),
      enrolled_at_ms: nowMs,
      certificate_expires_at_ms: issued.certificate.expires_at_ms,
      authority: issued.certificate.authority,
      status_at_ms: nowMs,
      // Here, whatever it was before.
      moved_to: null,
      kept: null,
    };
    db.run(
      qb
        .insertInto('devices')
        .values({
          ...standing,
          device_id: by.deviceId,
          public_key: by.publicKey,
          presence: 'unknown',
          presence_at_ms: nowMs,
          last_seen_ms: nowMs,
          outbox: null,
          telemetry_epoch: 0,
          report_counter: 0,
          report_sha256: null,
          reported_epoch: 0,
          verified_time_ms: 0,
          refusal_id_last: 0,
          report_boot: 0,
          report_boot_counter: 0,
          report_session: '',
          report_from_epoch: 0,
          report_anew: 0,
          held: null,
          clock: null,
          attacks: 0,
          moved_from: null,
          move_id: null,
        })
        .onConflict((conflict) =>
          // Its outbox began anew as well: the sequences of an enrolment start at one.
          conflict
            .column('device_id')
            .doUpdateSet((eb) => ({ ...standing, telemetry_epoch: eb('devices.telemetry_epoch', '+', 1) })),
        ),
    );
    parts.certificates.keepIn(db, issued.certificate);
    if (by.joining !== null) parts.arrivals.admittedIn(db, by.joining);
    beginReportsAnew(db, by.deviceId);
    parts.events.recordIn(db, {
      source: 'enrolment',
      subject: by.deviceId,
      code: 'enrolled',
      detail: `with claim ${by.claimId}`,
    });
    core.audit.appendIn(db, {
      ...{ actor: `device:${by.deviceId}`, via: 'device', action: 'devices.enrol', subject: by.deviceId },
      ...{ reason: null, outcome: 'done', code: null, rule: null, address: null },
      detail: { claimId: by.claimId },
    });
  }

  /**
   * The same key enrolled again may be on a device that was wiped: its counters begin anew, with the first report
   * that knows an assignment issued from here on, so that none from before can be repeated.
   */
  function beginReportsAnew(db: RegistryDb, deviceId: string): void {
    const present = db.first(qb.selectFrom('assignments').select('epoch').where('device_id', '=', deviceId));
    if (present === undefined) return;
    const epoch = parts.director.issueIn(db, deviceId, { renew: true });
    db.run(
      qb
        .updateTable('devices')
        .set({ report_anew: 1, report_from_epoch: epoch })
        .where('device_id', '=', deviceId),
    );
  }

  async function enrol(claimId: string, payload: Uint8Array): Promise<Result<EnrolReply['result']>> {
    const parsed = parseMessage(enrolRequestSchema, payload);
    if (!parsed.ok) return refuse('enrolment-request-invalid', parsed.refusal.detail);
    const key = await readDeviceRequest(parsed.value.csr);
    if (!key.ok) return key;
    const { joining: envelope } = parsed.value;
    const devicePublicKey = key.value.publicKey;
    const joining =
      envelope === undefined ? null : checkJoining({ envelope, devicePublicKey, claimId, region });
    if (joining?.ok === false) return joining;
    const by: Requested = { claimId, request: parsed.value, ...key.value, joining: joining?.value ?? null };
    const spent = await store.tx((db) => spend(db, by));
    if (!spent.ok) return spent;
    // What the operator wrote into the claim wins over what the device says of itself.
    const labels = { ...(by.joining ?? parsed.value).labels, ...spent.value.labels };
    if (Object.keys(labels).length > fleetLimits.labelsMax) {
      return refuse('enrolment-request-invalid', `more than ${fleetLimits.labelsMax} labels`);
    }
    let { certificate } = spent.value;
    if (certificate === null) {
      // By the authority that the claim names: the device can check no other before it has renewed.
      const authority = authorities.inForce(spent.value.authority);
      if (authority === null) {
        return refuse('claim-expired', 'the certificate authority that the claim names was retired');
      }
      const fresh = await parts.certificates.issue(by, authority);
      await store.tx((db) => admit(db, by, { labels, certificate: fresh }));
      certificate = fresh.certificate;
      log.emit('info', 'enrolment.accepted', { deviceId: by.deviceId, claimId });
      parts.changed({ kind: 'member', deviceId: by.deviceId });
    }
    // Also where the certificate was issued before: an earlier attempt may have been cut off here.
    await parts.director.equip([by.deviceId]);
    const device = await store.tx((db) =>
      db.first(qb.selectFrom('devices').selectAll().where('device_id', '=', by.deviceId)),
    );
    const roots = await claimedRoots(claimId);
    return ok({
      status: 'accepted',
      deviceId: by.deviceId,
      certificate,
      labels: device === undefined ? labels : fromColumn<Labels>(device.labels),
      catalogueRoot: Buffer.from(roots.catalogue).toString('base64'),
      regionRoot: Buffer.from(roots.region).toString('base64'),
      telemetryEpoch: device?.telemetry_epoch ?? 0,
    });
  }

  /** The roots whose digests the claim names: a claim outlives a rotation, the device walks on from there. */
  async function claimedRoots(claimId: string): Promise<{ catalogue: Uint8Array; region: Uint8Array }> {
    const claim = await store.tx((db) =>
      db.first(
        qb
          .selectFrom('claims')
          .select(['catalogue_root_version as catalogue', 'region_root_version as region'])
          .where('claim_id', '=', claimId),
      ),
    );
    const rootOf = async (name: string, version: number | null | undefined): Promise<Uint8Array | null> =>
      version === null || version === undefined ? null : repository.file(name.replace('N', `${version}`));
    return {
      catalogue: (await rootOf('N.root.json', claim?.catalogue)) ?? (await repository.catalogueRoot()),
      region: (await rootOf('region/N.root.json', claim?.region)) ?? (await repository.regionRoot()),
    };
  }

  async function refused(claimId: string, refusal: Refusal): Promise<void> {
    log.emit('warn', 'enrolment.refused', { claimId, code: refusal.code, detail: refusal.detail });
    await parts.events.recordStranger({ source: 'enrolment', subject: claimId, ...refusal });
  }

  return {
    async handle(bus, { claimId, attempt }, payload) {
      const reply = async (result: EnrolReply['result']): Promise<void> => {
        const message: EnrolReply = {
          schemaVersion,
          messageId: messageId(entropy),
          sentAtMs: clock.wall(),
          result,
        };
        await bus.publish(enrolReplyTopic(region, claimId, attempt), encodeMessage(message), {
          qos: 1,
          retain: false,
        });
      };
      try {
        const result = await enrol(claimId, payload);
        if (!result.ok) await refused(claimId, result.refusal);
        await reply(result.ok ? result.value : { status: 'refused', ...result.refusal });
      } catch (thrown) {
        // The device tries again on `internal`; without an answer it would only run into its timeout.
        const error = asFleetError(thrown);
        await reply({ status: 'refused', code: error.code, detail: 'the registry could not enrol it now' });
        unwrap(refuse(error.code, error.message));
      }
    },
  };
}
