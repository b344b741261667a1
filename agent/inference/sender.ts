// Why: frames on their way to a child: small ones are built side by side in memory that is used again and again, and
// leave in one write; a request then leaves no garbage for its frame. Trusts: the socket's count of what it still holds.
// Must never: write again to memory that the socket has not let go of, or change the order of frames.

import type { Socket } from 'node:net';
import { atEndOfTurn } from '../../shared/host/event-loop.ts';
import { singlePieceBytesMax } from './pipe.ts';

export interface Sender {
  /** Memory for a frame that is handed over next. */
  allocate(bytes: number): Buffer;
  now(pieces: readonly Uint8Array[]): void;
  /** Together with whatever else this turn of the event loop brings. */
  soon(pieces: readonly Uint8Array[]): void;
}

/** Pieces that lie behind each other as one. */
function joined(pieces: readonly Uint8Array[]): Uint8Array[] {
  const list: Uint8Array[] = [];
  for (const piece of pieces) {
    const last = list.at(-1);
    if (last?.buffer === piece.buffer && last.byteOffset + last.length === piece.byteOffset)
      list[list.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + piece.length);
    else list.push(piece);
  }
  return list;
}

export function createSender(socket: Socket): Sender {
  const kept: Uint8Array[] = [];
  let memory = Buffer.allocUnsafeSlow(singlePieceBytesMax);
  let used = 0;
  const flush = (): void => {
    const pieces = joined(kept.splice(0));
    if (pieces.length > 1) socket.cork();
    for (const piece of pieces) socket.write(piece);
    if (pieces.length > 1) socket.uncork();
    used = 0;
    // The system did not take all of it at once: what is left still lies there.
    if (socket.writableLength > 0) memory = Buffer.allocUnsafeSlow(singlePieceBytesMax);
  };
  return {
    allocate: (bytes) => {
      if (bytes > memory.length) return Buffer.allocUnsafe(bytes);
      if (used + bytes > memory.length) flush();
      used += bytes;
      return memory.subarray(used - bytes, used);
    },
    now: (pieces) => {
      kept.push(...pieces);
      flush();
    },
    soon: (pieces) => {
      if (kept.length === 0) atEndOfTurn(flush);
      kept.push(...pieces);
    },
  };
}
