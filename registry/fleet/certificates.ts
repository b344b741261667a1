// Why: device certificates, issued in one place and remembered: a list of revoked ones can only name what is
// known, and who asks twice for a lost answer must not get two.
// Trusts: its callers to have checked the device's key and standing; core.authorities for who issues.
// Must never: hand out a certificate that is not stored.

import { issueDeviceCertificate } from '../../shared/host/certificates.ts';
import { readCertificate } from '../../shared/host/revocation-list.ts';
import type { RegistryCore } from '../core.ts';
import type { Authority } from '../signing/authorities.ts';
import { fixed, type RegistryDb } from '../store/open.ts';
import type { CertificatesTable } from '../store/trust-tables.ts';

export type DeviceCertificate = CertificatesTable;

export interface DeviceCertificates {
  /** Makes one; `keepIn` stores it, and only then may it be sent. */
  issue(
    device: { deviceId: string; publicKey: Uint8Array },
    authority: Authority,
  ): Promise<DeviceCertificate>;
  /** With the device's row, in the caller's transaction. */
  keepIn(db: RegistryDb, certificate: DeviceCertificate): void;
  /** What the device would get by asking now where it need not be made: see `renewRepeatMs`. */
  repeatedIn(db: RegistryDb, deviceId: string, authority: Authority): DeviceCertificate | null;
  /** The device says when its certificate ends: that tells which of ours it really holds. */
  heldIn(db: RegistryDb, deviceId: string, expiresAtMs: number): void;
  /** Rows for certificates that an earlier version issued. Idempotent. */
  takeUpOlder(): Promise<void>;
}

const dayMs = 86_400_000;

const heldQuery = fixed((qb, deviceId: string, expiresAtMs: number) =>
  qb
    .selectFrom('certificates')
    .select(['authority', 'expires_at_ms'])
    .where('device_id', '=', deviceId)
    .where('expires_at_ms', '=', expiresAtMs)
    .orderBy('issued_at_ms', 'desc')
    .limit(1),
);

export function createDeviceCertificates(core: RegistryCore): DeviceCertificates {
  const { store, authorities, clock, entropy, log } = core;
  const { qb } = store;

  /** Ended ones need no revocation; without this the table would grow for ever. */
  function prune(db: RegistryDb, nowMs: number): void {
    db.run(qb.deleteFrom('certificates').where('expires_at_ms', '<', nowMs - 30 * dayMs));
  }

  return {
    async issue({ deviceId, publicKey }, authority) {
      const nowMs = clock.wall();
      const certificate = await issueDeviceCertificate({
        ca: authority,
        deviceId,
        publicKey,
        serial: entropy.bytes(16),
        notBeforeMs: nowMs - core.limits.certificateBackdateMs,
        notAfterMs: Math.min(nowMs + core.limits.deviceCertificateMs, authority.notAfterMs),
      });
      const { serial, notAfterMs } = readCertificate(certificate);
      return {
        serial,
        device_id: deviceId,
        authority: authority.number,
        certificate,
        issued_at_ms: nowMs,
        expires_at_ms: notAfterMs,
      };
    },

    keepIn(db, certificate) {
      db.run(qb.insertInto('certificates').values(certificate));
      db.run(
        qb
          .updateTable('devices')
          .set({
            certificate_expires_at_ms: certificate.expires_at_ms,
            authority: certificate.authority,
          })
          .where('device_id', '=', certificate.device_id),
      );
      prune(db, clock.wall());
      log.emit('info', 'certificate.issued', {
        deviceId: certificate.device_id,
        authority: certificate.authority,
        serial: certificate.serial,
        expiresAtMs: certificate.expires_at_ms,
      });
    },

    repeatedIn(db, deviceId, authority) {
      const nowMs = clock.wall();
      const recent = db.all(
        qb
          .selectFrom('certificates')
          .selectAll()
          .where('device_id', '=', deviceId)
          .where('issued_at_ms', '>', nowMs - dayMs)
          // A registry whose clock went back may find some from the future; they are as good.
          .orderBy('issued_at_ms', 'desc')
          .limit(core.limits.renewalsPerDayMax),
      );
      const [last] = recent;
      if (last === undefined || last.authority !== authority.number) return null;
      const asksAgain = last.issued_at_ms > nowMs - core.limits.renewRepeatMs;
      return asksAgain || recent.length === core.limits.renewalsPerDayMax ? last : null;
    },

    heldIn(db, deviceId, expiresAtMs) {
      const held = db.first(heldQuery(qb, deviceId, expiresAtMs));
      if (held === undefined) return;
      db.run(
        qb
          .updateTable('devices')
          .set({ authority: held.authority, certificate_expires_at_ms: held.expires_at_ms })
          .where('device_id', '=', deviceId),
      );
    },

    async takeUpOlder() {
      const older = await store.tx((db) =>
        db.all(
          qb
            .selectFrom('claim_uses')
            .innerJoin('devices', 'devices.device_id', 'claim_uses.device_id')
            .leftJoin('certificates', 'certificates.device_id', 'claim_uses.device_id')
            .select([
              'claim_uses.device_id as deviceId',
              'claim_uses.certificate as certificate',
              'at_ms as atMs',
            ])
            .where('claim_uses.certificate', 'is not', null)
            .where('certificates.serial', 'is', null),
        ),
      );
      if (older.length === 0) return;
      // Before this version there was one authority.
      const [first] = authorities.all().filter((one) => one.number === 1);
      const rows = older.flatMap(({ deviceId, certificate, atMs }): DeviceCertificate[] => {
        if (certificate === null || first === undefined) return [];
        const { serial, notAfterMs } = readCertificate(certificate);
        return [
          {
            serial,
            device_id: deviceId,
            authority: first.number,
            certificate,
            issued_at_ms: atMs,
            expires_at_ms: notAfterMs,
          },
        ];
      });
      await store.tx((db) => {
        for (const row of rows) {
          db.run(
            qb
              .insertInto('certificates')
              .values(row)
              .onConflict((conflict) => conflict.doNothing()),
          );
        }
      });
    },
  };
}
