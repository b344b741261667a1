// Why: a connection that failed becomes a code that an operator can act on.
// Trusts: Node and OpenSSL to name an error always the same way; they tell it by these codes only.
// Must never: take an alert of the other side for a judgement of our own.

import type { ErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';

/** What a failed connection means. Node and OpenSSL tell it by these codes only. */
export function refusalOf(error: unknown): { code: ErrorCode; detail: string } {
  const detail = error instanceof Error ? error.message : String(error);
  if (error instanceof FleetError) return { code: error.code, detail };
  const found = error instanceof Error && 'code' in error ? error.code : undefined;
  // CONNACK return codes, MQTT 3.1.1 table 3.1.
  if (found === 2) return { code: 'broker-client-id-borrowed', detail };
  if (found === 4 || found === 5) return { code: 'broker-not-authorized', detail };
  const name = String(found);
  if (name === 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED') return { code: 'broker-no-certificate', detail };
  if (/^ERR_SSL_.*ALERT_.*(CERTIFICATE|UNKNOWN_CA)/.test(name))
    return { code: 'broker-certificate-untrusted', detail };
  return { code: 'broker-unreachable', detail };
}
