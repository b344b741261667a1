// Why: which refusals mean that somebody tried something, and which only that something went wrong.
// Trusts: nothing. Must never: call a lost line or a slow registry an attack; an operator is woken by these.

import type { ErrorCode } from '../kernel/codes.ts';

const attackCodes: ReadonlySet<string> = new Set<ErrorCode>([
  'metadata-malformed',
  'metadata-signature-invalid',
  'metadata-version-invalid',
  'metadata-rollback',
  'metadata-digest-mismatch',
  'metadata-too-large',
  'target-unknown',
  'target-digest-mismatch',
  'key-invalid',
  'envelope-malformed',
  'assignment-signature-invalid',
  'assignment-other-device',
  'assignment-replayed',
  'assignment-epoch-reused',
  'assignment-malformed',
  'assignment-other-region',
  'release-counter-mismatch',
  'release-requires-mismatch',
  'release-below-floor',
  'release-withdrawn',
  'time-signature-invalid',
  'time-replayed',
  'authorities-invalid',
  'held-invalid',
  'report-signature-invalid',
  'report-replayed',
  'report-cloned',
  'blob-digest-mismatch',
  'blob-size-mismatch',
  'enrolment-root-mismatch',
  'enrolment-certificate-invalid',
  'broker-certificate-untrusted',
  'broker-server-untrusted',
  'broker-client-id-borrowed',
  'broker-publish-denied',
  'broker-subscribe-denied',
  'fetch-denied',
  'telemetry-signature-invalid',
  'telemetry-other-device',
  'telemetry-replayed',
  'telemetry-chain-broken',
  'telemetry-cloned',
  'telemetry-body-mismatch',
  'telemetry-wrap-mismatch',
  'telemetry-answer-invalid',
  'audit-head-invalid',
  'audit-head-equivocation',
  'audit-head-rollback',
  'audit-head-time-backwards',
  'cells-invalid',
  'cells-changed',
]);

/** Whether a refusal with this code is shown as an attack. */
export function isAttack(code: string): boolean {
  return attackCodes.has(code);
}
