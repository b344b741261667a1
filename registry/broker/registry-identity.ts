// Why: a registry that is a client of another maker's broker shows a certificate of its own fleet, made and renewed by itself.
// Trusts: signing/ for the authorities in force. Must never: write its key anywhere, or keep it longer than a certificate.

import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { issueRegistryCertificate } from '../../shared/host/certificates.ts';
import type { BusCredentials } from '../../shared/host/mqtt.ts';
import { invariant } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy } from '../../shared/kernel/ports.ts';
import type { Authorities } from '../signing/authorities.ts';

const dayMs = 86_400_000;
const lifeMs = 30 * dayMs;
/** The broker's clock may be behind. */
const backdateMs = dayMs;

export interface RegistryIdentity {
  credentials: BusCredentials;
  renewAtMs: number;
}

/** Of the oldest authority in force: after a rotation the broker knows the new one only when it got new files. */
export async function makeRegistryIdentity(parts: {
  authorities: Pick<Authorities, 'present'>;
  clock: Clock;
  entropy: Entropy;
}): Promise<RegistryIdentity> {
  const { authorities, clock, entropy } = parts;
  const present = authorities.present();
  const ca = present.at(-1);
  invariant(ca !== undefined, 'an authority is in force');
  const nowMs = clock.wall();
  const notAfterMs = Math.min(nowMs + lifeMs, ca.notAfterMs);
  const seed = entropy.bytes(32);
  const cert = await issueRegistryCertificate({
    ca,
    publicKey: publicKeyOf(seed),
    serial: entropy.bytes(16),
    notBeforeMs: nowMs - backdateMs,
    notAfterMs,
  });
  return {
    credentials: {
      ca: present.map((one) => one.certificatePem).join(''),
      cert,
      key: pkcs8PemFromSeed(seed),
    },
    renewAtMs: notAfterMs - (notAfterMs - nowMs) / 3,
  };
}
