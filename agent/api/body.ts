// Why: request bodies come from anybody who reaches the port: bounded in bytes, in time and in sum.
// Trusts: nothing. Must never: take memory by a length that was only promised.

import type { IncomingMessage } from 'node:http';
import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

export interface BodyLimits {
  bytesMax: number;
  /** From the head of the request to the last byte of its body. */
  timeoutMs: number;
  /** Over all requests at once. */
  totalBytesMax: number;
}

export interface BodyReader {
  /**
   * The whole body; give its memory back with `done` when it was used. Refusals: `body-too-large`,
   * `body-timeout`, `infer-queue-full` (too many bytes wait), `infer-unsupported` (compressed),
   * `interrupted` (the client went away).
   */
  read(request: IncomingMessage): Promise<Result<{ bytes: Uint8Array; done(): void }>>;
}

/** Capacity taken at once for a body whose length is not known. */
const firstBytes = 16 * 1024;

export function createBodyReader(clock: Clock, limits: BodyLimits): BodyReader {
  let heldBytes = 0;

  const read = (request: IncomingMessage): Promise<Result<{ bytes: Uint8Array; done(): void }>> => {
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding !== 'identity') {
      return Promise.resolve(refuse('infer-unsupported', `bodies in ${JSON.stringify(encoding)} encoding`));
    }
    const announced = request.headers['content-length'];
    const announcedBytes = announced === undefined ? null : Number(announced);
    if (announcedBytes !== null && announcedBytes > limits.bytesMax) {
      return Promise.resolve(
        refuse('body-too-large', `a body of ${announcedBytes} bytes; the limit is ${limits.bytesMax}`),
      );
    }
    return new Promise((resolve) => {
      let bytes = Buffer.allocUnsafe(0);
      let filled = 0;
      let settled = false;
      const timer = clock.timer(limits.timeoutMs);

      const release = (): void => {
        heldBytes -= bytes.length;
        bytes = Buffer.allocUnsafe(0);
      };
      const settle = (outcome: Result<{ bytes: Uint8Array; done(): void }>): void => {
        if (settled) return;
        settled = true;
        timer.cancel();
        request.off('data', onData);
        if (!outcome.ok) {
          release();
          // The rest is not read: the answer goes out and the connection is closed.
          request.pause();
        }
        resolve(outcome);
      };
      /** Grows as bytes come, doubling, up to what was announced; false where there is no room. */
      const makeRoom = (needed: number): boolean => {
        if (needed <= bytes.length) return true;
        const ceiling = announcedBytes ?? limits.bytesMax;
        const capacity = Math.min(ceiling, Math.max(needed, bytes.length * 4, firstBytes));
        if (heldBytes + capacity - bytes.length > limits.totalBytesMax) return false;
        const larger = Buffer.allocUnsafeSlow(capacity);
        bytes.copy(larger, 0, 0, filled);
        heldBytes += capacity - bytes.length;
        bytes = larger;
        return true;
      };
      const onData = (chunk: Buffer): void => {
        const needed = filled + chunk.length;
        if (needed > limits.bytesMax) {
          settle(refuse('body-too-large', `more than ${limits.bytesMax} bytes`));
          return;
        }
        if (!makeRoom(needed)) {
          settle(refuse('infer-queue-full', 'too many large requests at once'));
          return;
        }
        chunk.copy(bytes, filled);
        filled = needed;
      };
      request.on('data', onData);
      request.once('end', () => settle(ok({ bytes: bytes.subarray(0, filled), done: release })));
      const aborted = (): void => settle(refuse('interrupted', 'the client went away'));
      request.once('error', aborted);
      request.once('close', aborted);
      void timer.done.then(() =>
        settle(refuse('body-timeout', `no complete body within ${limits.timeoutMs} ms`)),
      );
    });
  };
  return { read };
}
