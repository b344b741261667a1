// Why: brokers of other makers cannot ask the registry who may connect; they are given lists (DESIGN 4).
// Trusts: the store for who is shut out. Must never: leave out a certificate of a device that is shut out while
// the certificate still lives, or give a list a number that was given before.

import { makeRevocationList } from '../../shared/host/revocation-list.ts';
import type { BrokerFiles, RevokedDevice } from '../../shared/wire/http.ts';
import { mosquittoRules } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import { standingOf } from '../moves/standing.ts';
import type { Authority } from '../signing/authorities.ts';
import { fleetLimits } from './limits.ts';
import { mosquittoPort, mosquittoSettings } from './mosquitto.ts';

export interface Revocation {
  /** Devices that are shut out, latest first, with their certificates that have not ended yet. */
  revoked(): Promise<RevokedDevice[]>;
  /** Everything that an external broker needs to refuse what ours refuses. Signs new lists. */
  brokerFiles(): Promise<BrokerFiles>;
}

export function createRevocation(core: RegistryCore): Revocation {
  const { store, authorities, clock, region } = core;
  const { qb } = store;

  async function revoked(): Promise<RevokedDevice[]> {
    const nowMs = clock.wall();
    const rows = await store.tx((db) =>
      db.all(
        qb
          .selectFrom('devices')
          .leftJoin('certificates', (join) =>
            join
              .onRef('certificates.device_id', '=', 'devices.device_id')
              .on('certificates.expires_at_ms', '>', nowMs),
          )
          .select([
            'devices.device_id as id',
            'devices.status as status',
            'devices.moved_to as moved_to',
            'devices.status_at_ms as sinceMs',
            'certificates.serial as serial',
            'certificates.authority as authority',
            'certificates.expires_at_ms as expiresAtMs',
          ])
          .where('devices.status', '!=', 'active')
          .orderBy('devices.status_at_ms', 'desc')
          .orderBy('devices.device_id')
          .orderBy('certificates.issued_at_ms'),
      ),
    );
    const devices = new Map<string, RevokedDevice>();
    for (const { id, sinceMs, serial, authority, expiresAtMs, ...row } of rows) {
      const status = standingOf(row);
      if (status === 'active') continue;
      const device = devices.get(id) ?? { id, status, sinceMs, certificates: [] };
      if (serial !== null && authority !== null && expiresAtMs !== null) {
        device.certificates.push({ serial, authority: `ca-${authority}`, expiresAtMs });
      }
      devices.set(id, device);
    }
    return [...devices.values()];
  }

  /** Never a number twice, also where the store is an older one than the last list came from. */
  function nextNumber({ number }: Authority): Promise<number> {
    return store.tx((db) => {
      const last = db.first(
        qb.selectFrom('authorities').select('crl_number').where('number', '=', number),
      )?.crl_number;
      const next = Math.max((last ?? 0) + 1, Math.floor(clock.wall() / 1_000));
      db.run(qb.updateTable('authorities').set({ crl_number: next }).where('number', '=', number));
      return next;
    });
  }

  return {
    revoked,

    async brokerFiles() {
      const devices = await revoked();
      const lists: string[] = [];
      const port = mosquittoPort(core.addresses.mqtt);
      for (const ca of authorities.present()) {
        const nowMs = clock.wall();
        const entries = devices.flatMap(({ status, sinceMs, certificates }) =>
          certificates
            .filter(({ authority }) => authority === `ca-${ca.number}`)
            .map(({ serial }) => ({
              serial,
              revokedAtMs: sinceMs,
              reason: status === 'revoked' ? ('revoked' as const) : ('hold' as const),
            })),
        );
        lists.push(
          await makeRevocationList({
            ca,
            number: await nextNumber(ca),
            // The broker's clock may be a little behind.
            thisUpdateMs: nowMs - fleetLimits.certificateBackdateMs,
            nextUpdateMs: nowMs + fleetLimits.revocationListMs,
            revoked: entries,
          }),
        );
      }
      return {
        acl: mosquittoRules(
          region,
          devices.map(({ id }) => id),
        ),
        revoked: lists.join(''),
        authorities: authorities
          .present()
          .map((one) => one.certificatePem)
          .join(''),
        settings: mosquittoSettings(port),
        revokedDevices: devices.length,
      };
    },
  };
}
