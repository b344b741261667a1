// Why: when a device asks for a new certificate, and which answers it takes (DESIGN 3 "Time", issue 4.6).
// Trusts: the region root for the list of authorities, that list for certificates.
// Must never: take a certificate for another key, or of an authority that the region did not name.

import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { certifiesDevice, datesOf, readCertificate } from '../../shared/crypto/x509.ts';
import { type ErrorCode, isErrorCode } from '../../shared/kernel/codes.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { authoritiesSha256, checkAuthorities, splitPem } from '../../shared/trust/authorities.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import type { Assignment } from '../../shared/wire/messages.ts';
import { parseMessage, renewReplySchema } from '../../shared/wire/messages.ts';
import type { DeviceCredentials, Identity } from './identity.ts';

/** End of a certificate, Unix milliseconds; 0 where it cannot be read. */
export function certificateEndMs(pem: string): number {
  const certificate = readCertificate(pem);
  return certificate === null ? 0 : datesOf(certificate).notAfterMs;
}

/**
 * When to renew, Unix milliseconds: in the last third of the certificate's life, within the first half of it, so
 * that a fleet enrolled on one day does not come back on one day. `share` is drawn once a start, in [0, 1).
 */
export function renewalDueMs(pem: string, share: number): number {
  const certificate = readCertificate(pem);
  if (certificate === null) return 0;
  const { notBeforeMs, notAfterMs } = datesOf(certificate);
  const thirdMs = (notAfterMs - notBeforeMs) / 3;
  return Math.floor(notAfterMs - thirdMs + (share * thirdMs) / 2);
}

/** Whether the assignment names other authorities than those that are held; renewing brings them. */
export function wantsOtherAuthorities(assignment: Assignment | null, fleetCa: string): boolean {
  const wanted = assignment?.authoritiesSha256 ?? null;
  return wanted !== null && wanted !== authoritiesSha256(splitPem(fleetCa));
}

/** Refusals that a person must see to; asking again soon changes nothing. */
export function isFinal(code: ErrorCode): boolean {
  return code === 'renewal-refused' || code === 'device-revoked';
}

/**
 * The credentials that an answer brings. Refusals: the registry's own (`device-revoked`, `renewal-refused`),
 * `message-malformed`, `authorities-invalid`, `enrolment-certificate-invalid` (not this key's, or of an authority
 * that the list does not name), `certificate-expired` (over already).
 */
export function acceptRenewal(
  payload: Uint8Array,
  parts: { identity: Identity; regionRoot: RegionRoot; nowMs: number },
): Result<DeviceCredentials> {
  const { identity, regionRoot, nowMs } = parts;
  const reply = parseMessage(renewReplySchema, payload);
  if (!reply.ok) return reply;
  const { result } = reply.value;
  if (result.status === 'refused') {
    return refuse(isErrorCode(result.code) ? result.code : 'renewal-refused', result.detail);
  }
  const authorities = checkAuthorities({
    envelope: result.authorities,
    regionRoot,
    region: identity.region,
    heldIssuedAtMs: identity.authoritiesIssuedAtMs,
  });
  if (!authorities.ok) return authorities;
  const certificates = authorities.value.certificates.flatMap(splitPem);
  const { certificate } = result;
  if (!certifiesDevice(certificate, publicKeyOf(identity.seed), certificates)) {
    return refuse('enrolment-certificate-invalid', `no certificate of this fleet for ${identity.deviceId}`);
  }
  if (certificateEndMs(certificate) <= nowMs) {
    return refuse('certificate-expired', 'the certificate received is over already');
  }
  return ok({
    certificate,
    fleetCa: certificates.join(''),
    authoritiesIssuedAtMs: authorities.value.issuedAtMs,
  });
}
