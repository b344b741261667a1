// Why: a device gets its next certificate over the bus, also where the present one expired while it was off, and
// with it the list of authorities that may issue for this fleet (DESIGN 3).
// Trusts: the broker for who asks; the request's own signature for the key.
// Must never: issue for another key than the device's, or for a device that was shut out.

import { readDeviceRequest } from '../../shared/host/certificates.ts';
import { asFleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { signAuthorities } from '../../shared/trust/authorities.ts';
import {
  encodeMessage,
  parseMessage,
  type RenewReply,
  renewRequestSchema,
  schemaVersion,
} from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import type { RegistryDb } from '../store/open.ts';
import type { DeviceCertificate, DeviceCertificates } from './certificates.ts';
import type { FleetEvents } from './events.ts';
import { messageId } from './message-id.ts';

export interface Renewal {
  /** A message on the device's `renew` topic; always answered. */
  handle(bus: RegistryBus, deviceId: string, payload: Uint8Array): Promise<void>;
}

export function createRenewal(
  core: RegistryCore,
  parts: { events: FleetEvents; certificates: DeviceCertificates },
): Renewal {
  const { store, keyring, authorities, clock, entropy, log, region } = core;
  const { qb } = store;
  const { certificates, events } = parts;

  function mayRenew(db: RegistryDb, deviceId: string): Result<void> {
    const device = db.first(qb.selectFrom('devices').select('status').where('device_id', '=', deviceId));
    if (device === undefined) return refuse('device-unknown', 'it is not enrolled here');
    if (device.status !== 'active') return refuse(`device-${device.status}`, 'it gets no certificate');
    return ok();
  }

  async function renew(deviceId: string, payload: Uint8Array): Promise<Result<DeviceCertificate>> {
    const request = parseMessage(renewRequestSchema, payload);
    if (!request.ok) return request;
    const key = await readDeviceRequest(request.value.csr);
    if (!key.ok) return key;
    if (key.value.deviceId !== deviceId) {
      return refuse('renewal-refused', `the request is for the key of ${key.value.deviceId}`);
    }
    const [authority] = authorities.present();
    const repeatedIn = (db: RegistryDb): Result<DeviceCertificate | null> => {
      const may = mayRenew(db, deviceId);
      return may.ok ? ok(certificates.repeatedIn(db, deviceId, authority)) : may;
    };
    const repeated = await store.tx(repeatedIn);
    if (!repeated.ok) return repeated;
    if (repeated.value !== null) return ok(repeated.value);
    const fresh = await certificates.issue(key.value, authority);
    return store.tx((db) => {
      // Asked twice at once, or shut out while it was made.
      const meanwhile = repeatedIn(db);
      if (!meanwhile.ok) return meanwhile;
      if (meanwhile.value !== null) return ok(meanwhile.value);
      certificates.keepIn(db, fresh);
      return ok(fresh);
    });
  }

  async function refused(deviceId: string, refusal: Refusal): Promise<void> {
    log.emit('warn', 'certificate.denied', { deviceId, ...refusal });
    await events.recordStranger({ source: 'registry', subject: deviceId, ...refusal });
  }

  return {
    async handle(bus, deviceId, payload) {
      const reply = async (result: RenewReply['result']): Promise<void> => {
        const message: RenewReply = {
          schemaVersion,
          messageId: messageId(entropy),
          sentAtMs: clock.wall(),
          result,
        };
        await bus.publish(deviceTopic(region, deviceId, 'renew/reply'), encodeMessage(message), {
          qos: 1,
          retain: false,
        });
      };
      try {
        const renewed = await renew(deviceId, payload);
        if (!renewed.ok) {
          await refused(deviceId, renewed.refusal);
          await reply({ status: 'refused', ...renewed.refusal });
          return;
        }
        const list = authorities.present().map((one) => one.certificatePem);
        const statement = { schemaVersion, region, issuedAtMs: clock.wall(), certificates: list } as const;
        await reply({
          status: 'accepted',
          certificate: renewed.value.certificate,
          authorities: signAuthorities(statement, keyring.signer('command')),
        });
      } catch (thrown) {
        // The device tries again on `internal`; without an answer it would only run into its timeout.
        const error = asFleetError(thrown);
        await reply({ status: 'refused', code: error.code, detail: 'the registry could not renew it now' });
        unwrap(refuse(error.code, error.message));
      }
    },
  };
}
