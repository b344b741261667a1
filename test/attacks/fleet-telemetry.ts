// Why: attacks on sealed telemetry on its way to the region, and on the region's answer to it.
// Trusts: keys made of names. Must never: need a broker.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { boxKeyPairFromSeed, sealTo } from '../../shared/crypto/sealed-box.ts';
import { sealSecret } from '../../shared/crypto/secretbox.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkErasure, signErasure } from '../../shared/trust/erasure.ts';
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
  rowBytes,
  sealRow,
  signAnswer,
  signStatement,
  unpackRecords,
} from '../../shared/trust/telemetry.ts';
import type { ErasureStatement } from '../../shared/wire/erasure.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../../shared/wire/messages.ts';
import type { BatchAnswer, BatchHead, BatchStatement } from '../../shared/wire/telemetry.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import { region, trusted } from './fleet-region.ts';
import { device, deviceId, other, otherId } from './fleet-reports.ts';
import { encode, signerNamed } from './hostile-repository.ts';

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
const headBytes = encodeHead(head);
const headSha256 = sha256Hex(headBytes);
const lines = [0, 1, 2].map((number) => recordLine({ timeMs: number, release: null, data: { number } }));
const plainBytes = lines.reduce((sum, line) => sum + lineBytes(line), 0);
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const wrap = unwrap(
  makeWrap({
    publicKey: hexOf(keys.publicKey),
    batchKey,
    headSha256,
    ephemeralSeed: new Uint8Array(32).fill(9),
  }),
);
const rowsBody = encodeRows(lines.map((line, index) => sealRow(batchKey, index, line)));
const statement = (changes: Partial<BatchStatement> = {}): BatchStatement => ({
  schemaVersion: 1,
  head: Buffer.from(headBytes).toString('base64'),
  format: 'rows',
  recordCount: lines.length,
  wrapSha256: sha256Hex(wrap),
  bodySha256: sha256Hex(rowsBody),
  plainBytes,
  ...changes,
});
const signed = (changes: Partial<BatchStatement> = {}, signer = device): Envelope =>
  signEnvelope(payloadTypes.telemetryBatch, encodeMessage(statement(changes)), [signer]);
const honestEnvelope = signStatement(
  { headBytes, format: 'rows', recordCount: lines.length, plainBytes, wrap, body: rowsBody },
  device,
);

const judgeStatement = (envelope: Envelope, key = device.publicKey): Result<unknown> =>
  checkStatement({ envelope, devicePublicKey: key, deviceId, region });
const stated = (id: string, attack: string, code: ErrorCode, forged: () => Result<unknown>): AttackCase =>
  directRow('fleet', `telemetry-${id}`, attack, code, () => ({
    honest: judgeStatement(honestEnvelope),
    forged: forged(),
  }));
const headOf = (changes: Partial<BatchHead>): string =>
  Buffer.from(JSON.stringify({ ...head, ...changes })).toString('base64');

const statements: AttackCase[] = [
  stated('stranger', 'a batch signed by another device', 'telemetry-signature-invalid', () =>
    judgeStatement(signed({}, other)),
  ),
  stated(
    'other-key',
    'a batch with a key that the device id was not made of',
    'telemetry-signature-invalid',
    () => judgeStatement(signed({}, other), other.publicKey),
  ),
  stated('out-of-schema', 'a batch of −1 records', 'telemetry-malformed', () =>
    judgeStatement(signed({ recordCount: -1 })),
  ),
  stated('head-out-of-schema', 'a batch whose head has sequence 0', 'telemetry-malformed', () =>
    judgeStatement(signed({ head: headOf({ sequence: 0 }) })),
  ),
  stated('other-device', 'another device’s batch, signed once more', 'telemetry-other-device', () =>
    judgeStatement(signed({ head: headOf({ deviceId: otherId }) })),
  ),
  stated('other-region', 'a batch made for another region', 'telemetry-other-device', () =>
    judgeStatement(signed({ head: headOf({ region: 'us' }) })),
  ),
  stated('other-wrap', 'a wrap that was not signed', 'telemetry-body-mismatch', () =>
    checkBytes(statement(), rowsBody, rowsBody),
  ),
  stated('other-body', 'a body that was not signed', 'telemetry-body-mismatch', () =>
    checkBytes(statement(), wrap, wrap),
  ),
  stated('tombstone-body', 'a dropped batch that has a body', 'telemetry-body-mismatch', () =>
    checkBytes(statement({ format: 'tombstone' }), wrap, rowsBody),
  ),
];

