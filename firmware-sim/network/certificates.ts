// Why: certificates are really checked in the simulated world, but each question once: what is asked is a pure
// function of its texts, and a world reconnects its devices thousands of times.
// Trusts: the real checks. Must never: remember an answer that depends on a clock.

import { createPrivateKey, type X509Certificate } from 'node:crypto';
import { type CertificateDates, readCertificate } from '../../shared/crypto/x509.ts';
import { checkBrokerCertificate } from '../../shared/host/broker-certificate.ts';
import type { Result } from '../../shared/kernel/result.ts';

export interface Certificates {
  /** Undefined where it is no certificate. */
  read(pem: string): X509Certificate | undefined;
  /** Throws, as Node's TLS does, where the key is not the certificate's. */
  checkKey(pem: string, key: string): void;
  /** What a device says of the certificate that a broker shows it (broker-certificate.ts). */
  judge(shown: string, authorities: string, host: string): Result<CertificateDates>;
}

/** An answer for each set of texts. */
function remembered<T>(work: (...texts: string[]) => T): (...texts: string[]) => T {
  const answers = new Map<string, { value: T }>();
  return (...texts) => {
    const key = texts.join('\n|');
    const known = answers.get(key) ?? { value: work(...texts) };
    answers.set(key, known);
    return known.value;
  };
}

export function createCertificates(): Certificates {
  const read = remembered((pem = '') => readCertificate(pem) ?? undefined);
  const fits = remembered((pem = '', key = '') => read(pem)?.checkPrivateKey(createPrivateKey(key)) === true);
  const judge = remembered((shown = '', authorities = '', host = '') =>
    checkBrokerCertificate({ certificate: read(shown), error: null }, authorities, host),
  );
  return {
    read,
    checkKey: (pem, key) => {
      if (!fits(pem, key)) throw new Error('key values mismatch');
    },
    judge,
  };
}
