// Why: the sealed batch as a format: what is made can be opened, and nothing else can.
// Trusts: shared/crypto for the boxes. Must never: take its own word for a length.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseRecords } from '../../agent/telemetry/records.ts';
import { createStats } from '../../agent/telemetry/stats.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { boxKeyPairFromSeed } from '../../shared/crypto/sealed-box.ts';
import { sealSecret } from '../../shared/crypto/secretbox.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { sketchFromJson, sketchQuantile, sketchSchema } from '../../shared/stats/sketch.ts';
import {
  checkAnswer,
  checkBytes,
  checkStatement,
  decodeBatchMessage,
  encodeBatchMessage,
  encodeHead,
  encodeRows,
  lineBytes,
  makeWrap,
  openWrap,
  packRecords,
  paddedBytes,
  recordLine,
  sealRow,
  signAnswer,
  signStatement,
  unpackRecords,
} from '../../shared/trust/telemetry.ts';
import type { BatchHead, BatchStatement } from '../../shared/wire/telemetry.ts';
import { handClock } from '../agent/hand-clock.ts';
import { device, deviceId, other, trusted } from '../trust/region-fixture.ts';
import { ack, hex, record, region } from './outbox-scene.ts';

const keys = boxKeyPairFromSeed(new Uint8Array(32).fill(7));
const batchKey = new Uint8Array(32).fill(5);
const head: BatchHead = {
  schemaVersion: 1,
  deviceId,
  region,
  epoch: 1,
  sequence: 3,
  previousHeadSha256: 'a'.repeat(64),
  class: 'app',
  keyId: 'k1',
  openedAtMs: 1,
};
const lines = [0, 1, 2].map((number) => recordLine(record(number, 'ünïcode\n')));
const plainBytes = lines.reduce((sum, line) => sum + lineBytes(line), 0);
const code = (result: Result<unknown>): string => (result.ok ? 'ok' : result.refusal.code);

function wrapFor(headBytes: Uint8Array): Uint8Array {
  return unwrap(
    makeWrap({
      publicKey: hex(keys.publicKey),
      batchKey,
      headSha256: sha256Hex(headBytes),
      ephemeralSeed: new Uint8Array(32).fill(9),
    }),
  );
}

const statementOf = (
  format: BatchStatement['format'],
  changes: Partial<BatchStatement> = {},
): BatchStatement => ({
  schemaVersion: 1,
  head: '',
  format,
  recordCount: lines.length,
  wrapSha256: '',
  bodySha256: '',
  plainBytes,
  ...changes,
});

const open = (statement: BatchStatement, body: Uint8Array, plainBytesMax = 1 << 20) =>
  unpackRecords({ statement, body, batchKey, deflate: systemDeflate, plainBytesMax });

test('packed and rows hold the same records', async () => {
  const expected = [0, 1, 2].map((number) => record(number, 'ünïcode\n'));
  const packed = await packRecords(batchKey, lines, systemDeflate);
  assert.deepEqual(unwrap(await open(statementOf('packed'), packed)), expected);
  const rows = encodeRows(lines.map((line, index) => sealRow(batchKey, index, line)));
  assert.deepEqual(unwrap(await open(statementOf('rows'), rows)), expected);
  assert.deepEqual(unwrap(await open(statementOf('tombstone'), new Uint8Array(0))), []);
});

test('a body says no more than was signed: counts, sizes, rows moved, added or cut', async () => {
  const packed = await packRecords(batchKey, lines, systemDeflate);
  const boxes = lines.map((line, index) => sealRow(batchKey, index, line));
  const [first, second, third] = boxes as [Uint8Array, Uint8Array, Uint8Array];
  const rows = statementOf('rows');
  assert.equal(code(await open(statementOf('packed', { recordCount: 2 }), packed)), 'telemetry-unreadable');
  assert.equal(
    code(await open(statementOf('packed', { plainBytes: plainBytes - 1 }), packed)),
    'telemetry-too-large',
  );
  assert.equal(
    code(await open(statementOf('packed', { plainBytes: plainBytes + 1 }), packed)),
    'telemetry-unreadable',
  );
  assert.equal(code(await open(statementOf('packed'), packed, plainBytes - 1)), 'telemetry-too-large');
  assert.equal(code(await open(rows, encodeRows([second, first, third]))), 'telemetry-unreadable');
  assert.equal(code(await open(rows, encodeRows([first, second]))), 'telemetry-unreadable');
  assert.equal(code(await open(rows, encodeRows([...boxes, third]))), 'telemetry-unreadable');
  assert.equal(code(await open(rows, encodeRows(boxes).subarray(0, -1))), 'telemetry-unreadable');
  assert.equal(code(await open(rows, packed)), 'telemetry-unreadable');
  assert.equal(code(await open(statementOf('packed'), encodeRows(boxes))), 'telemetry-unreadable');
  const two = new TextEncoder().encode(
    '{"timeMs":1,"release":null,"data":{}}\n{"timeMs":1,"release":null,"data":{}}',
  );
  const joined = statementOf('rows', { recordCount: 2, plainBytes: lineBytes(two) });
  assert.equal(code(await open(joined, encodeRows([sealRow(batchKey, 0, two)]))), 'telemetry-unreadable');
});

