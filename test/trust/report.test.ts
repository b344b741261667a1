// Why: a device alone speaks for itself, and says each thing once. Trusts: shared/crypto.
// Must never: accept a report by another key, of another kind, or again.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { checkReport, noReportYet, type ReportStanding, signReport } from '../../shared/trust/report.ts';
import { type Envelope, encodeMessage, payloadTypes, type Report } from '../../shared/wire/messages.ts';
import { codeOf, nowMs } from './catalogue-fixture.ts';
import { device, deviceId, other } from './region-fixture.ts';

function report(changes: Partial<Report> = {}): Report {
  return {
    schemaVersion: 1,
    deviceId,
    region: 'eu',
    counter: 8,
    boot: 3,
    session: 'a'.repeat(32),
    sentAtMs: nowMs,
    verifiedTimeMs: 0,
    epoch: 5,
    timezone: 'Europe/Berlin',
    agent: { version: '0.1.0', runtime: 'onnxruntime 1', arch: 'x64' },
    models: [],
    refusals: [{ id: 1, code: 'blob-digest-mismatch', detail: 'a \u2028 line', atMs: nowMs, attack: true }],
    outbox: null,
    held: { root: 2, regionRoot: 1, timestamp: 9, snapshot: 4, targets: 3 },
    clock: { wallMs: nowMs, source: 'signed' },
    certificateExpiresAtMs: nowMs,
    ...changes,
  };
}

describe('a report', () => {
  const judge = (envelope: Envelope, counter = 7, key = device.publicKey, id = deviceId): string =>
    codeOf(
      checkReport({
        envelope,
        devicePublicKey: key,
        deviceId: id,
        last: { ...noReportYet, counter },
      }),
    );

  it('of the device is read back whole', () => {
    const checked = checkReport({
      envelope: signReport(report(), device),
      devicePublicKey: device.publicKey,
      deviceId,
      last: noReportYet,
    });
    assert.deepEqual(checked, { ok: true, value: report() });
  });

  it('is refused from anybody else, twice, or malformed', () => {
    const good = signReport(report(), device);
    assert.equal(judge(good), 'ok');
    assert.equal(judge(good, 8), 'report-replayed');
    assert.equal(judge(signReport(report(), other)), 'report-signature-invalid');
    assert.equal(judge(good, 7, other.publicKey), 'report-signature-invalid');
    assert.equal(judge(good, 7, device.publicKey, deviceIdOf(other.publicKey)), 'report-signature-invalid');
    const foreign = signReport(report({ deviceId: deviceIdOf(other.publicKey) }), device);
    assert.equal(judge(foreign), 'report-signature-invalid');
    assert.equal(
      judge(signReport(report(), other), 7, other.publicKey),
      'report-signature-invalid',
      'a key of another id',
    );
    const malformed = signEnvelope(payloadTypes.report, encodeMessage({ ...report(), counter: 0 }), [device]);
    assert.equal(judge(malformed), 'message-malformed');
    const assigned = signEnvelope(payloadTypes.assignment, encodeMessage(report()), [device]);
    assert.equal(judge(assigned), 'envelope-malformed');
    assert.equal(judge({ ...assigned, payloadType: payloadTypes.report }), 'report-signature-invalid');
  });

  const standing: ReportStanding = {
    counter: 8,
    payloadSha256: 'f'.repeat(64),
    boot: 3,
    bootCounter: 7,
    session: 'a'.repeat(32),
    fromEpoch: null,
  };
  const cases: [string, Partial<Report>, Partial<ReportStanding>, string][] = [
    ['the next of one start', { counter: 9 }, {}, 'ok'],
    ['the first of the next start', { counter: 9, boot: 4, session: 'b'.repeat(32) }, {}, 'ok'],
    ['an older one of this start', { counter: 5 }, {}, 'report-replayed'],
    [
      'an older one of an older start',
      { counter: 5, boot: 2, session: 'c'.repeat(32) },
      {},
      'report-replayed',
    ],
    ['the same counter with other words', { counter: 8 }, {}, 'report-cloned'],
    ['the same start with another session', { counter: 9, session: 'b'.repeat(32) }, {}, 'report-cloned'],
    ['a later start with a lower counter', { counter: 5, boot: 4 }, {}, 'report-cloned'],
    ['an earlier start that goes on', { counter: 9, boot: 2 }, {}, 'report-cloned'],
    ['an earlier start that uses a counter of this start', { counter: 7, boot: 2 }, {}, 'report-cloned'],
    ['the last one before this start', { counter: 6, boot: 2 }, {}, 'report-replayed'],
    ['after a release, from before it', { counter: 9, epoch: 5 }, { fromEpoch: 6 }, 'report-replayed'],
    ['after a release, any number that knows of it', { counter: 2, epoch: 6 }, { fromEpoch: 6 }, 'ok'],
  ];
  for (const [what, changes, last, code] of cases) {
    it(`${what}: ${code}`, () => {
      const checked = checkReport({
        envelope: signReport(report(changes), device),
        devicePublicKey: device.publicKey,
        deviceId,
        last: { ...standing, ...last },
      });
      assert.equal(codeOf(checked), code);
    });
  }
});
