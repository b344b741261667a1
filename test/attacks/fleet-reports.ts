// Why: attacks in the name of a device on its registry: what it says about itself.
// Trusts: keys made of names. Must never: need a broker.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkReport, noReportYet, type ReportStanding, signReport } from '../../shared/trust/report.ts';
import { type Envelope, encodeMessage, payloadTypes, type Report } from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow, withDuplicateKey } from './direct-rows.ts';
import { region } from './fleet-region.ts';
import { nowMs, signerNamed } from './hostile-repository.ts';

export const device = signerNamed('device');
export const other = signerNamed('another device');
export const deviceId = deviceIdOf(device.publicKey);
export const otherId = deviceIdOf(other.publicKey);

const report: Report = {
  schemaVersion: 1,
  deviceId,
  region,
  counter: 8,
  boot: 3,
  session: 'a'.repeat(32),
  sentAtMs: nowMs,
  verifiedTimeMs: 0,
  epoch: 5,
  timezone: 'Europe/Berlin',
  agent: { version: '0.1.0', runtime: 'onnxruntime 1', arch: 'x64' },
  models: [],
  refusals: [],
  outbox: null,
  held: null,
  clock: null,
  certificateExpiresAtMs: null,
};

const standing: ReportStanding = {
  counter: 7,
  payloadSha256: 'b'.repeat(64),
  boot: 3,
  bootCounter: 6,
  session: 'a'.repeat(32),
  fromEpoch: null,
};

function judgeReport(
  envelope: Envelope,
  last: ReportStanding = standing,
  key = device.publicKey,
): Result<unknown> {
  return checkReport({ envelope, devicePublicKey: key, deviceId, last });
}

/** A genuine report of this device, for the fuzzing. */
export const reportOf = (changes: Partial<Report>): Report => ({ ...report, ...changes });

const reported = (id: string, attack: string, code: ErrorCode, forged: () => Result<unknown>): AttackCase =>
  directRow('fleet', `report-${id}`, attack, code, () => ({
    honest: judgeReport(signReport(report, device)),
    forged: forged(),
  }));
const saying = (changes: Partial<Report>): Envelope => signReport({ ...report, ...changes }, device);

const reports: AttackCase[] = [
  reported('stranger', 'a report signed by another device', 'report-signature-invalid', () =>
    judgeReport(signReport(report, other)),
  ),
  reported(
    'other-key',
    'a report with a key that the device id was not made of',
    'report-signature-invalid',
    () => judgeReport(signReport(report, other), standing, other.publicKey),
  ),
  reported('other-device', 'a device that speaks for another', 'report-signature-invalid', () =>
    judgeReport(saying({ deviceId: otherId })),
  ),
  reported('edited', 'a report changed on its way', 'report-signature-invalid', () => {
    const payload = Buffer.from(encodeMessage({ ...report, epoch: 6 })).toString('base64');
    return judgeReport({ ...signReport(report, device), payload });
  }),
  reported('other-kind', 'a telemetry statement in the place of a report', 'envelope-malformed', () =>
    judgeReport(signEnvelope(payloadTypes.telemetryBatch, encodeMessage(report), [device])),
  ),
  reported('duplicate-key', 'a report in which the counter stands twice', 'message-malformed', () =>
    judgeReport(
      signEnvelope(payloadTypes.report, withDuplicateKey(encodeMessage(report), 'counter'), [device]),
    ),
  ),
  reported('out-of-schema', 'a report with counter 0', 'message-malformed', () =>
    judgeReport(saying({ counter: 0 })),
  ),
  reported('replayed', 'an older report again', 'report-replayed', () => judgeReport(saying({ counter: 6 }))),
  reported('replayed-last', 'the last report again', 'report-replayed', () => {
    const envelope = saying({ counter: 7 });
    const payloadSha256 = sha256Hex(Buffer.from(envelope.payload, 'base64'));
    return judgeReport(envelope, { ...standing, payloadSha256 });
  }),
  reported(
    'replayed-first',
    'a report of counter 7 where 7 was taken from an older registry',
    'report-replayed',
    () => judgeReport(saying({ counter: 7 }), { ...noReportYet, counter: 7 }),
  ),
  reported('clone-session', 'two devices with one key, in one start', 'report-cloned', () =>
    judgeReport(saying({ session: 'c'.repeat(32) })),
  ),
  reported('clone-later-boot', 'a clone with a later start and an old counter', 'report-cloned', () =>
    judgeReport(saying({ boot: 4, session: 'c'.repeat(32), counter: 6 })),
  ),
  reported('clone-earlier-boot', 'a clone that goes on in an earlier start', 'report-cloned', () =>
    judgeReport(saying({ boot: 2, session: 'c'.repeat(32) })),
  ),
  reported('clone-behind', 'a clone that is one start and some reports behind', 'report-cloned', () =>
    judgeReport(saying({ boot: 2, session: 'c'.repeat(32), counter: 6 })),
  ),
  reported('clone-counter', 'two reports with one counter', 'report-cloned', () =>
    judgeReport(saying({ counter: 7 })),
  ),
  reported(
    'from-before-release',
    'a report from before the device was released from quarantine',
    'report-replayed',
    () => judgeReport(saying({}), { ...standing, fromEpoch: 6 }),
  ),
];

export const reportAttacks: AttackCase[] = reports.map((one) => ({ ...one, by: 'registry' }));
