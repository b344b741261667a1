// Why: what an operator does with the fleet's certificate authorities, and what follows for the devices: each is
// assigned the new list and renews by itself (DESIGN 3).
// Trusts: its callers to have checked the right. Must never: cut off devices that depend on an old authority
// without being told to.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import type { AuthorityView } from '../../shared/wire/http.ts';
import type { RegistryCore } from '../core.ts';
import type { Authority } from '../signing/authorities.ts';
import type { RegistryDb } from '../store/open.ts';
import type { Director } from './director.ts';
import type { FleetEvents } from './events.ts';

export interface AuthorityRotation {
  /** Newest first, also those that were retired. */
  list(): Promise<AuthorityView[]>;
  /** Makes the next authority and assigns the new list to every device. Refusal: `conflict`. */
  rotate(by: string): Promise<Result<AuthorityView[]>>;
  /**
   * Ends an authority: its certificates are worth nothing from now on. Refusals: `not-found`, `conflict` (the
   * only one, or active devices depend on it and `force` is not given).
   */
  retire(id: string, options: { force: boolean; by: string }): Promise<Result<AuthorityView[]>>;
}

const idOf = (number: number): string => `ca-${number}`;

export function createRotation(
  core: RegistryCore,
  parts: { events: FleetEvents; director: Director },
): AuthorityRotation {
  const { store, authorities, clock } = core;
  const { qb } = store;
  const { events, director } = parts;

  const devicesIn = (db: RegistryDb, number: number): number =>
    db.first(
      qb
        .selectFrom('devices')
        .select((eb) => eb.fn.countAll<number>().as('n'))
        .where('authority', '=', number)
        .where('status', '=', 'active'),
    )?.n ?? 0;

  /** Claim files out there that name it and could still be used. */
  const claimsIn = (db: RegistryDb, number: number): number =>
    db.first(
      qb
        .selectFrom('claims')
        .select((eb) => eb.fn.countAll<number>().as('n'))
        .where('authority', '=', number)
        .where('expires_at_ms', '>', clock.wall())
        .whereRef('used', '<', 'uses'),
    )?.n ?? 0;

  function viewIn(db: RegistryDb, one: Authority): AuthorityView {
    const issues = one.number === authorities.present()[0].number;
    return {
      id: idOf(one.number),
      state: one.retiredAtMs !== null ? 'retired' : issues ? 'issuing' : 'in-force',
      createdAtMs: one.createdAtMs,
      retiredAtMs: one.retiredAtMs,
      expiresAtMs: one.notAfterMs,
      sha256: sha256Hex(new TextEncoder().encode(one.certificatePem)),
      serverName: authorityServerName(one.certificatePem),
      devices: devicesIn(db, one.number),
      claims: claimsIn(db, one.number),
    };
  }

  const list = (): Promise<AuthorityView[]> =>
    store.tx((db) => authorities.all().map((one) => viewIn(db, one)));

  return {
    list,

    async rotate(by) {
      const made = await authorities.rotate((db, { number }) => {
        const event = { source: 'registry', subject: null, code: 'authority-rotated' } as const;
        events.recordIn(db, { ...event, detail: `${idOf(number)} issues from now on, by ${by}` });
      });
      if (!made.ok) return made;
      await director.reissue();
      return ok(await list());
    },

    async retire(id, { force, by }) {
      const number = Number(/^(?:ca-)?([1-9]\d{0,5})$/.exec(id)?.[1] ?? Number.NaN);
      if (Number.isNaN(number)) return refuse('not-found', `there is no authority ${id.slice(0, 80)}`);
      const retired = await authorities.retire(number, (db) => {
        const devices = devicesIn(db, number);
        if (devices > 0 && !force) {
          return refuse(
            'conflict',
            `${devices} active devices hold a certificate of ${idOf(number)}; they renew when they are connected`,
          );
        }
        const event = { source: 'registry', subject: null, code: 'authority-retired' } as const;
        events.recordIn(db, { ...event, detail: `${idOf(number)}, ${devices} devices held it, by ${by}` });
        return ok();
      });
      if (!retired.ok) return retired;
      await director.reissue();
      return ok(await list());
    },
  };
}
