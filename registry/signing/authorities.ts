// Why: the fleet's certificate authorities, of which there is more than one while an old one is replaced, and the
// broker's server certificate under each of them (DESIGN 3).
// Trusts: the keyring for authority number one, the folder `keys/authorities` for the others, the store for
// which are in force. Must never: issue with an authority that was retired, or lose the last one.

import { pkcs8PemFromSeed, seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import {
  type CertificateAuthority,
  issueBrokerCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
} from '../../shared/host/certificates.ts';
import { isCertificateOf, readCertificate } from '../../shared/host/revocation-list.ts';
import { FleetError, invariant } from '../../shared/kernel/errors.ts';
import type { Clock, Disk, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { authoritiesSha256, authorityServerName } from '../../shared/trust/authorities.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { AuthoritiesTable } from '../store/trust-tables.ts';
import type { Keyring } from './keys.ts';

export interface Authority extends CertificateAuthority {
  number: number;
  createdAtMs: number;
  /** Null while it is in force. */
  retiredAtMs: number | null;
  notAfterMs: number;
}

/** What the broker shows and takes: one certificate of its own for each authority in force. */
export interface BrokerCertificates {
  /** PEM. */
  key: string;
  /** Shown to whoever names no authority that is in force: the oldest one's, which claims of long ago hold. */
  cert: string;
  /** Authorities whose clients are taken, PEM. */
  ca: string;
  /** By TLS server name (`authorityServerName`). */
  named: ReadonlyMap<string, string>;
}

export interface Authorities {
  /** In force, the one that issues now first. Never empty. */
  present(): readonly [Authority, ...Authority[]];
  /** Also those that were retired, newest first. */
  all(): readonly Authority[];
  /** Null where it is not in force. */
  inForce(number: number): Authority | null;
  /** Digest of the certificates in force, as assignments name it. */
  sha256(): string;
  /** Makes the next authority, from now on the one that issues. Refusal: `conflict` (too many in force). */
  rotate(alongside: (db: RegistryDb, made: Authority) => void): Promise<Result<Authority>>;
  /** Ends an authority. Idempotent. Refusals: `not-found`, `conflict` (the last one), and those of `check`. */
  retire(
    number: number,
    check: (db: RegistryDb, present: Authority) => Result<void>,
  ): Promise<Result<{ retired: boolean }>>;
  broker(): BrokerCertificates;
  /** A server certificate for a broker that made its own key; of the authority that `broker` shows by default. */
  certifyBroker(publicKey: Uint8Array, hosts: readonly string[]): Promise<string>;
  /** Issues the broker's certificates again where one of them has less than a third of its life left. */
  renewBroker(): Promise<void>;
  /** Called when what `broker` gives has changed. Returns how to stop. */
  onChange(listener: () => void): () => void;
}

const dayMs = 86_400_000;
const authorityLifeMs = 20 * 366 * dayMs;
/** Long, for a device that was off for a year must still find it valid by its own clock. */
const serverLifeMs = 3 * 366 * dayMs;
/** Devices' clocks may be behind. */
const clockSkewMs = 2 * dayMs;
/** RFC 5280 ub-common-name. */
const commonNameMax = 64;
/** What one signed list for devices holds (shared/wire/messages.ts). */
const authoritiesMax = 8;
const folder = 'authorities';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

async function write(disk: Disk, path: string, text: string): Promise<void> {
  // Renamed into place: a power cut leaves the whole file or none.
  const fresh = `${path}.new`;
  await disk.create(fresh);
  await disk.append(fresh, encoder.encode(text));
  await disk.fsync(fresh);
  await disk.rename(fresh, path);
  await disk.fsyncDir(folder);
  await disk.fsyncDir('.');
}

/**
 * Opens the authorities; the keyring's fleet CA is number one. `disk` is rooted at DATA/keys. A key and a
 * certificate that the store does not know (a rotation that was cut off, or a store that was restored from an
 * older backup than the keys) are taken up: devices may hold certificates of it. Fault: `state-corrupt`.
 */
export async function openAuthorities(parts: {
  disk: Disk;
  store: RegistryStore;
  keyring: Pick<Keyring, 'fleetCa' | 'server'>;
  region: string;
  /** Names and addresses under which devices reach the broker. */
  hosts: readonly string[];
  clock: Clock;
  entropy: Entropy;
  log: Log;
}): Promise<Authorities> {
  const { disk, store, keyring, region, hosts, clock, entropy, log } = parts;
  const { qb } = store;
  const serverSeed = seedFromPkcs8Pem(keyring.server.privateKeyPem);
  invariant(serverSeed.ok, 'the keyring gives a server key');
  const listeners = new Set<() => void>();
  let server: { certificates: ReadonlyMap<number, string>; renewAtMs: number };

  async function seedOf(number: number): Promise<Uint8Array | null> {
    if (number === 1) return keyring.fleetCa.seed;
    const bytes = await disk.read(`${folder}/${number}.pem`);
    if (bytes === null) return null;
    const seed = seedFromPkcs8Pem(decoder.decode(bytes));
    if (!seed.ok)
      throw new FleetError('state-corrupt', `keys/${folder}/${number}.pem is no Ed25519 private key`);
    return seed.value;
  }

  const insert = (db: RegistryDb, number: number, certificate: string): void => {
    const row = { certificate, created_at_ms: clock.wall(), retired_at_ms: null, crl_number: 0 };
    db.run(qb.insertInto('authorities').values({ number, ...row }));
  };

  /** Rows for what is on the disk and not in the store. */
  async function takeUp(): Promise<void> {
    const found = new Map([[1, keyring.fleetCa.certificatePem]]);
    for (const name of await disk.list(folder)) {
      const number = Number(/^([1-9]\d{0,5})\.crt$/.exec(name)?.[1] ?? 0);
      const bytes = number > 1 ? await disk.read(`${folder}/${name}`) : null;
      const seed = bytes === null ? null : await seedOf(number);
      if (bytes === null || seed === null) continue;
      // The key of a second attempt beside the certificate of a first one is nobody's authority.
      const pem = decoder.decode(bytes);
      if (isCertificateOf(pem, seed)) found.set(number, pem);
    }
    await store.tx((db) => {
      const known = new Set(db.all(qb.selectFrom('authorities').select('number')).map((row) => row.number));
      for (const [number, certificate] of found) if (!known.has(number)) insert(db, number, certificate);
    });
  }

  async function authorityOf(row: AuthoritiesTable): Promise<Authority> {
    const seed = await seedOf(row.number);
    if (seed === null && row.retired_at_ms === null) {
      throw new FleetError('state-corrupt', `keys/${folder}/${row.number}.pem is missing`, {
        hint: 'restore the data folder from a backup that holds it',
      });
    }
    return {
      number: row.number,
      certificatePem: row.certificate,
      // A retired one issues nothing: its key may be gone.
      seed: seed ?? new Uint8Array(0),
      createdAtMs: row.created_at_ms,
      retiredAtMs: row.retired_at_ms,
      notAfterMs: readCertificate(row.certificate).notAfterMs,
    };
  }

  await takeUp();
  const rows = await store.tx((db) =>
    db.all(qb.selectFrom('authorities').selectAll().orderBy('number', 'desc')),
  );
  let list = await Promise.all(rows.map(authorityOf));

  function present(): readonly [Authority, ...Authority[]] {
    const [first, ...others] = list.filter((one) => one.retiredAtMs === null);
    if (first === undefined) throw new FleetError('state-corrupt', 'no certificate authority is in force');
    return [first, ...others];
  }

  async function issueServer(authorities: readonly Authority[]): Promise<typeof server> {
    const nowMs = clock.wall();
    const certificates = new Map<number, string>();
    let renewAtMs = Number.POSITIVE_INFINITY;
    for (const ca of authorities) {
      const notAfterMs = Math.min(nowMs + serverLifeMs, ca.notAfterMs);
      if (notAfterMs <= nowMs) continue; // it ended by itself: devices that hold no other enrol again
      const notBeforeMs = nowMs - clockSkewMs;
      certificates.set(
        ca.number,
        await issueServerCertificate({
          ca,
          seed: serverSeed.ok ? serverSeed.value : new Uint8Array(0),
          hosts,
          serial: entropy.bytes(16),
          notBeforeMs,
          notAfterMs,
        }),
      );
      renewAtMs = Math.min(renewAtMs, notAfterMs - (notAfterMs - nowMs) / 3);
    }
    return { certificates, renewAtMs };
  }

  function changed(): void {
    for (const listener of listeners) listener();
  }

  async function rotate(alongside: (db: RegistryDb, made: Authority) => void): Promise<Result<Authority>> {
    if (present().length >= authoritiesMax) {
      return refuse('conflict', `${authoritiesMax} authorities are in force; retire one first`);
    }
    const nowMs = clock.wall();
    const number = Math.max(...list.map((one) => one.number)) + 1;
    const seed = entropy.bytes(32);
    const certificatePem = await makeCertificateAuthority({
      seed,
      serial: entropy.bytes(16),
      name: `Lepton Fleet CA ${number} ${region}`.slice(0, commonNameMax),
      notBeforeMs: nowMs - clockSkewMs,
      notAfterMs: nowMs + authorityLifeMs,
    });
    const { notAfterMs } = readCertificate(certificatePem);
    const made: Authority = {
      number,
      certificatePem,
      seed,
      createdAtMs: nowMs,
      retiredAtMs: null,
      notAfterMs,
    };
    // The key before the row that lets it issue; cut off in between, the next start goes on.
    await write(disk, `${folder}/${number}.pem`, pkcs8PemFromSeed(seed));
    await write(disk, `${folder}/${number}.crt`, certificatePem);
    const next = await issueServer([made, ...present()]);
    await store.tx((db) => {
      insert(db, number, certificatePem);
      alongside(db, made);
    });
    list = [made, ...list];
    server = next;
    log.emit('warn', 'authority.rotated', { authority: number });
    changed();
    return ok(made);
  }

  async function retire(
    number: number,
    check: (db: RegistryDb, present: Authority) => Result<void>,
  ): Promise<Result<{ retired: boolean }>> {
    const nowMs = clock.wall();
    const retired = await store.tx((db): Result<{ retired: boolean }> => {
      const known = list.find((one) => one.number === number);
      if (known === undefined) return refuse('not-found', `there is no authority ${number}`);
      if (known.retiredAtMs !== null) return ok({ retired: false });
      if (present().length === 1) {
        return refuse('conflict', `authority ${number} is the only one; rotate first`);
      }
      const checked = check(db, known);
      if (!checked.ok) return checked;
      db.run(qb.updateTable('authorities').set({ retired_at_ms: nowMs }).where('number', '=', number));
      return ok({ retired: true });
    });
    if (!retired.ok || !retired.value.retired) return retired;
    list = list.map((one) => (one.number === number ? { ...one, retiredAtMs: nowMs } : one));
    log.emit('warn', 'authority.retired', { authority: number });
    changed();
    return retired;
  }

  /** One change after the other: two at once would write one key file. */
  let turn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = turn.then(work);
    turn = done.catch(() => undefined);
    return done;
  }

  server = await issueServer(present());

  return {
    present,
    all: () => list,
    inForce: (number) => present().find((one) => one.number === number) ?? null,
    sha256: () => authoritiesSha256(present().map((one) => one.certificatePem)),

    rotate: (alongside) => inTurn(() => rotate(alongside)),
    retire: (number, check) => inTurn(() => retire(number, check)),

    broker() {
      const shown = present().flatMap((one) => {
        const cert = server.certificates.get(one.number);
        return cert === undefined ? [] : [{ name: authorityServerName(one.certificatePem), cert }];
      });
      return {
        key: keyring.server.privateKeyPem,
        cert: shown.at(-1)?.cert ?? '',
        ca: present()
          .map((one) => one.certificatePem)
          .join(''),
        named: new Map(shown.map(({ name, cert }) => [name, cert])),
      };
    },

    async certifyBroker(publicKey, more) {
      const ca = present().at(-1);
      invariant(ca !== undefined, 'an authority is in force');
      const nowMs = clock.wall();
      return issueBrokerCertificate({
        ca,
        publicKey,
        hosts: [...new Set([...more, ...hosts])],
        serial: entropy.bytes(16),
        notBeforeMs: nowMs - clockSkewMs,
        notAfterMs: Math.min(nowMs + serverLifeMs, ca.notAfterMs),
      });
    },

    renewBroker: () =>
      inTurn(async () => {
        if (clock.wall() < server.renewAtMs) return;
        server = await issueServer(present());
        log.emit('info', 'authority.server.renewed', { renewAtMs: server.renewAtMs });
        changed();
      }),

    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