const message = encodeBatchMessage({ envelope: honestEnvelope, wrap, body: rowsBody });
/** A genuine batch as it is published, and its signed statement, for the fuzzing. */
export const batchMessage: Uint8Array = message;
export function statementOf(bytes: Uint8Array): string {
  const decoded = decodeBatchMessage(bytes);
  return decoded.ok ? `${decoded.value.envelope.payloadType} ${decoded.value.envelope.payload}` : '';
}

const framed = (id: string, attack: string, change: (bytes: Uint8Array) => Uint8Array): AttackCase =>
  directRow('fleet', `telemetry-frame-${id}`, attack, 'telemetry-malformed', () => ({
    honest: decodeBatchMessage(message),
    forged: decodeBatchMessage(change(new Uint8Array(message))),
  }));
function poke(at: number, ...values: number[]): (bytes: Uint8Array) => Uint8Array {
  return (bytes) => {
    bytes.set(values, at);
    return bytes;
  };
}
const statementAt = message.length - rowsBody.length - wrap.length - encodeMessage(honestEnvelope).length;

const frames: AttackCase[] = [
  framed('short', 'a batch shorter than its prefix', (bytes) => bytes.subarray(0, 4)),
  framed('format', 'a batch of another format', poke(0, 9)),
  framed('reserved', 'a batch with something in the place of a zero', poke(1, 1)),
  framed('wrap-long', 'a batch whose wrap is longer than any', (bytes) => {
    const padded = new Uint8Array(bytes.length + 70_000);
    padded.set(bytes);
    return poke(2, 0xff, 0xff)(padded);
  }),
  framed('statement-long', 'a batch whose statement is longer than any', (bytes) => {
    // A statement that would be read: spaces fill it up to what the length says.
    const envelope = encodeMessage(honestEnvelope);
    const long = new Uint8Array(1_000_000).fill(0x20);
    long.set(envelope);
    const grown = new Uint8Array(statementAt + long.length + wrap.length + rowsBody.length);
    grown.set(bytes.subarray(0, statementAt));
    new DataView(grown.buffer).setUint32(4, long.length);
    grown.set(long, statementAt);
    grown.set(wrap, statementAt + long.length);
    return grown;
  }),
  framed('cut', 'a batch shorter than it says', (bytes) =>
    bytes.subarray(0, message.length - rowsBody.length - 1),
  ),
  framed('no-envelope', 'a batch whose statement is no envelope', poke(statementAt, 0x5b)),
];

const unwrapped = (id: string, attack: string, code: ErrorCode, forged: () => Result<unknown>): AttackCase =>
  directRow('fleet', `telemetry-wrap-${id}`, attack, code, () => ({
    honest: openWrap({ wrap, ...keys, headSha256 }),
    forged: forged(),
  }));
const sealedTo = (plain: Uint8Array): Uint8Array =>
  unwrap(sealTo(keys.publicKey, plain, new Uint8Array(32).fill(9)));

const wraps: AttackCase[] = [
  unwrapped('other-region', 'a wrap sealed to another region', 'telemetry-unreadable', () =>
    openWrap({ wrap, ...boxKeyPairFromSeed(new Uint8Array(32).fill(8)), headSha256 }),
  ),
  unwrapped('other-batch', 'the wrap of another batch', 'telemetry-wrap-mismatch', () =>
    openWrap({ wrap, ...keys, headSha256: 'b'.repeat(64) }),
  ),
  unwrapped('long', 'a wrap with something behind its digest', 'telemetry-unreadable', () =>
    openWrap({
      wrap: sealedTo(new Uint8Array([...batchKey, ...Buffer.from(headSha256, 'hex'), 0])),
      ...keys,
      headSha256,
    }),
  ),
];

const open = (said: BatchStatement, body: Uint8Array, plainBytesMax = 1 << 20): Promise<Result<unknown>> =>
  unpackRecords({ statement: said, body, batchKey, deflate: systemDeflate, plainBytesMax });
