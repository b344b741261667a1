// Why: the records of a batch as they lie in the registry's database: sealed to a key made of the region's key for that
// device and period, so that deleting the one makes the other, and every backup of it, noise (DESIGN 8).
// Trusts: its callers to give the key only to who may read. Must never: write a record in clear.

import { derivedKey, openStored, sealStored, storedNonceBytes } from '../../shared/crypto/stored-seal.ts';
import type { Deflate, Entropy } from '../../shared/kernel/ports.ts';
import { telemetryLimits } from './limits.ts';
import type { OpenedRecord } from './open-batch.ts';

export interface SealedRecords {
  keyId: string;
  /** Named by the records; what a question after one release need not open. */
  releases: string[];
  bytes: Uint8Array;
}

/** Which batch it is: sealed records do not open as those of another. */
export interface BatchPlace {
  deviceId: string;
  epoch: number;
  sequence: number;
}

/** What a record of no release names; no release is called so. */
export const noRelease = '-';

export const storageKey = (secretKey: Uint8Array): Uint8Array =>
  derivedKey(secretKey, 'lepton stored telemetry 1');

export const aboutOf = ({ deviceId, epoch, sequence }: BatchPlace): Uint8Array =>
  new TextEncoder().encode(`${deviceId} ${epoch} ${sequence}`);

/** One line each, `TIME RELEASE DATA`: JSON as it was, which need not be parsed to be handed on. */
export function plainOf(records: readonly OpenedRecord[]): Uint8Array {
  const lines = records.map(({ timeMs, release, data }) => `${timeMs} ${release ?? noRelease} ${data}\n`);
  return new TextEncoder().encode(lines.join(''));
}

export async function sealRecords(
  records: readonly OpenedRecord[],
  place: BatchPlace,
  parts: { keyId: string; key: Uint8Array; deflate: Deflate; entropy: Entropy },
): Promise<SealedRecords> {
  const packed = await parts.deflate.deflate(plainOf(records));
  const releases = new Set(records.flatMap(({ release }) => (release === null ? [] : [release])));
  const nonce = parts.entropy.bytes(storedNonceBytes);
  return {
    keyId: parts.keyId,
    releases: [...releases],
    bytes: sealStored(parts.key, nonce, packed, aboutOf(place)),
  };
}

/** As `plainOf` wrote them; null where this is no key of it. */
export async function openRecords(
  sealed: Uint8Array,
  place: BatchPlace,
  parts: { key: Uint8Array; deflate: Deflate },
): Promise<Uint8Array | null> {
  const packed = openStored(parts.key, sealed, aboutOf(place));
  if (packed === null) return null;
  const text = await parts.deflate.inflate(packed, 2 * telemetryLimits.batchPlainBytesMax);
  return text.ok ? text.value : null;
}

/** What `plainOf` made bytes of. */
export function recordsIn(plain: Uint8Array): OpenedRecord[] {
  return new TextDecoder()
    .decode(plain)
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const first = line.indexOf(' ');
      const second = line.indexOf(' ', first + 1);
      const release = line.slice(first + 1, second);
      return {
        timeMs: Number(line.slice(0, first)),
        release: release === noRelease ? null : release,
        data: line.slice(second + 1),
      };
    });
}
