// Why: one range of a file on its way to a device, piece by piece, the same over MQTT and over HTTPS.
// Trusts: its source for the bytes, the turn for when they may go. Must never: hold more of a file than the next piece
// needs, or go on for a device that went away.

import type { Lease, TurnEnd } from './turns.ts';

/** A file that may be read. */
export interface Source {
  totalBytes: number;
  /** Bytes from the offset on, as many as are at hand, at least one before the end; null where they are gone. */
  read(offset: number): Promise<Uint8Array | null>;
}

/** `failed`: the file cannot be read. `abandoned`: the device went away or stopped reading. */
export type TransferEnd = 'sent' | 'failed' | 'abandoned' | TurnEnd;

export interface Transfer {
  source: Source;
  from: number;
  until: number;
  pieceBytes: number;
  lease: Pick<Lease, 'ended' | 'go' | 'landed'>;
  /** Resolves when the piece has left our memory; false where it never will. Called in order. */
  send(piece: Uint8Array, offset: number): Promise<boolean>;
  /** So many bytes left. */
  sent(bytes: number): void;
}

/** At least one piece, also of an empty range: the device learns the size from it. */
export async function transfer(parts: Transfer): Promise<TransferEnd> {
  const { source, from, until, pieceBytes, lease } = parts;
  const flying = new Set<Promise<void>>();
  let gone = false;
  let fault: unknown = null;

  const launch = (piece: Uint8Array, offset: number): void => {
    const flight = parts.send(piece, offset).then(
      (taken) => {
        if (taken) parts.sent(piece.length);
        else gone = true;
        lease.landed(piece.length, taken);
      },
      (thrown: unknown) => {
        gone = true;
        fault ??= thrown;
        lease.landed(piece.length, false);
      },
    );
    flying.add(flight);
    void flight.then(() => flying.delete(flight));
  };

  /** Null where all of the part is on its way. */
  const launchPart = async (part: Uint8Array, offset: number): Promise<TransferEnd | null> => {
    let at = 0;
    do {
      const piece = part.subarray(at, at + pieceBytes);
      const room = lease.go(piece.length);
      if (room !== null) await room;
      const end = gone ? 'abandoned' : lease.ended();
      if (end !== null) {
        lease.landed(piece.length, false);
        return end;
      }
      launch(piece, offset + at);
      at += piece.length;
    } while (at < part.length);
    return null;
  };

  const run = async (): Promise<TransferEnd> => {
    let offset = from;
    let reading = source.read(offset);
    for (;;) {
      const read = await reading;
      if (read === null || (read.length === 0 && offset < until)) return 'failed';
      const part = read.subarray(0, until - offset);
      const next = offset + part.length;
      // The next part is read while this one goes.
      if (next < until) {
        reading = source.read(next);
        // Whoever ends before it comes to it does not mind its fault.
        reading.catch(() => undefined);
      }
      const end = await launchPart(part, offset);
      if (end !== null) return end;
      if (next >= until) return 'sent';
      offset = next;
    }
  };

  const end = await run();
  await Promise.all(flying);
  if (fault !== null) throw fault;
  return end === 'sent' && gone ? 'abandoned' : end;
}

/** For what needs no turn: metadata and files of one piece. Bounds what is on its way. */
export function freeLease(windowBytes: number, stopped: () => boolean): Transfer['lease'] {
  let flyingBytes = 0;
  let wake: () => void = () => undefined;
  return {
    ended: () => (stopped() ? 'stopped' : null),
    go(bytes) {
      const room = flyingBytes === 0 || flyingBytes + bytes <= windowBytes;
      flyingBytes += bytes;
      if (room) return null;
      return new Promise((resolve) => {
        wake = resolve;
      });
    },
    landed(bytes) {
      flyingBytes -= bytes;
      wake();
    },
  };
}
