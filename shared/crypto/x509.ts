// Why: what agent and broker read of an X.509 certificate, with Node's own reader: an X.509 library would cost
// the device 8 MB for good. Trusts: node:crypto to parse and to verify. Must never: compare a certificate with a
// clock; whoever asks knows which clock is to be believed.

import { X509Certificate } from 'node:crypto';
import { createRecent } from '../kernel/recent.ts';
import { deviceIdOf, publicKeyFromSpki } from './spki.ts';

/** Extended key usage id-kp-serverAuth, RFC 5280 §4.2.1.12. */
const serverAuth = '1.3.6.1.5.5.7.3.1';

export interface CertificateDates {
  notBeforeMs: number;
  notAfterMs: number;
}

/** Certificates that were read lately: a device's own and its authorities' are asked for with each report and session. */
const lately = createRecent<X509Certificate>(32);

/** Null where it is no certificate in PEM. */
export function readCertificate(pem: string): X509Certificate | null {
  const known = lately.get(pem);
  if (known !== undefined) return known;
  try {
    const certificate = new X509Certificate(pem);
    lately.set(pem, certificate);
    return certificate;
  } catch {
    // Node's words may quote what was read.
    return null;
  }
}

/** Dates that cannot be read make a certificate that is never valid. */
export function datesOf(certificate: X509Certificate): CertificateDates {
  // Date.parse alone: these are the certificate's dates, not a clock.
  const notBeforeMs = Date.parse(certificate.validFrom);
  const notAfterMs = Date.parse(certificate.validTo);
  return Number.isNaN(notBeforeMs) || Number.isNaN(notAfterMs)
    ? { notBeforeMs: Number.MAX_SAFE_INTEGER, notAfterMs: 0 }
    : { notBeforeMs, notAfterMs };
}

export function isWithin(dates: CertificateDates, nowMs: number): boolean {
  return dates.notBeforeMs <= nowMs && nowMs <= dates.notAfterMs;
}

/** The authority that issued and signed it, or null. Names alone prove nothing. */
export function issuerOf(
  certificate: X509Certificate,
  authorities: readonly X509Certificate[],
): X509Certificate | null {
  const found = authorities.find(
    (authority) =>
      authority.ca && certificate.checkIssued(authority) && certificate.verify(authority.publicKey),
  );
  return found ?? null;
}

/** Whether this is the certificate of a server, and of nothing that could issue others. */
export function isServerCertificate(certificate: X509Certificate): boolean {
  return !certificate.ca && certificate.keyUsage?.includes(serverAuth) === true;
}

/** Whether a certificate (PEM) is this device key's and one of these authorities (PEM) signed it. */
export function certifiesDevice(
  pem: string,
  publicKey: Uint8Array,
  authorityPems: readonly string[],
): boolean {
  const certificate = readCertificate(pem);
  if (certificate === null) return false;
  const held = publicKeyFromSpki(
    new Uint8Array(certificate.publicKey.export({ format: 'der', type: 'spki' })),
  );
  if (!held.ok || Buffer.compare(held.value, publicKey) !== 0) return false;
  if (certificate.subject !== `CN=${deviceIdOf(publicKey)}`) return false;
  const authorities = authorityPems.flatMap((one) => readCertificate(one) ?? []);
  return issuerOf(certificate, authorities) !== null;
}
