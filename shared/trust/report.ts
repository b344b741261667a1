// Why: what a device says about itself, signed by its own key, so that neither a broker nor another region
// can speak for it. Trusts: the device's public key from its certificate.
// Must never: accept a counter twice; an old report would hide what happened since.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { deviceIdOf } from '../crypto/spki.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type Envelope, encodeMessage, payloadTypes, type Report, reportSchema } from '../wire/messages.ts';
import { readSignedBody } from './signed-body.ts';

export function signReport(report: Report, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.report, encodeMessage(report), [signer]);
}

/**
 * Whether this is a new report of that device. `lastCounter` is the highest one accepted before, 0 for none.
 * Refusals, in order: `envelope-malformed`, `report-signature-invalid` (also where it speaks for another
 * device), `message-malformed`, `report-replayed`.
 */
export function checkReport(parts: {
  envelope: Envelope;
  devicePublicKey: Uint8Array;
  deviceId: string;
  lastCounter: number;
}): Result<Report> {
  const { envelope, devicePublicKey, deviceId, lastCounter } = parts;
  if (deviceIdOf(devicePublicKey) !== deviceId) {
    return refuse('report-signature-invalid', 'the key is not the one that the device id was made of');
  }
  const opened = openEnvelope(
    envelope,
    payloadTypes.report,
    [devicePublicKey],
    1,
    'report-signature-invalid',
  );
  if (!opened.ok) return opened;
  const body = readSignedBody(reportSchema, opened.value, 'message-malformed');
  if (!body.ok) return body;
  const report = body.value;
  if (report.deviceId !== deviceId) {
    return refuse('report-signature-invalid', `it speaks for device ${report.deviceId}`);
  }
  if (report.counter <= lastCounter) {
    return refuse('report-replayed', `counter ${report.counter} after ${lastCounter}`);
  }
  return ok(report);
}
