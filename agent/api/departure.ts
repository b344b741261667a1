// Why: that a client went away, told to whoever still works for it. Trusts: its connection.
// Must never: cost as much as an AbortSignal, which takes as long to listen to as a small body takes to read.

import type { Socket } from 'node:net';
import { Bag } from '../../shared/kernel/bag.ts';
import type { Cancellation } from '../inference/served.ts';

/** What the host needs of an AbortSignal. */
export class Departure implements Cancellation {
  aborted = false;
  readonly #acts = new Bag<() => void>();

  addEventListener(_type: 'abort', act: () => void): void {
    this.#acts.add(act);
  }

  removeEventListener(_type: 'abort', act: () => void): void {
    this.#acts.delete(act);
  }

  abort(): void {
    if (this.aborted) return;
    this.aborted = true;
    for (const act of this.#acts.clear()) act();
  }
}

const departures = new WeakMap<Socket, Departure>();

/** Aborted when the client went away. One for each connection, which is all that a client can close. */
export function departureOf(socket: Socket): Departure {
  const known = departures.get(socket);
  if (known !== undefined) return known;
  const gone = new Departure();
  departures.set(socket, gone);
  if (socket.destroyed) gone.abort();
  else socket.once('close', () => gone.abort());
  return gone;
}
