// Why: a registry restored from an old backup is healed by what its devices hold, as it was signed (DESIGN 3
// "Restore"). Trusts: callers to give only what was verified; the registry verifies its own signatures.
// Must never: become a flood that whoever owns the bus can start, nor hold anything else up.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { encodeMessage, heldPieceBytes } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { messageHead } from './message.ts';

export interface GiveBack {
  /**
   * Sends a held file by its name on the wire, in pieces, in order. Once a connection and at most every ten
   * minutes, unless its bytes changed. Returns at once.
   */
  give(file: string, bytes: Uint8Array): void;
  connected(): void;
  /** Resolves when nothing is being sent. */
  idle(): Promise<void>;
}

export function createGiveBack(parts: {
  bus: Bus & { connected(): boolean };
  region: string;
  deviceId: string;
  clock: Clock;
  entropy: Entropy;
  log: Log;
}): GiveBack {
  const { bus, clock, entropy, log } = parts;
  const topic = deviceTopic(parts.region, parts.deviceId, 'result');
  const given = new Map<string, { sha256: string; atMs: number; connection: number }>();
  let connection = 0;
  let last: Promise<void> = Promise.resolve();

  async function send(file: string, bytes: Uint8Array, sha256: string): Promise<void> {
    for (let offset = 0; offset < bytes.length; offset += heldPieceBytes) {
      const piece = bytes.subarray(offset, offset + heldPieceBytes);
      const body = encodeMessage({
        ...messageHead(clock, entropy),
        kind: 'held',
        file,
        sha256,
        totalBytes: bytes.length,
        offset,
        bytes: Buffer.from(piece).toString('base64'),
      });
      await bus.publish(topic, body, { qos: 1, retain: false });
    }
    log.emit('info', 'held.returned', { file, bytes: bytes.length, sha256 });
  }

  return {
    give: (file, bytes) => {
      const sha256 = sha256Hex(bytes);
      const before = given.get(file);
      const nowMs = clock.mono();
      const lately =
        before !== undefined &&
        (before.connection === connection || nowMs - before.atMs < limits.giveBackEveryMs);
      if (lately && before.sha256 === sha256) return;
      given.set(file, { sha256, atMs: nowMs, connection });
      last = last
        .then(() => send(file, bytes, sha256))
        .catch((error: unknown) => {
          // Not given: the next connection may ask again at once.
          given.delete(file);
          log.emit('debug', 'bus.disconnected', { file, detail: asFleetError(error).message });
        });
    },
    connected: () => {
      connection += 1;
    },
    idle: () => last,
  };
}
