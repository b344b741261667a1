// Why: decides who a connection is, from its certificate alone, before any MQTT is read (DESIGN 3).
// Trusts: the fleet's CA. Must never: believe a name that the certificate's own public key contradicts,
// nor rely on the TLS library's verdict, which cannot tell an expired claim from a forged one.

import { X509Certificate } from 'node:crypto';
import { deviceIdOf, publicKeyFromSpki } from '../../shared/crypto/spki.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { deviceIdPattern } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

/** Who holds the certificate's key. The attempt of a claim is known only from the client id. */
export type CertificateIdentity =
  /** `expired`: nothing is wrong with the certificate but that its time is over. */
  { kind: 'device'; deviceId: string; expired?: true } | { kind: 'claim'; claimId: string };

/** For logs and refusals: the device id, or `claim:<id>`. */
export function subjectOf(identity: CertificateIdentity): string {
  return identity.kind === 'device' ? identity.deviceId : `claim:${identity.claimId}`;
}

export interface IdentityCheck {
  /** Refusals: `broker-no-certificate`, `broker-certificate-untrusted`. */
  identify(certificate: X509Certificate | undefined, nowMs: number): Result<CertificateIdentity>;
}

/** Extended key usage id-kp-clientAuth, RFC 5280 §4.2.1.12. */
const clientAuth = '1.3.6.1.5.5.7.3.2';
const claimIdPattern = /^[a-z0-9]{16,32}$/;

function authoritiesOf(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new FleetError('config-invalid', 'the fleet CA is no PEM certificate');
  return blocks.map((block) => new X509Certificate(block));
}

function within(certificate: X509Certificate, nowMs: number): 'early' | 'valid' | 'expired' {
  // Date.parse alone: these are the certificate's dates, not a clock.
  if (nowMs < Date.parse(certificate.validFrom)) return 'early';
  return nowMs > Date.parse(certificate.validTo) ? 'expired' : 'valid';
}

/** `caPem`: one or more CA certificates. Fault: `config-invalid`. */
export function identityCheck(caPem: string): IdentityCheck {
  const authorities = authoritiesOf(caPem);
  const untrusted = (detail: string) => refuse('broker-certificate-untrusted', detail);
  return {
    identify(certificate, nowMs) {
      if (certificate === undefined)
        return refuse('broker-no-certificate', 'the client showed no certificate');
      const authority = authorities.find(
        (candidate) => certificate.checkIssued(candidate) && certificate.verify(candidate.publicKey),
      );
      if (authority === undefined) return untrusted('issued by another authority');
      if (within(authority, nowMs) !== 'valid') return untrusted('the fleet CA is outside its dates');
      if (certificate.ca || !certificate.keyUsage?.includes(clientAuth))
        return untrusted('no client certificate');
      const key = publicKeyFromSpki(
        new Uint8Array(certificate.publicKey.export({ type: 'spki', format: 'der' })),
      );
      if (!key.ok) return untrusted(key.refusal.detail);

      const dates = within(certificate, nowMs);
      if (dates === 'early') return untrusted('not valid yet');
      // The whole subject is one common name; anything beside it is not of our making.
      const name = /^CN=([^\n]+)$/.exec(certificate.subject)?.[1] ?? '';
      // Claims of before brokers of other makers were served say `claim:`.
      const claimId = name.startsWith('claim:') ? name.slice(6) : name;
      if (claimIdPattern.test(claimId) && !deviceIdPattern.test(name)) {
        // An expired claim may still connect: the registry answers it `claim-expired` on its own topics,
        // which is all it can reach.
        return ok({ kind: 'claim', claimId });
      }
      if (!deviceIdPattern.test(name)) return untrusted('its subject is neither a device nor a claim');
      if (deviceIdOf(key.value) !== name) return untrusted('its subject is not the id of its own key');
      // It may ask for a new certificate, and for nothing else (shared/wire/topics.ts).
      if (dates === 'expired') return ok({ kind: 'device', deviceId: name, expired: true });
      return ok({ kind: 'device', deviceId: name });
    },
  };
}
