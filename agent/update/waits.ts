// Why: waiting that can be cut short: a retry starts at once when the network is back or plans change.
// Trusts: the Clock and Entropy ports. Must never: keep a timer alive after `close`.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Entropy, Timer } from '../../shared/kernel/ports.ts';
import { type Result, refuse } from '../../shared/kernel/result.ts';

/** Between two tries at least this long, so that jitter near zero makes no busy loop. */
const pauseMsMin = 50;

/** What may pass by itself: an update waits for it until its deadline instead of failing. */
const environmental: ReadonlySet<string> = new Set([
  'bus-offline',
  'fetch-busy',
  'fetch-timeout',
  'fetch-too-slow',
  'disk-full',
  'disk-io',
  'storage-quota',
]);

export function passesByItself(code: string): boolean {
  return environmental.has(code);
}

/** A fault of the world becomes a refusal with its code; a bug goes on up and ends the process. */
export async function faultsRefused<T>(work: () => Promise<Result<T>>): Promise<Result<T>> {
  try {
    return await work();
  } catch (thrown) {
    const error = asFleetError(thrown);
    if (error.code === 'internal') throw error;
    return refuse(error.code, error.message);
  }
}

/** Full jitter: anywhere between nothing and the doubled base, so that a fleet does not come in step. */
export function backoffMs(failures: number, entropy: Entropy): number {
  const ceiling = Math.min(limits.reconnectMaxMs, limits.reconnectBaseMs * 2 ** Math.min(failures, 16));
  return Math.max(pauseMsMin, Math.floor((entropy.u32() / 2 ** 32) * ceiling));
}

export interface Waits {
  /** Resolves after `ms` or at the next `wake`; never after `close`. */
  pause(ms: number): Promise<void>;
  wake(): void;
  close(): void;
}

export function createWaits(clock: Clock): Waits {
  const waiting = new Map<Timer, () => void>();
  let closed = false;
  return {
    pause: (ms) =>
      new Promise((resolve) => {
        if (closed) return;
        const timer = clock.timer(ms);
        waiting.set(timer, resolve);
        void timer.done.then(() => {
          waiting.delete(timer);
          resolve();
        });
      }),
    wake: () => {
      for (const [timer, resolve] of waiting) {
        timer.cancel();
        resolve();
      }
      waiting.clear();
    },
    close: () => {
      closed = true;
      for (const timer of waiting.keys()) timer.cancel();
      waiting.clear();
    },
  };
}
