// Why: closed batches are compressed off the event loop and sealed as one body, one after the other.
// Trusts: the Deflate port. Must never: keep a batch's key or lines longer than it takes to pack them.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Deflate, Log, Timer } from '../../shared/kernel/ports.ts';
import { packRecords } from '../../shared/trust/telemetry.ts';
import type { OpenBatch } from './open-batch.ts';

export interface PackingParts {
  clock: Clock;
  deflate: Deflate;
  log: Log;
  /** Puts the packed body in the place of the batch's rows, durably. */
  store(batch: OpenBatch, body: Uint8Array): Promise<void>;
  onPacked(): void;
}

export interface Packing {
  add(batch: OpenBatch): void;
  /** The batch of this sequence, while it is being packed. */
  find(sequence: number): OpenBatch | null;
  done(sequence: number): Promise<void>;
  /** Resolves true when the first one was packed; false where the disk takes none at present, or none waits. */
  first(): Promise<boolean>;
  /** Resolves when there is room for more in memory, or the disk takes none at present. */
  room(): Promise<void>;
  /** Forgets all of them; what is under way comes to nothing. */
  clear(): void;
  /** Resolves when each was packed, or tried once more where the disk takes none. */
  close(): Promise<void>;
}

/** Batches that wait; more would let memory grow faster than it is given back. */
const waitingMax = 4;
const retryMs = 5_000;

export function createPacking(parts: PackingParts): Packing {
  const { clock, deflate, log } = parts;
  const waiting = new Map<number, { batch: OpenBatch; done: Promise<void> }>();
  let tail: Promise<void> = Promise.resolve();
  let stuck = false;
  let closed = false;
  let wake: () => void = () => undefined;

  async function pack(batch: OpenBatch): Promise<void> {
    try {
      const body = await packRecords(batch.key, batch.lines, deflate);
      while (!(await stored(batch, body)) && !closed) await pause();
    } catch (error) {
      // Its rows are on the disk; the next start closes it as it is.
      const fault = asFleetError(error);
      log.emit('error', 'outbox.failed', { while: 'packing', code: fault.code, detail: fault.message });
    } finally {
      if (waiting.get(batch.sequence)?.batch === batch) waiting.delete(batch.sequence);
      batch.key.fill(0);
      batch.lines = [];
      parts.onPacked();
    }
  }

  async function stored(batch: OpenBatch, body: Uint8Array): Promise<boolean> {
    try {
      await parts.store(batch, body);
      stuck = false;
      return true;
    } catch (error) {
      const fault = asFleetError(error);
      log.emit('error', 'outbox.failed', { while: 'packing', code: fault.code, detail: fault.message });
      stuck = true;
      return false;
    }
  }

  async function pause(): Promise<void> {
    const timer: Timer = clock.timer(retryMs);
    await Promise.race([
      timer.done,
      new Promise<void>((resolve) => {
        wake = resolve;
      }),
    ]);
    timer.cancel();
  }

  async function first(): Promise<boolean> {
    const one = [...waiting.values()][0];
    if (one === undefined || stuck) return false;
    await one.done;
    return true;
  }

  return {
    add: (batch) => {
      tail = tail.then(() => pack(batch));
      waiting.set(batch.sequence, { batch, done: tail });
    },
    find: (sequence) => waiting.get(sequence)?.batch ?? null,
    done: async (sequence) => {
      await waiting.get(sequence)?.done;
    },
    first,
    room: async () => {
      while (waiting.size >= waitingMax && (await first())) {
        // One less waits now.
      }
    },
    clear: () => waiting.clear(),
    close: async () => {
      closed = true;
      wake();
      await tail;
    },
  };
}
