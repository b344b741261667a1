// Why: the broker's certificate has dates, and so has the device's own; which clock judges them, and what a
// session may be used for meanwhile (DESIGN 3 "Time"). Pure.
// Trusts: signed time of this start. Must never: judge by the floor: a stolen key could have raised it beyond
// every certificate, and the connection that brings the cure would be refused.

import { type CertificateDates, isWithin } from '../../shared/crypto/x509.ts';

/** `time`: signed time may be asked for, and nothing else. `renewal`: that, and a new certificate. */
export type Admission = 'full' | 'time' | 'renewal' | 'refused';

/**
 * Signed time that is younger is the last word on a date. Older, it is asked for once more: the monotonic clock
 * stands still while a machine sleeps.
 */
const lastWordMs = 10 * 60_000;

export function admitBroker(parts: {
  dates: CertificateDates;
  wallMs: number;
  signed: { nowMs: number; ageMs: number } | null;
}): 'full' | 'time' | 'refused' {
  const { dates, wallMs, signed } = parts;
  if (signed === null) return isWithin(dates, wallMs) ? 'full' : 'time';
  if (isWithin(dates, signed.nowMs)) return 'full';
  return signed.ageMs > lastWordMs ? 'time' : 'refused';
}

/** How this start fared with its own certificate; part of `line.ts`'s state. */
export interface OwnStanding {
  /** Full sessions that the broker denied in a row. */
  denied: number;
  /** The last session for a renewal alone brought none: the next one tries everything again. */
  renewalFailed: boolean;
}

/**
 * What to ask of a broker whose own certificate is good. That the device's has expired is only a guess of its own:
 * the broker decides, so a renewal that is not had is followed by a full attempt.
 */
export function admitSelf(parts: {
  notAfterMs: number;
  signed: { nowMs: number } | null;
  standing: OwnStanding;
}): 'full' | 'renewal' {
  const { notAfterMs, signed, standing } = parts;
  if (standing.renewalFailed) return 'full';
  const expired = signed !== null && signed.nowMs > notAfterMs;
  return expired || standing.denied > 0 ? 'renewal' : 'full';
}