test('a bomb is cut off at what was signed for', async () => {
  const zeros = new Uint8Array(32 * 1024 * 1024);
  const squeezed = await systemDeflate.deflate(zeros);
  const padded = new Uint8Array(paddedBytes(4 + squeezed.length));
  new DataView(padded.buffer).setUint32(0, squeezed.length);
  padded.set(squeezed, 4);
  const nonce = new Uint8Array(24);
  nonce[0] = 2;
  const body = sealSecret(batchKey, nonce, padded);
  const before = process.memoryUsage().arrayBuffers;
  assert.equal(code(await open(statementOf('packed', { plainBytes: 1_000 }), body)), 'telemetry-too-large');
  assert.ok(process.memoryUsage().arrayBuffers - before < 8 * 1024 * 1024);
});

test('sizes are rounded up by little, and never down', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1 << 20 }), (bytes) => {
      const padded = paddedBytes(bytes);
      assert.ok(padded >= bytes && padded - bytes < Math.max(256, bytes / 15), `${bytes} ${padded}`);
    }),
  );
  const sizes = new Set(Array.from({ length: 20_000 }, (_, bytes) => paddedBytes(bytes + 1)));
  assert.ok(sizes.size < 120, `${sizes.size} different sizes up to 20,000`);
});

test('a wrap opens for its region and its head only', () => {
  const headBytes = encodeHead(head);
  const wrap = wrapFor(headBytes);
  const headSha256 = sha256Hex(headBytes);
  assert.deepEqual(unwrap(openWrap({ wrap, ...keys, headSha256 })), batchKey);
  const stranger = boxKeyPairFromSeed(new Uint8Array(32).fill(8));
  assert.equal(code(openWrap({ wrap, ...stranger, headSha256 })), 'telemetry-unreadable');
  assert.equal(code(openWrap({ wrap, ...keys, headSha256: 'b'.repeat(64) })), 'telemetry-wrap-mismatch');
});

test('statements: signed by the device, for its own batch, of these bytes', () => {
  const headBytes = encodeHead(head);
  const wrap = wrapFor(headBytes);
  const body = new Uint8Array([1, 2, 3]);
  const parts = { headBytes, format: 'packed' as const, recordCount: 1, plainBytes: 3, wrap, body };
  const envelope = signStatement(parts, device);
  const check = (one: typeof envelope, changes: object = {}) =>
    checkStatement({ envelope: one, devicePublicKey: device.publicKey, deviceId, region, ...changes });
  const checked = unwrap(check(envelope));
  assert.deepEqual(checked.head, head);
  assert.equal(checked.headSha256, sha256Hex(headBytes));
  assert.equal(code(check(signStatement(parts, other))), 'telemetry-signature-invalid');
  assert.equal(code(check(envelope, { devicePublicKey: other.publicKey })), 'telemetry-signature-invalid');
  assert.equal(code(check(envelope, { region: 'us' })), 'telemetry-other-device');
  const strange = encodeHead({ ...head, deviceId: 'f'.repeat(32) });
  assert.equal(
    code(check(signStatement({ ...parts, headBytes: strange }, device))),
    'telemetry-other-device',
  );
  const answer = signAnswer(
    {
      schemaVersion: 1,
      deviceId,
      region,
      epoch: 1,
      sequence: 1,
      headSha256: 'a'.repeat(64),
      result: { status: 'stored', records: 1 },
    },
    device,
  );
  assert.equal(code(check(answer)), 'envelope-malformed', 'another kind of object is none');
  assert.equal(
    code(check(signStatement({ ...parts, headBytes: new Uint8Array([123]) }, device))),
    'telemetry-malformed',
  );
  assert.equal(code(checkBytes(checked.statement, wrap, body)), 'ok');
  assert.equal(code(checkBytes(checked.statement, wrap, body.slice(1))), 'telemetry-body-mismatch');
  assert.equal(code(checkBytes(checked.statement, body, body)), 'telemetry-body-mismatch');
});

