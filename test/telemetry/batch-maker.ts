// Why: a device's side of the sealed batch for the tests of the region: honest by default, and wrong in
// exactly the one way that a test asks for.
// Trusts: shared/trust/telemetry.ts for the format. Must never: check anything itself.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { publicKeyOf, type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Entropy } from '../../shared/kernel/ports.ts';
import {
  encodeBatchMessage,
  encodeHead,
  encodeRows,
  lineBytes,
  makeWrap,
  packRecords,
  recordLine,
  sealRow,
  signStatement,
} from '../../shared/trust/telemetry.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import type {
  BatchHead,
  BatchStatement,
  TelemetryClass,
  TelemetryKey,
  TelemetryRecord,
} from '../../shared/wire/telemetry.ts';

export interface MadeBatch {
  head: BatchHead;
  headBytes: Uint8Array;
  headSha256: string;
  wrap: Uint8Array;
  body: Uint8Array;
  batchKey: Uint8Array;
  envelope: Envelope;
  /** As it is published. */
  message: Uint8Array;
}

export interface BatchWishes {
  class?: TelemetryClass;
  format?: BatchStatement['format'];
  /** Changes of the head before anything is made from it. */
  head?: Partial<BatchHead>;
  /** What the statement says, where it is not true. */
  recordCount?: number;
  plainBytes?: number;
  /** Who signs, where it is not the device. */
  signer?: Signer;
  /** Key of the wrap, hex, where it is not the device's. */
  sealTo?: string;
  /** The body in the place of the records'. */
  body?: (batchKey: Uint8Array) => Promise<Uint8Array>;
  /** Leaves the chain as it was: for batches that are to be refused. */
  aside?: boolean;
}

export function recordsOf(count: number, from = 0, release: string | null = null): TelemetryRecord[] {
  return Array.from({ length: count }, (_, index) => ({
    timeMs: Date.UTC(2026, 0, 1) + from + index,
    release,
    data: { number: from + index, note: `record ${from + index}` },
  }));
}

export class BatchMaker {
  readonly deviceId: string;
  readonly signer: Signer;
  sequence = 0;
  previousHeadSha256: string | null = null;
  key: TelemetryKey;
  private readonly region: string;
  private readonly entropy: Entropy;

  constructor(parts: { seed: Uint8Array; region: string; key: TelemetryKey; entropy: Entropy }) {
    this.deviceId = deviceIdOf(publicKeyOf(parts.seed));
    this.signer = signerFromSeed(parts.seed, 'node');
    this.region = parts.region;
    this.key = parts.key;
    this.entropy = parts.entropy;
  }

  async make(records: readonly TelemetryRecord[], wishes: BatchWishes = {}): Promise<MadeBatch> {
    const head: BatchHead = {
      schemaVersion: 1,
      deviceId: this.deviceId,
      region: this.region,
      epoch: this.key.epoch,
      sequence: this.sequence + 1,
      previousHeadSha256: this.previousHeadSha256,
      class: wishes.class ?? 'app',
      keyId: this.key.keyId,
      openedAtMs: Date.UTC(2026, 0, 1),
      ...wishes.head,
    };
    const headBytes = encodeHead(head);
    const headSha256 = sha256Hex(headBytes);
    if (wishes.aside !== true) {
      this.sequence = head.sequence;
      this.previousHeadSha256 = headSha256;
    }
    const batchKey = this.entropy.bytes(32);
    const wrap = unwrap(
      makeWrap({
        publicKey: wishes.sealTo ?? this.key.publicKey,
        batchKey,
        headSha256,
        ephemeralSeed: this.entropy.bytes(32),
      }),
    );
    const format = wishes.format ?? 'packed';
    const lines = records.map(recordLine);
    const body = await (wishes.body?.(batchKey) ?? bodyOf(format, batchKey, lines));
    const said = {
      recordCount: wishes.recordCount ?? records.length,
      plainBytes: wishes.plainBytes ?? lines.reduce((sum, line) => sum + lineBytes(line), 0),
    };
    const envelope = signStatement({ headBytes, format, ...said, wrap, body }, wishes.signer ?? this.signer);
    const message = encodeBatchMessage({ envelope, wrap, body });
    return { head, headBytes, headSha256, wrap, body, batchKey, envelope, message };
  }
}

async function bodyOf(
  format: BatchStatement['format'],
  batchKey: Uint8Array,
  lines: readonly Uint8Array[],
): Promise<Uint8Array> {
  if (format === 'tombstone') return new Uint8Array(0);
  if (format === 'rows') return encodeRows(lines.map((line, index) => sealRow(batchKey, index, line)));
  return packRecords(batchKey, lines, systemDeflate);
}

/** A body that is small and inflates to this many zeros. */
export async function bombBody(batchKey: Uint8Array, bytes: number): Promise<Uint8Array> {
  // `packRecords` packs lines; one line of zeros is as good as any.
  return packRecords(batchKey, [new Uint8Array(bytes)], systemDeflate);
}
