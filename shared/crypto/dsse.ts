// Why: objects of our own (assignment, report, …) are signed as DSSE envelopes; the payload type is part of
// what is signed, so that one kind of object can never be taken for another.
// Trusts: the keys the caller names, nothing in the envelope. Must never: count one key twice.

import type { ErrorCode } from '../kernel/codes.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import type { Envelope } from '../wire/messages.ts';
import { type Signer, tufKeyId, verify } from './ed25519.ts';

/** DSSE v1 "PAE": what is really signed. Lengths are in bytes, so no payload can imitate another type. */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Uint8Array {
  const type = Buffer.from(payloadType, 'utf8');
  const head = Buffer.from(`DSSEv1 ${type.length} ${payloadType} ${payload.length} `, 'utf8');
  return new Uint8Array(Buffer.concat([head, payload]));
}

/** An envelope with one signature for each signer. */
export function signEnvelope(payloadType: string, payload: Uint8Array, signers: readonly Signer[]): Envelope {
  const message = preAuthEncoding(payloadType, payload);
  return {
    payloadType,
    payload: Buffer.from(payload).toString('base64'),
    signatures: signers.map((signer) => ({
      keyid: signer.keyId,
      sig: Buffer.from(signer.sign(message)).toString('base64'),
    })),
  };
}

/**
 * The payload, once `threshold` different keys of `keys` (raw, 32 bytes) have signed it under this payload
 * type. The key id only selects which key to try; it proves nothing. Refusals: `envelope-malformed`, and
 * `signatureCode` (by default also `envelope-malformed`) where signatures are missing or wrong.
 */
export function openEnvelope(
  envelope: Envelope,
  payloadType: string,
  keys: readonly Uint8Array[],
  threshold: number,
  signatureCode: ErrorCode = 'envelope-malformed',
): Result<Uint8Array> {
  if (envelope.payloadType !== payloadType) {
    return refuse('envelope-malformed', `payload type is not ${payloadType}`);
  }
  const payload = decodeBase64(envelope.payload);
  if (payload === null) return refuse('envelope-malformed', 'the payload is not base64');
  if (threshold < 1) return refuse(signatureCode, 'a threshold below one proves nothing');
  const message = preAuthEncoding(payloadType, payload);
  const signedBy = new Set<string>();
  for (const key of keys) {
    const keyId = tufKeyId(key);
    const isValid = envelope.signatures.some((signature) => {
      const bytes = signature.keyid === keyId ? decodeBase64(signature.sig) : null;
      return bytes !== null && verify(key, message, bytes);
    });
    if (isValid) signedBy.add(keyId);
  }
  if (signedBy.size < threshold) {
    return refuse(signatureCode, `${signedBy.size} of ${threshold} needed signatures are valid`);
  }
  return ok(payload);
}

/** Standard base64 in its one canonical spelling, or null. */
function decodeBase64(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? new Uint8Array(bytes) : null;
}
