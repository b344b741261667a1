// Why: what a device says about itself, signed by its own key, so that neither a broker nor another region
// can speak for it. Trusts: the device's public key from its certificate.
// Must never: accept a counter twice; an old report would hide what happened since.

import { sha256Hex } from '../crypto/digests.ts';
import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { deviceIdOf } from '../crypto/spki.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type Envelope, encodeMessage, payloadTypes, type Report, reportSchema } from '../wire/messages.ts';
import { readSignedBody } from './signed-body.ts';

export function signReport(report: Report, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.report, encodeMessage(report), [signer]);
}

/** What the registry keeps of the last report it took of a device. */
export interface ReportStanding {
  /** 0 where none was taken. */
  counter: number;
  /** Hex digest of its payload. */
  payloadSha256: string | null;
  boot: number;
  /** Counter of the first report that was taken of this start. */
  bootCounter: number;
  session: string;
  /**
   * Set when a quarantine ended: nobody knows which of the two devices goes on, so its numbers begin anew with
   * the first report that knows an assignment issued since; an older report cannot.
   */
  fromEpoch: number | null;
}

export const noReportYet: ReportStanding = {
  counter: 0,
  payloadSha256: null,
  boot: 0,
  bootCounter: 0,
  session: '',
  fromEpoch: null,
};

/**
 * Whether this is a new report of that device. Refusals, in order: `envelope-malformed`,
 * `report-signature-invalid` (also where it speaks for another device), `message-malformed`, `report-cloned`
 * (two devices sign with this key), `report-replayed`.
 */
export function checkReport(parts: {
  envelope: Envelope;
  devicePublicKey: Uint8Array;
  deviceId: string;
  last: ReportStanding;
}): Result<Report> {
  const { envelope, devicePublicKey, deviceId, last } = parts;
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
  const placed = checkPlace(report, sha256Hex(opened.value), last);
  return placed.ok ? ok(report) : placed;
}

/**
 * A device's starts and counters grow together, and one start has one session. Whoever owns the bus can repeat
 * what the device signed, but never make it sign against that: only a second device with the same key does.
 */
function checkPlace(report: Report, payloadSha256: string, last: ReportStanding): Result<void> {
  const { counter, boot, session } = report;
  if (last.fromEpoch !== null) {
    return report.epoch >= last.fromEpoch
      ? ok()
      : refuse('report-replayed', `from before the device was released (epoch ${report.epoch})`);
  }
  if (last.payloadSha256 !== null) {
    if (boot === last.boot && session !== last.session) {
      return refuse('report-cloned', `start ${boot} happened twice`);
    }
    if (boot > last.boot && counter <= last.counter) {
      return refuse(
        'report-cloned',
        `start ${boot} signs counter ${counter}, start ${last.boot} ${last.counter}`,
      );
    }
    if (boot < last.boot && counter >= last.bootCounter) {
      return refuse('report-cloned', `start ${boot} goes on beside start ${last.boot}`);
    }
    if (counter === last.counter && payloadSha256 !== last.payloadSha256) {
      return refuse('report-cloned', `two reports with counter ${counter}`);
    }
  }
  if (counter <= last.counter) {
    return refuse('report-replayed', `counter ${counter} after ${last.counter}`);
  }
  return ok();
}
