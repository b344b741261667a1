// Why: a device's clock may say anything; its region tells the time, signed and bound to one question.
// Trusts: the `time` keys of the region root in force. Must never: take an answer to another question, an old
// one would set the clock back to when it was given.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import {
  type Envelope,
  encodeMessage,
  payloadTypes,
  type TimeStatement,
  timeStatementSchema,
} from '../wire/messages.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

export function signTime(statement: TimeStatement, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.time, encodeMessage(statement), [signer]);
}

/**
 * The time that the region says it is, Unix milliseconds. Refusals, in order: `envelope-malformed`,
 * `time-signature-invalid`, `message-malformed`, `time-replayed` (another nonce, device or region).
 */
export function checkTime(parts: {
  envelope: Envelope;
  regionRoot: RegionRoot;
  deviceId: string;
  region: string;
  /** Of the question that waits, hex. */
  nonce: string;
}): Result<number> {
  const { envelope, regionRoot, deviceId, region, nonce } = parts;
  const { keys, threshold } = regionRoot.roles.time;
  const opened = openEnvelope(
    envelope,
    payloadTypes.time,
    keys.map((key) => key.publicKey),
    threshold,
    'time-signature-invalid',
  );
  if (!opened.ok) return opened;
  const body = readSignedBody(timeStatementSchema, opened.value, 'message-malformed');
  if (!body.ok) return body;
  const statement = body.value;
  if (statement.deviceId !== deviceId || statement.region !== region) {
    return refuse('time-replayed', `it answers device ${statement.deviceId} of ${statement.region}`);
  }
  if (statement.nonce !== nonce) return refuse('time-replayed', 'it answers another question');
  return ok(statement.timeMs);
}