const opened = (
  id: string,
  attack: string,
  code: ErrorCode,
  forged: () => Promise<Result<unknown>>,
): AttackCase =>
  directRow('fleet', `telemetry-body-${id}`, attack, code, () => ({
    honest: open(statement(), rowsBody),
    forged: forged(),
  }));

/** A packed body of exactly these plain bytes; `says` lies about how many compressed ones there are. */
async function packed(plain: Uint8Array, says?: number): Promise<Uint8Array> {
  const squeezed = await systemDeflate.deflate(plain);
  const padded = new Uint8Array(paddedBytes(4 + squeezed.length));
  new DataView(padded.buffer).setUint32(0, says ?? squeezed.length);
  padded.set(squeezed, 4);
  return boxed(padded);
}
function boxed(padded: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(24);
  nonce[0] = 2;
  return sealSecret(batchKey, nonce, padded);
}
const rows = (...texts: Uint8Array[]): Uint8Array =>
  encodeRows(texts.map((line, index) => sealRow(batchKey, index, line)));
const joined = encode('{"timeMs":1,"release":null,"data":{}}\n{"timeMs":1,"release":null,"data":{}}');
const unreadable = 'telemetry-unreadable';

const bodies: AttackCase[] = [
  opened('bomb', 'a body that says it is larger than the limit', 'telemetry-too-large', () =>
    open(statement(), rowsBody, 10),
  ),
  opened(
    'bomb-inside',
    'a small body that inflates beyond what was signed',
    'telemetry-too-large',
    async () =>
      open(statement({ format: 'packed', plainBytes: 1_000 }), await packed(new Uint8Array(4 << 20))),
  ),
  opened('foreign', 'a packed body sealed with another key', unreadable, async () =>
    open(
      statement({ format: 'packed' }),
      await packRecords(new Uint8Array(32).fill(6), lines, systemDeflate),
    ),
  ),
  opened('short', 'a packed body of three bytes', unreadable, () =>
    open(statement({ format: 'packed' }), boxed(new Uint8Array(3))),
  ),
  opened('length-lies', 'a packed body shorter than it says', unreadable, async () =>
    open(
      statement({ format: 'packed' }),
      await packed(Buffer.concat(lines.map((line) => Buffer.concat([line, Buffer.from('\n')]))), 60_000),
    ),
  ),
  opened('sum-lies', 'a packed body of fewer bytes than were signed', unreadable, async () =>
    open(
      statement({ format: 'packed', plainBytes: plainBytes + 1 }),
      await packRecords(batchKey, lines, systemDeflate),
    ),
  ),
  opened('rows-sum-lies', 'rows of fewer bytes than were signed', unreadable, () =>
    open(statement({ plainBytes: plainBytes + 1 }), rowsBody),
  ),
  opened('row-cut', 'a last row of a few bytes', unreadable, () =>
    open(statement(), rowsBody.subarray(0, rowsBody.length - 30)),
  ),
  opened('row-tail', 'some bytes behind the last row', unreadable, () =>
    open(statement(), new Uint8Array([...rowsBody, 1, 2])),
  ),
  opened('row-long', 'a row longer than its body', unreadable, () => {
    const long = new Uint8Array(rowsBody);
    new DataView(long.buffer).setUint32(0, 1 << 30);
    return open(statement(), long);
  }),
  opened('row-last-long', 'a last row that says it is longer than it is', unreadable, () => {
    const boxes = lines.map((line, index) => sealRow(batchKey, index, line));
    const lastAt = rowsBody.length - rowBytes(boxes.at(-1)?.length ?? 0);
    const long = new Uint8Array(rowsBody);
    new DataView(long.buffer).setUint32(lastAt, rowsBody.length);
    return open(statement(), long);
  }),
  opened('rows-moved', 'rows in another order', unreadable, () => {
    const boxes = lines.map((line, index) => sealRow(batchKey, index, line));
    return open(statement(), encodeRows([...boxes.slice(1), ...boxes.slice(0, 1)]));
  }),
  opened('row-of-two', 'a row that holds two lines', unreadable, () =>
    open(statement({ recordCount: 2, plainBytes: lineBytes(joined) }), rows(joined)),
  ),
  opened('line-open', 'a packed body whose last line does not end', unreadable, async () => {
    // Something else stands in the place of the line's end; whoever cut it off unseen would read a record.
    const plain = encode('{"timeMs":1,"release":null,"data":{}} ');
    return open(
      statement({ format: 'packed', recordCount: 1, plainBytes: plain.length }),
      await packed(plain),
    );
  }),
  opened('count-lies', 'fewer records than were signed', unreadable, () =>
    open(statement({ recordCount: 4 }), rowsBody),
  ),
  opened('record-no-json', 'a record that is no JSON', unreadable, () => {
    const line = encode('{"timeMs":1');
    return open(statement({ recordCount: 1, plainBytes: lineBytes(line) }), rows(line));
  }),
  opened('record-out-of-schema', 'a record before 1970', unreadable, () => {
    const line = encode('{"timeMs":-1,"release":null,"data":{}}');
    return open(statement({ recordCount: 1, plainBytes: lineBytes(line) }), rows(line));
  }),
];

