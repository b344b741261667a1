// Why: the registry's private keys: who signs what. This version makes development keys on its own disk
// and says so. Trusts: the folder's permissions. Must never: log a key, or replace one that was in use.

import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed, seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { issueServerCertificate, makeCertificateAuthority } from '../../shared/host/certificates.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Disk, Entropy, Log } from '../../shared/kernel/ports.ts';

export const keyRoles = [
  'root-1',
  'root-2',
  'root-3',
  'targets',
  'snapshot',
  'timestamp',
  'region-root-1',
  'region-root-2',
  'region-root-3',
  'director',
  'time',
  'ack',
  'command',
] as const;
export type KeyRole = (typeof keyRoles)[number];

export interface Keyring {
  kind: 'development';
  signer(role: KeyRole): Signer;
  /** The fleet's certificate authority: its certificate (PEM) and Ed25519 seed. */
  fleetCa: { certificatePem: string; seed: Uint8Array };
  /** The broker's TLS identity, PEM. Issued at every start, so that it names the present addresses. */
  server: { certificatePem: string; privateKeyPem: string };
}

const dayMs = 86_400_000;
const fleetCaLifeMs = 20 * 366 * dayMs;
/** Issued again at every start; a registry that runs longer than this without one must be restarted. */
const serverLifeMs = 3 * 366 * dayMs;
/** Devices' clocks may be behind. */
const clockSkewMs = 2 * dayMs;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

async function writeOnce(disk: Disk, path: string, text: string): Promise<void> {
  // Renamed into place: a power cut leaves the whole file or none.
  const fresh = `${path}.new`;
  await disk.create(fresh);
  await disk.append(fresh, encoder.encode(text));
  await disk.fsync(fresh);
  await disk.rename(fresh, path);
  await disk.fsyncDir('.');
}

/**
 * Opens the keys in `disk` (rooted at DATA/keys). With `mayCreate` (before anything was signed) missing
 * keys are made; without it a missing or damaged one is `state-corrupt`.
 * `hosts`: names and addresses under which devices reach the broker.
 */
export async function openKeyring(parts: {
  disk: Disk;
  mayCreate: boolean;
  region: string;
  hosts: string[];
  clock: Clock;
  entropy: Entropy;
  log: Log;
}): Promise<Keyring> {
  const { disk, mayCreate, clock, entropy } = parts;
  let made = 0;

  const missing = (path: string): FleetError =>
    new FleetError('state-corrupt', `keys/${path} is missing, but the catalogue was signed with it`, {
      hint: 'restore the data folder from a backup',
    });

  async function seedOf(name: string): Promise<Uint8Array> {
    const path = `${name}.pem`;
    const bytes = await disk.read(path);
    if (bytes !== null) {
      const seed = seedFromPkcs8Pem(decoder.decode(bytes));
      if (!seed.ok) {
        throw new FleetError('state-corrupt', `keys/${path} is no Ed25519 private key (PKCS #8, PEM)`);
      }
      return seed.value;
    }
    if (!mayCreate) throw missing(path);
    const seed = entropy.bytes(32);
    await writeOnce(disk, path, pkcs8PemFromSeed(seed));
    made += 1;
    return seed;
  }

  const signers = new Map<KeyRole, Signer>();
  for (const role of keyRoles) signers.set(role, signerFromSeed(await seedOf(role), 'node'));

  const now = clock.wall();
  const caSeed = await seedOf('fleet-ca');
  const caBytes = await disk.read('fleet-ca.crt');
  if (caBytes === null && !mayCreate) throw missing('fleet-ca.crt');
  const caPem =
    caBytes === null
      ? await makeCertificateAuthority({
          seed: caSeed,
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
    hosts: parts.hosts,
    notBeforeMs: now - clockSkewMs,
    notAfterMs: now + serverLifeMs,
  });

  parts.log.emit('warn', 'registry.keys.development', {
    made,
    detail: 'every signing key is on this disk; lepton keys ceremony replaces them with offline ones',
  });
  return {
    kind: 'development',
    signer(role) {
      const signer = signers.get(role);
      if (signer === undefined) throw new FleetError('internal', `no signer for ${role}`);
      return signer;
    },
    fleetCa,
    server: { certificatePem: serverPem, privateKeyPem: pkcs8PemFromSeed(serverSeed) },
  };
}
