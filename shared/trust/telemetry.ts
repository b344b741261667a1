// Why: the one home of the sealed batch: how it is made, signed, checked and opened, and of the answer to it
// (DESIGN 8; layout in shared/wire/telemetry.ts).
// Trusts: the device's key for what it says, the region's `ack` key for what is stored; nothing in the bytes.
// Must never: inflate or decrypt before the signature and the digests, nor use a nonce twice under one key.

import { sha256Hex } from '../crypto/digests.ts';
import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { openSealed, sealTo } from '../crypto/sealed-box.ts';
import { openSecret, sealSecret, secretBoxOverheadBytes, secretNonceBytes } from '../crypto/secretbox.ts';
import { deviceIdOf } from '../crypto/spki.ts';
import { invariant } from '../kernel/errors.ts';
import type { Deflate } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import {
  describeIssues,
  type Envelope,
  encodeMessage,
  envelopeSchema,
  payloadTypes,
} from '../wire/messages.ts';
import {
  type BatchAnswer,
  type BatchHead,
  type BatchStatement,
  batchAnswerSchema,
  batchHeadSchema,
  batchStatementSchema,
  type TelemetryRecord,
  telemetryRecordSchema,
} from '../wire/telemetry.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

export const batchKeyBytes = 32;
const formatVersion = 1;
const prefixBytes = 8;
const statementBytesMax = 16 * 1024;
const wrapBytesMax = 1_024;
const newline = 0x0a;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

// --- head and wrap: fixed when the batch is opened ---

/** The head's exact bytes. They are kept as they are: the chain and the wrap are over these bytes. */
export function encodeHead(head: BatchHead): Uint8Array {
  return encodeMessage(batchHeadSchema.parse(head));
}

/**
 * Seals the batch key and the head's digest to the region's key (hex). `ephemeralSeed`: 32 bytes, used once.
 * Refusal: `key-invalid`.
 */
export function makeWrap(parts: {
  publicKey: string;
  batchKey: Uint8Array;
  headSha256: string;
  ephemeralSeed: Uint8Array;
}): Result<Uint8Array> {
  invariant(parts.batchKey.length === batchKeyBytes, 'a batch key has 32 bytes');
  const plain = new Uint8Array(2 * batchKeyBytes);
  plain.set(parts.batchKey);
  plain.set(Buffer.from(parts.headSha256, 'hex'), batchKeyBytes);
  const sealed = sealTo(fromHex(parts.publicKey), plain, parts.ephemeralSeed);
  plain.fill(0);
  return sealed;
}

/**
 * The batch key. Refusals: `telemetry-unreadable` where the wrap was not sealed to this key pair,
 * `telemetry-wrap-mismatch` where it was sealed for another head.
 */
export function openWrap(parts: {
  wrap: Uint8Array;
  publicKey: Uint8Array;
  secretKey: Uint8Array;
  headSha256: string;
}): Result<Uint8Array> {
  const plain = openSealed(parts.publicKey, parts.secretKey, parts.wrap);
  if (plain === null || plain.length !== 2 * batchKeyBytes) {
    return refuse('telemetry-unreadable', 'the wrap does not open with the key that the head names');
  }
  if (Buffer.from(plain.subarray(batchKeyBytes)).toString('hex') !== parts.headSha256) {
    return refuse('telemetry-wrap-mismatch', 'the wrap was made for another head');
  }
  return ok(plain.slice(0, batchKeyBytes));
}

// --- body ---

/** Row `index`: 0x01, zeros, the index in the last eight bytes. */
function rowNonce(index: number): Uint8Array {
  const nonce = new Uint8Array(secretNonceBytes);
  nonce[0] = 1;
  const view = new DataView(nonce.buffer);
  view.setUint32(16, Math.floor(index / 2 ** 32));
  view.setUint32(20, index % 2 ** 32);
  return nonce;
}

/** The packed body, at most one for each key: 0x02, zeros. */
function packedNonce(): Uint8Array {
  const nonce = new Uint8Array(secretNonceBytes);
  nonce[0] = 2;
  return nonce;
}

/** One record as its line of the body, without the line's end. */
export function recordLine(record: TelemetryRecord): Uint8Array {
  return encoder.encode(
    JSON.stringify({ timeMs: record.timeMs, release: record.release, data: record.data }),
  );
}