const answer: BatchAnswer = {
  schemaVersion: 1,
  deviceId,
  region,
  epoch: 1,
  sequence: 1,
  headSha256: 'a'.repeat(64),
  result: { status: 'stored', records: 1 },
};
const judgeAnswer = (envelope: Envelope): Result<unknown> =>
  checkAnswer({ envelope, regionRoot: trusted, deviceId, region });
const answered = (
  id: string,
  attack: string,
  envelope: () => Envelope,
  code: ErrorCode = 'telemetry-answer-invalid',
): AttackCase =>
  directRow('fleet', `telemetry-answer-${id}`, attack, code, () => ({
    honest: judgeAnswer(signAnswer(answer, signerNamed('ack'))),
    forged: judgeAnswer(envelope()),
  }));
const ackSays = (changes: Partial<BatchAnswer>): Envelope =>
  signAnswer({ ...answer, ...changes }, signerNamed('ack'));

const answers: AttackCase[] = [
  answered('stranger', 'an acknowledgement by a key that the region does not name', () =>
    signAnswer(answer, signerNamed('director')),
  ),
  answered('other-device', 'an acknowledgement for another device', () => ackSays({ deviceId: otherId })),
  answered('other-region', 'another region’s acknowledgement', () => ackSays({ region: 'us' })),
  answered('out-of-schema', 'a signed acknowledgement of sequence 0', () => ackSays({ sequence: 0 })),
  answered(
    'other-kind',
    'the time, signed by the acknowledging key, in the place of an acknowledgement',
    () => signEnvelope(payloadTypes.time, encodeMessage(answer), [signerNamed('ack')]),
    'envelope-malformed',
  ),
];

const erasure: ErasureStatement = {
  ...{ schemaVersion: 1, erasureId: 'e1', deviceId, region, untilMs: 2 },
  keys: [{ keyId: 'k1', epoch: 1, fromMs: 1, endsMs: 3 }],
  ...{ batches: 1, records: 3, requestedBy: 'alice', reason: null, doneAtMs: 2 },
};
const erased = (
  id: string,
  attack: string,
  envelope: () => Envelope,
  code: ErrorCode = 'erasure-invalid',
): AttackCase =>
  directRow('fleet', `erasure-${id}`, attack, code, () => ({
    honest: checkErasure(signErasure(erasure, signerNamed('ack')), trusted),
    forged: checkErasure(envelope(), trusted),
  }));

/** Refused by whoever was given the certificate. */
const erasures: AttackCase[] = [
  erased('stranger', 'a certificate of an erasure by a key that the region does not name', () =>
    signErasure(erasure, signerNamed('director')),
  ),
  erased('out-of-schema', 'a signed erasure of −1 records', () =>
    signErasure({ ...erasure, records: -1 }, signerNamed('ack')),
  ),
  erased(
    'other-kind',
    'an acknowledgement in the place of a certificate',
    () => signAnswer(answer, signerNamed('ack')),
    'envelope-malformed',
  ),
];

export const telemetryAttacks: AttackCase[] = [
  ...erasures.map((one) => ({ ...one, by: 'registry' as const })),
  ...[...statements, ...frames, ...wraps, ...bodies].map((one) => ({ ...one, by: 'registry' as const })),
  ...answers,
];
