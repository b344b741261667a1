// Why: the registry's private keys: which it holds, and which of them the roots in force name for a role.
// Trusts: the folder's permissions; the roots it is told to follow, which the repository has verified.
// Must never: log a key, replace one that was in use, or sign for a role with a key that no root in force names.

import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed, seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { issueServerCertificate, makeCertificateAuthority } from '../../shared/host/certificates.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Disk, Entropy, Log } from '../../shared/kernel/ports.ts';
import type { Roles } from '../../shared/trust/ceremony/standing.ts';
import { type OnlineRole, onlineRoles } from '../../shared/wire/key-plan.ts';

/** Keys that the first start makes and that a ceremony takes offline, by the names of their files. */
export const developmentRoles = [
  'root-1',
  'root-2',
  'root-3',
  'targets',
  'region-root-1',
  'region-root-2',
  'region-root-3',
] as const;
export type DevelopmentRole = (typeof developmentRoles)[number];
/** Roles that the registry signs for itself. */
export type KeyRole = OnlineRole;

export interface KeptKey {
  /** The role in the file's name: what it was made for. */
  role: DevelopmentRole | OnlineRole;
  keyId: string;
}

export interface Keyring {
  /** `development`: a key of root, targets or region root is on this disk. */
  readonly kind: 'development' | 'offline';
  /**
   * Signs for the role with the key that the root in force names, looked up at each signature: a signer that
   * was asked for once goes on after a rotation.
   */
  signer(role: KeyRole): Signer;
  /** The key of that name from the first start. Fault `state-corrupt` where it is not there. */
  firstStart(role: DevelopmentRole | OnlineRole): Signer;
  /** The held key with this public key, or null. */
  held(publicKey: Uint8Array): Signer | null;
  /**
   * Follows the roots in force. Fault `state-corrupt` where a key that the registry must hold is missing: those of its
   * region, and of the catalogue's snapshot and timestamp unless it mirrors another region's catalogue.
   */
  follow(roles: Roles, mirrors?: boolean): void;
  /** Makes a key for each online role; durable when this resolves. They sign nothing before `follow`. */
  makeOnline(): Promise<Record<OnlineRole, Signer>>;
  /** Deletes every key file of ours but those with these key ids; the keys that are gone. */
  keepOnly(keyIds: ReadonlySet<string>): Promise<KeptKey[]>;
  /** The fleet's certificate authority: its certificate (PEM) and Ed25519 seed. */
  fleetCa: { certificatePem: string; seed: Uint8Array };
  /** The broker's TLS identity, PEM. Issued at every start, so that it names the present addresses. */
  server: { certificatePem: string; privateKeyPem: string };
}

/** What a region that mirrors the catalogue holds from its first start. */
const regionKeys: ReadonlySet<string> = new Set([
  ...developmentRoles.filter((role) => role.startsWith('region-root-')),
  ...onlineRoles.filter((role) => role !== 'snapshot' && role !== 'timestamp'),
]);

const dayMs = 86_400_000;
const fleetCaLifeMs = 20 * 366 * dayMs;
/** Issued again at every start; a registry that runs longer than this without one must be restarted. */
const serverLifeMs = 3 * 366 * dayMs;
/** Devices' clocks may be behind. */
const clockSkewMs = 2 * dayMs;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Makes a small file of keys durable under its name. */
export async function writeOnce(disk: Disk, path: string, text: string): Promise<void> {
  // Renamed into place: a power cut leaves the whole file or none.
  const fresh = `${path}.new`;
  await disk.create(fresh);
  await disk.append(fresh, encoder.encode(text));
  await disk.fsync(fresh);
  await disk.rename(fresh, path);
  await disk.fsyncDir('.');
}

const ownRoles: readonly string[] = [...developmentRoles, ...onlineRoles];
/** `director.pem` from the first start, `director-0123456789abcdef.pem` since; `.new`: a power cut came between. */
const ownFile = new RegExp(`^(${ownRoles.join('|')})(?:-[0-9a-f]{16})?\\.pem(\\.new)?$`);

interface HeldKey extends KeptKey {
  file: string;
  signer: Signer;
}

function roleOfFile(file: string): KeptKey['role'] | null {
  const match = ownFile.exec(file);
  const role = [...developmentRoles, ...onlineRoles].find((one) => one === match?.[1]);
  return match?.[2] === undefined ? (role ?? null) : null;
}

/** The seed in a key file, null where there is none. Fault `state-corrupt`. */
export async function readSeed(disk: Disk, path: string): Promise<Uint8Array | null> {
  const bytes = await disk.read(path);
  if (bytes === null) return null;
  const seed = seedFromPkcs8Pem(decoder.decode(bytes));
  if (!seed.ok) {
    throw new FleetError('state-corrupt', `keys/${path} is no Ed25519 private key (PKCS #8, PEM)`);
  }
  return seed.value;
}

const missing = (path: string): FleetError =>
  new FleetError('state-corrupt', `keys/${path} is missing, but the catalogue was signed with it`, {
    hint: 'restore the data folder from a backup',
  });

/**
 * Opens the keys in `disk` (rooted at DATA/keys). With `mayCreate` (before anything was signed) missing
 * keys are made; without it a missing or damaged one is `state-corrupt`, at the latest by `follow`.
 * `hosts`: names and addresses under which devices reach the broker.
 */