test('messages: what was encoded is decoded; any cut or garbage is refused before it is read', () => {
  const headBytes = encodeHead(head);
  const wrap = wrapFor(headBytes);
  const body = new Uint8Array(500).fill(3);
  const envelope = signStatement(
    { headBytes, format: 'packed', recordCount: 1, plainBytes: 3, wrap, body },
    device,
  );
  const message = encodeBatchMessage({ envelope, wrap, body });
  const decoded = unwrap(decodeBatchMessage(message));
  assert.deepEqual(decoded.envelope, envelope);
  assert.deepEqual(new Uint8Array(decoded.wrap), wrap);
  assert.deepEqual(new Uint8Array(decoded.body), body);
  const bodyAt = message.length - body.length;
  for (let length = 0; length < bodyAt; length += 1) {
    assert.equal(code(decodeBatchMessage(message.subarray(0, length))), 'telemetry-malformed', `${length}`);
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (garbage) => {
      assert.equal(code(decodeBatchMessage(garbage)), 'telemetry-malformed');
    }),
  );
});

test('answers: only this region’s, only for this device', () => {
  const stored = { status: 'stored' as const, records: 1 };
  const answer = {
    schemaVersion: 1 as const,
    deviceId,
    region,
    epoch: 1,
    sequence: 1,
    headSha256: 'a'.repeat(64),
    result: stored,
  };
  const check = (envelope: ReturnType<typeof signAnswer>) =>
    checkAnswer({ envelope, regionRoot: trusted(), deviceId, region });
  assert.deepEqual(unwrap(check(signAnswer(answer, ack))), answer);
  assert.equal(code(check(signAnswer(answer, device))), 'telemetry-answer-invalid');
  assert.equal(code(check(signAnswer({ ...answer, region: 'us' }, ack))), 'telemetry-answer-invalid');
  assert.equal(
    code(check(signAnswer({ ...answer, deviceId: 'f'.repeat(32) }, ack))),
    'telemetry-answer-invalid',
  );
});

test('an application’s records: every line, or none, and no number is rounded', () => {
  const parse = (text: string) => parseRecords(new TextEncoder().encode(text), 42);
  assert.deepEqual(unwrap(parse('')), []);
  assert.deepEqual(unwrap(parse('{"a":1}\r\n\n{"timeMs":7,"release":"acme/m@1.0.0","data":{"b":[2.5]}}')), [
    { timeMs: 42, release: null, data: { a: 1 } },
    { timeMs: 7, release: 'acme/m@1.0.0', data: { b: [2.5] } },
  ]);
  assert.deepEqual(unwrap(parse('{"data":{"x":1},"y":2}'))[0]?.data, { data: { x: 1 }, y: 2 });
  assert.deepEqual(unwrap(parse('{"data":5}'))[0]?.data, { data: 5 });
  assert.deepEqual(
    unwrap(parse('{"n":"9007199254740993","m":9007199254740992,"f":1.0000000000000000001}')).length,
    1,
  );
  for (const [text, line] of [
    ['{"a":1}\n[1]', 2],
    ['{"a":1}\n\n{"a":}', 3],
    ['{"a":1,"a":2}', 1],
    ['{"timeMs":-1}', 1],
    ['{"timeMs":1.5}', 1],
    ['{"release":"x"}', 1],
    ['{"n":9007199254740993}', 1],
    ['null', 1],
  ] as const) {
    const parsed = parse(text);
    assert.equal(code(parsed), 'input-invalid', text);
    assert.match(parsed.ok ? '' : parsed.refusal.detail, new RegExp(`^line ${line}:`));
  }
});

test('statistics: counts and quantiles of one window, nothing of a silent release', async () => {
  const clock = handClock();
  const stats = createStats(clock);
  for (let ms = 1; ms <= 100; ms += 1) {
    stats.add({ as: 'm', releaseId: 'acme/m@1.0.0', code: null, latencyMs: ms });
  }
  stats.add({ as: 'm', releaseId: 'acme/m@1.0.0', code: 'infer-deadline', latencyMs: 5_000 });
  await clock.advance(60_000);
  const [one, ...more] = stats.take();
  assert.equal(more.length, 0);
  assert.ok(one);
  assert.equal(one.release, 'acme/m@1.0.0');
  const { latencyMs, latencySketch, ...counts } = one.data as {
    latencyMs: { p50: number; p95: number; max: number };
    latencySketch: unknown;
  };
  assert.deepEqual(counts, {
    kind: 'requests',
    model: 'm',
    windowMs: 60_000,
    requests: 101,
    errors: { 'infer-deadline': 1 },
  });
  assert.ok(Math.abs(latencyMs.p50 - 50) < 3 && Math.abs(latencyMs.p95 - 95) < 5);
  assert.equal(latencyMs.max, 100);
  const sketch = sketchFromJson(sketchSchema.parse(latencySketch));
  assert.equal(sketch.count, 100);
  assert.equal(Math.round((sketchQuantile(sketch, 0.95) ?? 0) * 1_000) / 1_000, latencyMs.p95);
  assert.deepEqual(stats.take(), []);
});
