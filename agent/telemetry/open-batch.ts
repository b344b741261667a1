// Why: a batch while it is being filled: its key, and what was put in, in memory only.
// Trusts: Entropy for the key. Must never: seal two contents under one row index, or outlive its key.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { secretBoxOverheadBytes } from '../../shared/crypto/secretbox.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy } from '../../shared/kernel/ports.ts';
import {
  batchKeyBytes,
  encodeHead,
  lineBytes,
  makeWrap,
  rowBytes,
  sealRow,
} from '../../shared/trust/telemetry.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import type { OpenedBatch, OutboxState } from './outbox-tables.ts';
import { classRanks } from './policy.ts';

export interface OpenBatch extends OpenedBatch {
  key: Uint8Array;
  /** Every line that was sealed, in order of its row. */
  lines: Uint8Array[];
  plainBytes: number;
  rowBytes: number;
  /** Monotonic. */
  openedAtMs: number;
}

/**
 * Opens the batch with the state's next sequence, and gives the state after it. Fault: `key-invalid` where
 * nothing can be sealed to the region's key.
 */
export function openBatch(
  state: OutboxState,
  className: TelemetryClass,
  clock: Clock,
  entropy: Entropy,
): { batch: OpenBatch; state: OutboxState } {
  const sequence = state.nextSequence;
  const head = encodeHead({
    schemaVersion: 1,
    deviceId: state.deviceId,
    region: state.region,
    epoch: state.key.epoch,
    sequence,
    previousHeadSha256: state.previousHeadSha256,
    class: className,
    keyId: state.key.keyId,
    openedAtMs: Math.max(0, Math.floor(clock.wall())),
  });
  const headSha256 = sha256Hex(head);
  const key = entropy.bytes(batchKeyBytes);
  const wrap = unwrap(
    makeWrap({
      publicKey: state.key.publicKey,
      batchKey: key,
      headSha256,
      ephemeralSeed: entropy.bytes(32),
    }),
  );
  return {
    batch: {
      sequence,
      class: className,
      rank: classRanks[className],
      head,
      headSha256,
      wrap,
      key,
      lines: [],
      plainBytes: 0,
      rowBytes: 0,
      openedAtMs: clock.mono(),
    },
    state: { ...state, nextSequence: sequence + 1, previousHeadSha256: headSha256 },
  };
}

/** Seals one more line; from here on its index is used, whether or not the row gets to the disk. */
export function addLine(batch: OpenBatch, line: Uint8Array): { index: number; box: Uint8Array } {
  const index = batch.lines.length;
  const box = sealRow(batch.key, index, line);
  batch.lines.push(line);
  batch.plainBytes += lineBytes(line);
  batch.rowBytes += rowBytes(box.length);
  return { index, box };
}

/** Forgets every line from this index on. The batch must be closed then: its next index was used. */
export function cutBack(batch: OpenBatch, lines: number): void {
  for (const line of batch.lines.splice(lines)) {
    batch.plainBytes -= lineBytes(line);
    batch.rowBytes -= rowBytes(line.length + secretBoxOverheadBytes);
  }
}