/** What a record in line form counts for in `plainBytes`, in both formats. */
export function lineBytes(line: Uint8Array): number {
  return line.length + 1;
}

/** What a row of this length takes in a body of the format `rows`. */
export function rowBytes(boxLength: number): number {
  return 4 + boxLength;
}

/** Seals row `index` of a batch. The same index must never be sealed twice with another content. */
export function sealRow(batchKey: Uint8Array, index: number, line: Uint8Array): Uint8Array {
  return sealSecret(batchKey, rowNonce(index), line);
}

/** Body of the format `rows`. */
export function encodeRows(boxes: readonly Uint8Array[]): Uint8Array {
  const body = new Uint8Array(boxes.reduce((bytes, box) => bytes + rowBytes(box.length), 0));
  const view = new DataView(body.buffer);
  let at = 0;
  for (const box of boxes) {
    view.setUint32(at, box.length);
    body.set(box, at + 4);
    at += rowBytes(box.length);
  }
  return body;
}

/** The records of a batch as NDJSON text, each line ended. */
export function packLines(lines: readonly Uint8Array[]): Uint8Array {
  const text = new Uint8Array(lines.reduce((bytes, line) => bytes + lineBytes(line), 0));
  let at = 0;
  for (const line of lines) {
    text.set(line, at);
    text[at + line.length] = newline;
    at += lineBytes(line);
  }
  return text;
}

/** Rounded up to a multiple of 256, of large sizes by at most a sixteenth: a length says little. */
export function paddedBytes(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.ceil(Math.log2(Math.max(bytes, 1))) - 5));
  return Math.ceil(bytes / step) * step;
}

/** Body of the format `packed`: the lines compressed, padded and sealed as one. */
export async function packRecords(
  batchKey: Uint8Array,
  lines: readonly Uint8Array[],
  deflate: Deflate,
): Promise<Uint8Array> {
  const squeezed = await deflate.deflate(packLines(lines));
  const padded = new Uint8Array(paddedBytes(4 + squeezed.length));
  new DataView(padded.buffer).setUint32(0, squeezed.length);
  padded.set(squeezed, 4);
  return sealSecret(batchKey, packedNonce(), padded);
}

/**
 * The records of a body whose statement and digests were checked. Refusals: `telemetry-unreadable`,
 * `telemetry-too-large` (more comes out than the statement said, or than `plainBytesMax`).
 */
export async function unpackRecords(parts: {
  statement: BatchStatement;
  body: Uint8Array;
  batchKey: Uint8Array;
  deflate: Deflate;
  plainBytesMax: number;
}): Promise<Result<TelemetryRecord[]>> {
  const { statement, body, batchKey } = parts;
  if (statement.format === 'tombstone') return ok([]);
  if (statement.plainBytes > parts.plainBytesMax) {
    return refuse('telemetry-too-large', `${statement.plainBytes} bytes, limit ${parts.plainBytesMax}`);
  }
  if (statement.format === 'rows') return openRows(statement, body, batchKey);
  const padded = openSecret(batchKey, packedNonce(), body);
  if (padded === null) return unreadable('the body does not decrypt');
  if (padded.length < 4) return unreadable('the body is too short');
  const length = viewOf(padded).getUint32(0);
  if (length > padded.length - 4) return unreadable('the body is shorter than it says');
  const text = await parts.deflate.inflate(padded.subarray(4, 4 + length), statement.plainBytes);
  if (!text.ok) return text;
  if (text.value.length !== statement.plainBytes) return unreadable('not as many bytes as were signed');
  return readLines(text.value, statement.recordCount);
}

function openRows(
  statement: BatchStatement,
  body: Uint8Array,
  batchKey: Uint8Array,
): Result<TelemetryRecord[]> {
  const lines: Uint8Array[] = [];
  const view = viewOf(body);
  let plainBytes = 0;
  for (let at = 0; at < body.length; ) {
    if (body.length - at < rowBytes(secretBoxOverheadBytes)) return unreadable('the last row is cut off');
    const length = view.getUint32(at);
    if (length > body.length - at - 4) return unreadable(`row ${lines.length} is longer than the body`);
    const line = openSecret(batchKey, rowNonce(lines.length), body.subarray(at + 4, at + 4 + length));
    if (line === null) return unreadable(`row ${lines.length} does not decrypt`);
    if (line.includes(newline)) return unreadable(`row ${lines.length} holds more than one line`);
    lines.push(line);
    plainBytes += lineBytes(line);
    at += rowBytes(length);
  }
  if (plainBytes !== statement.plainBytes) return unreadable('not as many bytes as were signed');
  return readLines(packLines(lines), statement.recordCount);
}

