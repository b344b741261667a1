// Why: what a device's present region may say about a batch that it carries for the old one: that it does not take it now.
// Trusts: the present region's `ack` key for that alone. Must never: be taken for the word of the region whose batch it is.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { type Result, refuse } from '../kernel/result.ts';
import { type CarriedNotice, carriedNoticeSchema } from '../wire/carried.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../wire/messages.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

export function signNotice(notice: CarriedNotice, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.carriedNotice, encodeMessage(notice), [signer]);
}

/** Refusals: `envelope-malformed`, `telemetry-answer-invalid`. */
export function checkNotice(parts: {
  envelope: Envelope;
  regionRoot: RegionRoot;
  deviceId: string;
}): Result<CarriedNotice> {
  const { keys, threshold } = parts.regionRoot.roles.ack;
  const opened = openEnvelope(
    parts.envelope,
    payloadTypes.carriedNotice,
    keys.map((key) => key.publicKey),
    threshold,
    'telemetry-answer-invalid',
  );
  if (!opened.ok) return opened;
  const body = readSignedBody(carriedNoticeSchema, opened.value, 'telemetry-answer-invalid');
  if (!body.ok) return body;
  if (body.value.deviceId !== parts.deviceId || body.value.region !== parts.regionRoot.region)
    return refuse('telemetry-answer-invalid', `a notice for device ${body.value.deviceId}`);
  return body;
}
