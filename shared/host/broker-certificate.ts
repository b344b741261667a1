// Why: OpenSSL reports one error of a certificate chain, and a date hides every other one. A device whose clock
// is wrong must still know that nothing but the dates is wrong (DESIGN 3 "Time"), so this checks the rest itself.
// Trusts: the authorities that the device holds. Must never: look at a clock, nor let a certificate pass because
// OpenSSL had nothing to say about it.

import type { X509Certificate } from 'node:crypto';
import { checkServerIdentity } from 'node:tls';
import {
  type CertificateDates,
  datesOf,
  isServerCertificate,
  issuerOf,
  readCertificate,
} from '../crypto/x509.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { splitPem } from '../trust/authorities.ts';

/** The only complaints of OpenSSL that are not final. */
const dateErrors: ReadonlySet<string> = new Set(['CERT_NOT_YET_VALID', 'CERT_HAS_EXPIRED']);

export interface ShownCertificate {
  /** Undefined where the server showed none. */
  certificate: X509Certificate | undefined;
  /** OpenSSL's verdict, null where it is content. */
  error: string | null;
}

/**
 * When the broker's certificate and the authority behind it are both within their dates. Everything else about
 * it has passed then. `host` is what was dialled, never the TLS server name. Refusal: `broker-server-untrusted`.
 */
export function checkBrokerCertificate(
  shown: ShownCertificate,
  authoritiesPem: string,
  host: string,
): Result<CertificateDates> {
  const { certificate, error } = shown;
  const untrusted = (detail: string) => refuse('broker-server-untrusted', detail);
  if (error !== null && !dateErrors.has(error)) return untrusted(error);
  if (certificate === undefined) return untrusted('the broker showed no certificate');
  const authorities = splitPem(authoritiesPem).flatMap((pem) => readCertificate(pem) ?? []);
  const authority = issuerOf(certificate, authorities);
  if (authority === null) return untrusted('issued by no authority of this fleet');
  if (!isServerCertificate(certificate)) return untrusted('no certificate of a server');
  const misled = checkServerIdentity(host, certificate.toLegacyObject());
  if (misled !== undefined) return untrusted(misled.message);
  const own = datesOf(certificate);
  const above = datesOf(authority);
  return ok({
    notBeforeMs: Math.max(own.notBeforeMs, above.notBeforeMs),
    notAfterMs: Math.min(own.notAfterMs, above.notAfterMs),
  });
}