function readLines(bytes: Uint8Array, recordCount: number): Result<TelemetryRecord[]> {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch (error) {
    return unreadable(error instanceof Error ? error.message : 'not UTF-8');
  }
  if (text !== '' && !text.endsWith('\n')) return unreadable('the last line does not end');
  const lines = text === '' ? [] : text.slice(0, -1).split('\n');
  if (lines.length !== recordCount) return unreadable(`${lines.length} records, not ${recordCount}`);
  const records: TelemetryRecord[] = [];
  for (const [index, line] of lines.entries()) {
    let body: unknown;
    try {
      body = JSON.parse(line);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      // The parser's words would quote the record.
      return unreadable(`record ${index} is no JSON`);
    }
    const parsed = telemetryRecordSchema.safeParse(body);
    if (!parsed.success) return unreadable(`record ${index}: ${describeIssues(parsed.error)}`);
    records.push(parsed.data);
  }
  return ok(records);
}

function unreadable(detail: string): {
  ok: false;
  refusal: { code: 'telemetry-unreadable'; detail: string };
} {
  return { ok: false, refusal: { code: 'telemetry-unreadable', detail } };
}

// --- statement and message ---

/** The statement of a batch, as the device signs it when it sends. A tombstone has an empty body. */
export function signStatement(
  parts: {
    headBytes: Uint8Array;
    format: BatchStatement['format'];
    recordCount: number;
    plainBytes: number;
    wrap: Uint8Array;
    body: Uint8Array;
  },
  signer: Signer,
): Envelope {
  const statement: BatchStatement = {
    schemaVersion: 1,
    head: Buffer.from(parts.headBytes).toString('base64'),
    format: parts.format,
    recordCount: parts.recordCount,
    wrapSha256: sha256Hex(parts.wrap),
    bodySha256: sha256Hex(parts.body),
    plainBytes: parts.plainBytes,
  };
  return signEnvelope(payloadTypes.telemetryBatch, encodeMessage(statement), [signer]);
}

export interface CheckedStatement {
  statement: BatchStatement;
  head: BatchHead;
  /** The head's exact bytes, which the chain is over. */
  headBytes: Uint8Array;
  headSha256: string;
}

/**
 * Whether this device says this of a batch of its own in this region. The sequence, the chain and the epoch
 * are for the caller, who knows what was stored. Refusals, in order: `telemetry-signature-invalid`,
 * `envelope-malformed`, `telemetry-malformed`, `telemetry-other-device`.
 */
export function checkStatement(parts: {
  envelope: Envelope;
  devicePublicKey: Uint8Array;
  deviceId: string;
  region: string;
}): Result<CheckedStatement> {
  const { envelope, devicePublicKey, deviceId, region } = parts;
  if (deviceIdOf(devicePublicKey) !== deviceId) {
    return refuse('telemetry-signature-invalid', 'the key is not the one that the device id was made of');
  }
  const opened = openEnvelope(
    envelope,
    payloadTypes.telemetryBatch,
    [devicePublicKey],
    1,
    'telemetry-signature-invalid',
  );
  if (!opened.ok) return opened;
  const body = readSignedBody(batchStatementSchema, opened.value, 'telemetry-malformed');
  if (!body.ok) return body;
  const headBytes = new Uint8Array(Buffer.from(body.value.head, 'base64'));
  const head = readSignedBody(batchHeadSchema, headBytes, 'telemetry-malformed');
  if (!head.ok) return head;
  if (head.value.deviceId !== deviceId) {
    return refuse('telemetry-other-device', `the batch was made by device ${head.value.deviceId}`);
  }
  if (head.value.region !== region) {
    return refuse('telemetry-other-device', `the batch was made for region ${head.value.region}`);
  }
  return ok({ statement: body.value, head: head.value, headBytes, headSha256: sha256Hex(headBytes) });
}

