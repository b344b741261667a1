// Why: proof that a region deleted what it held of a device, for whoever asked for it and for auditors.
// Trusts: the `ack` keys of a region root. Must never: read as done what nobody signed.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import type { Result } from '../kernel/result.ts';
import { type ErasureStatement, erasureStatementSchema } from '../wire/erasure.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../wire/messages.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

export function signErasure(statement: ErasureStatement, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.erasure, encodeMessage(statement), [signer]);
}

/** What the region says it deleted. Refusals: `envelope-malformed`, `erasure-invalid`. */
export function checkErasure(envelope: Envelope, regionRoot: RegionRoot): Result<ErasureStatement> {
  const { keys, threshold } = regionRoot.roles.ack;
  const opened = openEnvelope(
    envelope,
    payloadTypes.erasure,
    keys.map((key) => key.publicKey),
    threshold,
    'erasure-invalid',
  );
  if (!opened.ok) return opened;
  return readSignedBody(erasureStatementSchema, opened.value, 'erasure-invalid');
}
