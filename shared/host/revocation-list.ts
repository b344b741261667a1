// Why: X.509 revocation lists (RFC 5280 §5) for brokers of other makers, and what a list says of a certificate.
// Trusts: the caller's entries and dates. Must never: sign a list with a seed that is not the authority's.

// First: the library's decorators need it while they load.
import './reflect-metadata.ts';

import { X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { publicKeyOf } from '../crypto/ed25519.ts';
import { pkcs8PemFromSeed, spkiFromPublicKey } from '../crypto/spki.ts';
import { invariant } from '../kernel/errors.ts';
import { atOnceCrypto } from './at-once-crypto.ts';
import type { CertificateAuthority } from './certificates.ts';

x509.cryptoProvider.set(atOnceCrypto);

const algorithm = { name: 'Ed25519' } as const;
/** id-ce-cRLNumber, RFC 5280 §5.2.3. */
const crlNumberOid = '2.5.29.20';

export interface RevokedCertificate {
  /** Hex. */
  serial: string;
  revokedAtMs: number;
  /** `hold`: taken off the list again where its device is released. */
  reason: 'revoked' | 'hold';
}

/** What a revocation list and a certificate's owner need to know of it. Throws where it is no certificate. */
export function readCertificate(pem: string): {
  /** Upper-case hex. */
  serial: string;
  notBeforeMs: number;
  notAfterMs: number;
  /** SubjectPublicKeyInfo, DER. */
  spki: Uint8Array;
} {
  const certificate = new X509Certificate(pem);
  return {
    serial: certificate.serialNumber,
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
    spki: new Uint8Array(certificate.publicKey.export({ type: 'spki', format: 'der' })),
  };
}

/** Whether the certificate is of the key with this seed. */
export function isCertificateOf(pem: string, seed: Uint8Array): boolean {
  return Buffer.compare(readCertificate(pem).spki, spkiFromPublicKey(publicKeyOf(seed))) === 0;
}

/** DER INTEGER of a whole number. */
function derInteger(value: number): Uint8Array {
  let hex = value.toString(16);
  if (hex.length % 2 === 1) hex = `0${hex}`;
  // A first byte with its high bit set would read as negative.
  if (Number.parseInt(hex.slice(0, 2), 16) >= 0x80) hex = `00${hex}`;
  const bytes = Buffer.from(hex, 'hex');
  return new Uint8Array(Buffer.concat([Buffer.from([0x02, bytes.length]), bytes]));
}

/** A list (version 2, PEM) of certificates of this authority that are not to be let in. */
export async function makeRevocationList(params: {
  ca: CertificateAuthority;
  /** Grows with each list of this authority. */
  number: number;
  thisUpdateMs: number;
  nextUpdateMs: number;
  revoked: readonly RevokedCertificate[];
}): Promise<string> {
  const { ca, number, thisUpdateMs, nextUpdateMs, revoked } = params;
  invariant(Number.isSafeInteger(number) && number > 0, 'a revocation list has a positive number');
  invariant(
    isCertificateOf(ca.certificatePem, ca.seed),
    'the seed is not that of the authority’s certificate',
  );
  const authority = new x509.X509Certificate(ca.certificatePem);
  const pkcs8 = x509.PemConverter.decodeFirst(pkcs8PemFromSeed(ca.seed));
  const list = await x509.X509CrlGenerator.create({
    issuer: authority.subjectName,
    thisUpdate: new Date(thisUpdateMs),
    nextUpdate: new Date(nextUpdateMs),
    signingAlgorithm: algorithm,
    signingKey: await atOnceCrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
    extensions: [
      await x509.AuthorityKeyIdentifierExtension.create(authority.publicKey),
      new x509.Extension(crlNumberOid, false, derInteger(number)),
    ],
    entries: revoked.map(({ serial, revokedAtMs, reason }) => ({
      serialNumber: serial,
      revocationDate: new Date(revokedAtMs),
      reason:
        reason === 'hold' ? x509.X509CrlReason.certificateHold : x509.X509CrlReason.cessationOfOperation,
    })),
  });
  // The library's own PEM label is one that OpenSSL, and so every broker, does not know.
  const lines =
    Buffer.from(list.rawData)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN X509 CRL-----\n${lines.join('\n')}\n-----END X509 CRL-----\n`;
}
