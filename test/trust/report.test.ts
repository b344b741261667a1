// Why: a device alone speaks for itself, and says each thing once. Trusts: shared/crypto.
// Must never: accept a report by another key, of another kind, or again.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { checkReport, signReport } from '../../shared/trust/report.ts';
import { type Envelope, encodeMessage, payloadTypes, type Report } from '../../shared/wire/messages.ts';
import { codeOf, nowMs } from './catalogue-fixture.ts';
import { device, deviceId, other } from './region-fixture.ts';

function report(changes: Partial<Report> = {}): Report {
  return {
    schemaVersion: 1,
    deviceId,
    region: 'eu',
    counter: 8,
    sentAtMs: nowMs,
    verifiedTimeMs: 0,
    epoch: 5,
    timezone: 'Europe/Berlin',
    agent: { version: '0.1.0', runtime: 'onnxruntime 1', arch: 'x64' },
    models: [],
    refusals: [{ id: 1, code: 'blob-digest-mismatch', detail: 'a \u2028 line', atMs: nowMs }],
    outbox: null,
    ...changes,
  };
}

describe('a report', () => {
  const judge = (envelope: Envelope, lastCounter = 7, key = device.publicKey, id = deviceId): string =>
    codeOf(checkReport({ envelope, devicePublicKey: key, deviceId: id, lastCounter }));

  it('of the device is read back whole', () => {
    const checked = checkReport({
      envelope: signReport(report(), device),
      devicePublicKey: device.publicKey,
      deviceId,
      lastCounter: 0,
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
});
