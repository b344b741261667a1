// Why: turns what a device sent into records, in the order in which a batch may be believed: signature,
// digests, key, decryption, and only then decompression under a cap (DESIGN 8).
// Trusts: the device's enrolled key and the region's own telemetry keys, nothing in the message.
// Must never: inflate more than the device signed for, or keep an opened batch longer than its group.

import type { Deflate, Entropy } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type BatchMessage,
  type CheckedStatement,
  checkBytes,
  checkStatement,
  decodeBatchMessage,
  openWrap,
  unpackRecords,
} from '../../shared/trust/telemetry.ts';
import type { TelemetryKeys } from './keys.ts';
import { telemetryLimits } from './limits.ts';
import { type SealedRecords, sealRecords, storageKey } from './sealed-records.ts';

export interface OpenedRecord {
  timeMs: number;
  release: string | null;
  /** JSON object. */
  data: string;
}

export interface OpenedBatch {
  records: OpenedRecord[];
  /** As they are stored; null where there are none. */
  sealed: SealedRecords | null;
  /** Records that nobody can read any more: their key was deleted before they came. */
  erased: number;
}

/** A batch that its device signed; whether it can be opened is not known yet. */
export interface SignedBatch extends CheckedStatement {
  deviceId: string;
  message: BatchMessage;
}

/** Refusals: `telemetry-malformed`, and those of `checkStatement`. */
export function readBatch(parts: {
  payload: Uint8Array;
  devicePublicKey: Uint8Array;
  deviceId: string;
  region: string;
}): Result<SignedBatch> {
  const { payload, devicePublicKey, deviceId, region } = parts;
  const message = decodeBatchMessage(payload);
  if (!message.ok) return message;
  const { envelope } = message.value;
  const checked = checkStatement({ envelope, devicePublicKey, deviceId, region });
  if (!checked.ok) return checked;
  return ok({ ...checked.value, deviceId, message: message.value });
}

/**
 * The records of a signed batch; none for a tombstone. Refusals, in order: `telemetry-body-mismatch`,
 * `telemetry-key-unknown`, `telemetry-unreadable`, `telemetry-wrap-mismatch`, and those of `unpackRecords`.
 */
export async function openBatch(
  batch: SignedBatch,
  parts: { keys: TelemetryKeys; deflate: Deflate; entropy: Entropy },
): Promise<Result<OpenedBatch>> {
  const { statement, head, headSha256, deviceId } = batch;
  const { wrap, body } = batch.message;
  const genuine = checkBytes(statement, wrap, body);
  if (!genuine.ok) return genuine;
  // The device signed that it dropped them; there is nothing to open.
  if (statement.format === 'tombstone') return ok({ records: [], sealed: null, erased: 0 });
  const pair = await parts.keys.open(deviceId, head.epoch, head.keyId);
  if (pair === null && parts.keys.isErased(head.keyId))
    return ok({ records: [], sealed: null, erased: statement.recordCount });
  if (pair === null) return refuse('telemetry-key-unknown', `no key ${head.keyId} of this device`);
  const batchKey = openWrap({ wrap, ...pair, headSha256 });
  const key = storageKey(pair.secretKey);
  pair.secretKey.fill(0);
  if (!batchKey.ok) return batchKey;
  const { deflate } = parts;
  const plainBytesMax = telemetryLimits.batchPlainBytesMax;
  const records = await unpackRecords({ statement, body, batchKey: batchKey.value, deflate, plainBytesMax });
  batchKey.value.fill(0);
  if (!records.ok) return records;
  const rows: OpenedRecord[] = [];
  for (const { timeMs, release, data } of records.value) {
    const text = jsonText(data);
    if (text === null) return refuse('telemetry-unreadable', `record ${rows.length} is nested too deep`);
    rows.push({ timeMs, release, data: text });
  }
  const { epoch, sequence, keyId } = head;
  const { entropy } = parts;
  const sealed =
    rows.length === 0
      ? null
      : await sealRecords(rows, { deviceId, epoch, sequence }, { keyId, key, deflate, entropy });
  key.fill(0);
  return ok({ records: rows, sealed, erased: 0 });
}

/** Null where it is nested deeper than the writer's stack; the parser has none. */
function jsonText(data: object): string | null {
  try {
    return JSON.stringify(data);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}