/** Whether wrap and body are the signed ones. Refusal: `telemetry-body-mismatch`. */
export function checkBytes(statement: BatchStatement, wrap: Uint8Array, body: Uint8Array): Result<void> {
  if (sha256Hex(wrap) !== statement.wrapSha256) {
    return refuse('telemetry-body-mismatch', 'the wrap is not the one that was signed');
  }
  if (sha256Hex(body) !== statement.bodySha256) {
    return refuse('telemetry-body-mismatch', 'the body is not the one that was signed');
  }
  if (statement.format === 'tombstone' && body.length > 0) {
    return refuse('telemetry-body-mismatch', 'a dropped batch has no body');
  }
  return ok();
}

export interface BatchMessage {
  envelope: Envelope;
  wrap: Uint8Array;
  body: Uint8Array;
}

/** One MQTT message on the topic `telemetry`. */
export function encodeBatchMessage(message: BatchMessage): Uint8Array {
  const { wrap, body } = message;
  const statement = encodeMessage(message.envelope);
  invariant(
    statement.length <= statementBytesMax && wrap.length <= wrapBytesMax,
    'a batch within its bounds',
  );
  const bytes = new Uint8Array(prefixBytes + statement.length + wrap.length + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, formatVersion);
  view.setUint16(2, wrap.length);
  view.setUint32(4, statement.length);
  bytes.set(statement, prefixBytes);
  bytes.set(wrap, prefixBytes + statement.length);
  bytes.set(body, prefixBytes + statement.length + wrap.length);
  return bytes;
}

/** Nothing of it is verified yet; wrap and body are views of `bytes`. Refusal: `telemetry-malformed`. */
export function decodeBatchMessage(bytes: Uint8Array): Result<BatchMessage> {
  if (bytes.length < prefixBytes) return refuse('telemetry-malformed', `${bytes.length} bytes are no batch`);
  const view = viewOf(bytes);
  if (view.getUint8(0) !== formatVersion || view.getUint8(1) !== 0) {
    return refuse('telemetry-malformed', `format ${view.getUint8(0)}, not ${formatVersion}`);
  }
  const wrapLength = view.getUint16(2);
  const statementLength = view.getUint32(4);
  if (wrapLength > wrapBytesMax || statementLength > statementBytesMax) {
    return refuse('telemetry-malformed', 'its statement or its wrap is too long');
  }
  const bodyAt = prefixBytes + statementLength + wrapLength;
  if (bodyAt > bytes.length) return refuse('telemetry-malformed', 'it is shorter than it says');
  const statement = bytes.subarray(prefixBytes, prefixBytes + statementLength);
  const envelope = readSignedBody(envelopeSchema, statement, 'telemetry-malformed');
  if (!envelope.ok) return envelope;
  return ok({
    envelope: envelope.value,
    wrap: bytes.subarray(prefixBytes + statementLength, bodyAt),
    body: bytes.subarray(bodyAt),
  });
}

// --- the region's answer ---

/** Signed with the region's `ack` key, after the commit. On `telemetry/ack` it travels as a `signedMessageSchema`. */
export function signAnswer(answer: BatchAnswer, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.telemetryAnswer, encodeMessage(answer), [signer]);
}

/** Whether this region answers this device. Refusal: `telemetry-answer-invalid`, `envelope-malformed`. */
export function checkAnswer(parts: {
  envelope: Envelope;
  regionRoot: RegionRoot;
  deviceId: string;
  region: string;
}): Result<BatchAnswer> {
  const { keys, threshold } = parts.regionRoot.roles.ack;
  const opened = openEnvelope(
    parts.envelope,
    payloadTypes.telemetryAnswer,
    keys.map((key) => key.publicKey),
    threshold,
    'telemetry-answer-invalid',
  );
  if (!opened.ok) return opened;
  const body = readSignedBody(batchAnswerSchema, opened.value, 'telemetry-answer-invalid');
  if (!body.ok) return body;
  const answer = body.value;
  if (answer.deviceId !== parts.deviceId || answer.region !== parts.region) {
    return refuse('telemetry-answer-invalid', `it is for device ${answer.deviceId} of ${answer.region}`);
  }
  return ok(answer);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function fromHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}
