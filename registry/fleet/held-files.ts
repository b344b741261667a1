// Why: signed bytes that devices give back come in pieces (heldMessageSchema); here they become files again.
// Trusts: the broker for who sent a piece. Must never: keep more than its bounds, whatever a device promises, or
// hand on bytes that are not those that the first piece announced.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { HeldMessage } from '../../shared/wire/messages.ts';
import { fleetLimits } from './limits.ts';

export interface HeldFiles {
  /**
   * The whole file where this piece was the last one, null where more is to come or the piece is of no use (a
   * repetition, or after a gap: the device begins again). Refusal: `held-invalid` (other bytes than announced).
   */
  add(deviceId: string, piece: HeldMessage): Result<Uint8Array | null>;
}

interface Assembly {
  deviceId: string;
  sha256: string;
  totalBytes: number;
  pieces: Uint8Array[];
  doneBytes: number;
  /** Monotonic. */
  untilMs: number;
}

export function createHeldFiles(clock: Clock): HeldFiles {
  /** By device and file name; the longest untouched first. */
  const assemblies = new Map<string, Assembly>();
  let bytes = 0;

  function drop(key: string): void {
    bytes -= assemblies.get(key)?.doneBytes ?? 0;
    assemblies.delete(key);
  }

  function dropIdle(): void {
    const now = clock.mono();
    for (const [key, { untilMs }] of assemblies) {
      if (untilMs > now) break;
      drop(key);
    }
  }

  function begin(deviceId: string, key: string, piece: HeldMessage): Assembly | null {
    drop(key);
    const own = [...assemblies.values()].filter((one) => one.deviceId === deviceId);
    if (own.length >= fleetLimits.heldFilesPerDeviceMax) return null;
    const { sha256, totalBytes } = piece;
    return { deviceId, sha256, totalBytes, pieces: [], doneBytes: 0, untilMs: 0 };
  }

  return {
    add(deviceId, piece) {
      dropIdle();
      const key = `${deviceId} ${piece.file}`;
      const assembly = piece.offset === 0 ? begin(deviceId, key, piece) : (assemblies.get(key) ?? null);
      if (assembly === null || assembly.sha256 !== piece.sha256) return ok(null);
      if (piece.offset !== assembly.doneBytes) return ok(null);
      const part = new Uint8Array(Buffer.from(piece.bytes, 'base64'));
      // Room is counted by what came, never by what was promised.
      if (bytes + part.length > fleetLimits.heldBytesMax) {
        drop(key);
        return ok(null);
      }
      assemblies.delete(key);
      assemblies.set(key, assembly);
      assembly.pieces.push(part);
      assembly.doneBytes += part.length;
      assembly.untilMs = clock.mono() + fleetLimits.heldIdleMs;
      bytes += part.length;
      if (assembly.doneBytes < assembly.totalBytes && part.length > 0) return ok(null);
      drop(key);
      const whole = new Uint8Array(Buffer.concat(assembly.pieces));
      if (whole.length !== assembly.totalBytes || sha256Hex(whole) !== assembly.sha256) {
        return refuse('held-invalid', `${piece.file}: other bytes than were announced`);
      }
      return ok(whole);
    },
  };
}