export async function openKeyring(parts: {
  disk: Disk;
  mayCreate: boolean;
  /** The region joins others: the catalogue is signed elsewhere, and no keys are made for it. */
  joins?: boolean;
  region: string;
  hosts: string[];
  clock: Clock;
  entropy: Entropy;
  log: Log;
}): Promise<Keyring> {
  const { disk, mayCreate, clock, entropy, log } = parts;
  let made = 0;

  async function seedOf(name: string): Promise<Uint8Array> {
    const path = `${name}.pem`;
    const seed = await readSeed(disk, path);
    if (seed !== null) return seed;
    if (!mayCreate) throw missing(path);
    const fresh = entropy.bytes(32);
    await writeOnce(disk, path, pkcs8PemFromSeed(fresh));
    made += 1;
    return fresh;
  }

  /** By key id. */
  const keys = new Map<string, HeldKey>();
  const take = (role: HeldKey['role'], file: string, seed: Uint8Array): Signer => {
    const signer = signerFromSeed(seed, 'node');
    keys.set(signer.keyId, { role, keyId: signer.keyId, file, signer });
    return signer;
  };
  if (mayCreate) {
    for (const role of [...developmentRoles, ...onlineRoles]) {
      if (parts.joins !== true || regionKeys.has(role)) take(role, `${role}.pem`, await seedOf(role));
    }
  }
  for (const file of await disk.list('.')) {
    const role = roleOfFile(file);
    const seed = role === null ? null : await readSeed(disk, file);
    if (role !== null && seed !== null) take(role, file, seed);
  }

  const now = clock.wall();
  const caSeed = await seedOf('fleet-ca');
  const caBytes = await disk.read('fleet-ca.crt');
  if (caBytes === null && !mayCreate) throw missing('fleet-ca.crt');
  const caPem =
    caBytes === null
      ? await makeCertificateAuthority({
          seed: caSeed,
          serial: entropy.bytes(16),
          name: `Lepton Fleet ${parts.region}`,
          notBeforeMs: now - clockSkewMs,
          notAfterMs: now + fleetCaLifeMs,
        })
      : decoder.decode(caBytes);
  if (caBytes === null) await writeOnce(disk, 'fleet-ca.crt', caPem);
  const fleetCa = { certificatePem: caPem, seed: caSeed };

  const serverSeed = await seedOf('server');
  const serverPem = await issueServerCertificate({
    ca: fleetCa,
    seed: serverSeed,
    serial: entropy.bytes(16),
    hosts: parts.hosts,
    notBeforeMs: now - clockSkewMs,
    notAfterMs: now + serverLifeMs,
  });

  const held = (publicKey: Uint8Array): Signer | null => {
    for (const { signer } of keys.values()) {
      if (Buffer.compare(signer.publicKey, publicKey) === 0) return signer;
    }
    return null;
  };

  let kind: Keyring['kind'] = 'development';
  let followed = false;
  const signing = new Map<KeyRole, Signer>();
  const current = (role: KeyRole): Signer => {
    const signer = signing.get(role);
    if (signer === undefined) throw new FleetError('internal', `no root was followed that names ${role}`);
    return signer;
  };

  return {
    get kind() {
      return kind;
    },
    signer: (role) => ({
      get publicKey() {
        return current(role).publicKey;
      },
      get keyId() {
        return current(role).keyId;
      },
      sign: (message) => current(role).sign(message),
    }),
    firstStart(role) {
      const file = `${role}.pem`;
      const key = [...keys.values()].find((one) => one.file === file);
      if (key === undefined) throw missing(file);
      return key.signer;
    },
    held,

    follow(roles, mirrors = false) {
      const next = new Map<KeyRole, Signer>();
      for (const role of onlineRoles) {
        const signer = roles
          .get(role)
          ?.keys.map(held)
          .find((one) => one !== null);
        if (signer === undefined || signer === null) {
          if (mirrors && !regionKeys.has(role)) continue;
          throw missing(`${role}.pem`);
        }
        next.set(role, signer);
      }
      // Of a role that another region signs for now, nothing is left to sign with.
      signing.clear();
      for (const [role, signer] of next) signing.set(role, signer);
      const offline = (['root', 'targets', 'region-root'] as const).flatMap(
        (role) => roles.get(role)?.keys ?? [],
      );
      kind = offline.some((key) => held(key) !== null) ? 'development' : 'offline';
      if (kind === 'development' && !followed) {
        log.emit('warn', 'registry.keys.development', {
          made,
          detail: 'every signing key is on this disk; lepton keys ceremony replaces them with offline ones',
        });
      }
      followed = true;
    },

    async makeOnline() {
      const make = async (role: OnlineRole): Promise<Signer> => {
        const seed = entropy.bytes(32);
        const { keyId } = signerFromSeed(seed, 'node');
        const file = `${role}-${keyId.slice(0, 16)}.pem`;
        await writeOnce(disk, file, pkcs8PemFromSeed(seed));
        return take(role, file, seed);
      };
      return {
        snapshot: await make('snapshot'),
        timestamp: await make('timestamp'),
        director: await make('director'),
        time: await make('time'),
        ack: await make('ack'),
        command: await make('command'),
      };
    },

    async keepOnly(keyIds) {
      const gone: KeptKey[] = [];
      const keptFiles = new Set<string>();
      for (const [keyId, { role, file }] of keys) {
        if (keyIds.has(keyId)) keptFiles.add(file);
        else {
          keys.delete(keyId);
          gone.push({ role, keyId });
        }
      }
      // By what is on the disk: a file that a power cut left half-written is nobody's.
      const files = (await disk.list('.')).filter((file) => ownFile.test(file) && !keptFiles.has(file));
      for (const file of files) await disk.unlink(file);
      if (files.length > 0) await disk.fsyncDir('.');
      return gone;
    },
    fleetCa,
    server: { certificatePem: serverPem, privateKeyPem: pkcs8PemFromSeed(serverSeed) },
  };
}
