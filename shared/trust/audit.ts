// Why: each audit entry is bound to all before it by a digest, and the region signs how far its chain went: nothing in it can
// be changed, left out or put elsewhere without a digest or a signed head that does not fit any more.
// Trusts: the `ack` keys of the region's roots. Must never: give two entries one digest.

import { canonicalJson } from '../crypto/canonical-json.ts';
import { sha256Hex } from '../crypto/digests.ts';
import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { type Result, refuse } from '../kernel/result.ts';
import {
  type AuditClosing,
  type AuditEntryBody,
  type AuditHead,
  auditClosingSchema,
  auditHeadSchema,
} from '../wire/audit.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../wire/messages.ts';
import { readSignedBody } from './signed-body.ts';
import type { RoleKeys } from './tuf/metadata.ts';

/** What the first entry names as the digest before it. */
export const noEntrySha256 = '0'.repeat(64);

/** Action of the first entry: its detail names the digest of the region's first root. */
export const auditBegin = { action: 'audit.begin', rootSha256: 'regionRootSha256' } as const;

/** SHA-256 of the entry's canonical JSON, the digest before it included. */
export function auditEntrySha256(entry: AuditEntryBody): string {
  const { id, atMs, region, actor, via, action, subject, reason, outcome, code, rule, address } = entry;
  const { detail, previousSha256 } = entry;
  return sha256Hex(
    canonicalJson({
      ...{ id, atMs, region, actor, via, action, subject, reason, outcome, code, rule, address },
      ...{ detail, previousSha256 },
    }),
  );
}

export function signAuditHead(head: AuditHead, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.auditHead, encodeMessage(head), [signer]);
}

export function signAuditClosing(closing: AuditClosing, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.auditExport, encodeMessage(closing), [signer]);
}

/** The payload, where the `ack` keys of any of these roots signed it. */
function opened(envelope: Envelope, payloadType: string, signers: readonly RoleKeys[]): Result<Uint8Array> {
  let last: Result<Uint8Array> = refuse('audit-head-invalid', 'nobody is known who may sign for the region');
  for (const { keys, threshold } of signers) {
    const publicKeys = keys.map(({ publicKey }) => publicKey);
    last = openEnvelope(envelope, payloadType, publicKeys, threshold, 'audit-head-invalid');
    if (last.ok) return last;
  }
  return last;
}

/**
 * How far a region's chain went. `signers`: the `ack` roles of its roots, also of earlier ones: a head is kept for years.
 * Refusals: `envelope-malformed`, `audit-head-invalid`.
 */
export function checkAuditHead(
  envelope: Envelope,
  region: string,
  signers: readonly RoleKeys[],
): Result<AuditHead> {
  const payload = opened(envelope, payloadTypes.auditHead, signers);
  if (!payload.ok) return payload;
  const head = readSignedBody(auditHeadSchema, payload.value, 'audit-head-invalid');
  if (head.ok && head.value.region !== region)
    return refuse('audit-head-invalid', `it is a head of ${head.value.region}, not of ${region}`);
  return head;
}

/** The last line of an export. Refusals: as above. */
export function checkAuditClosing(
  envelope: Envelope,
  region: string,
  signers: readonly RoleKeys[],
): Result<AuditClosing> {
  const payload = opened(envelope, payloadTypes.auditExport, signers);
  if (!payload.ok) return payload;
  const closing = readSignedBody(auditClosingSchema, payload.value, 'audit-head-invalid');
  if (closing.ok && closing.value.region !== region)
    return refuse('audit-head-invalid', `it closes an export of ${closing.value.region}, not of ${region}`);
  return closing;
}
