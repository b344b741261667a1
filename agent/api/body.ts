// Why: request bodies come from anybody who reaches the port: bounded in bytes, in time and in sum.
// Trusts: nothing. Must never: take memory by a length that was only promised, or inflate more than it may keep.

import type { IncomingMessage } from 'node:http';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Coding, createUnpacker, readCoding, type Unpacker } from './coding.ts';

export interface BodyLimits {
  /** Of the body as it is used: after it was inflated. */
  bytesMax: number;
  /** From the head of the request to the last byte of its body. */
  timeoutMs: number;
  /** Over all requests at once. */
  totalBytesMax: number;
}

export interface Body {
  bytes: Uint8Array;
  /** Gives its memory back to the common bound; call it once, when the bytes are no longer used. */
  done(): void;
}

export interface BodyReader {
  /**
   * The whole body, inflated where it comes in gzip or deflate. From `alignAt` on it lies aligned to 8 bytes, unless
   * it is small. Refusals: `body-too-large`, `body-timeout`, `body-malformed` (no valid gzip), `body-encoding`
   * (another coding), `infer-queue-full` (too many bytes wait), `interrupted` (the client went away).
   */
  read(request: IncomingMessage, alignAt?: number): Promise<Result<Body>>;
  /** For a body of known length that somebody else takes off its connection. Null where it is longer than allowed. */
  gather(announcedBytes: number, alignAt?: number): Gathering | null;
}

/**
 * Memory is taken in steps of what already came, so that nobody gets it for a promise. Wide ones: what lies there has to
 * be copied at each, and pages that nothing was written to take no memory.
 */
const firstBytes = 64 * 1024;
const growth = 32;

/** Null where the process gets no more: that is one request's bad luck, not the agent's end. */
function allocate(bytes: number): Uint8Array | null {
  try {
    return Buffer.allocUnsafeSlow(bytes);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** Bytes in memory that grows as they come. What it holds counts against the common bound until it is released. */
export class Gathering {
  readonly #ceiling: number;
  readonly #offset: number;
  readonly #take: (bytes: number) => boolean;
  readonly #giveBack: (bytes: number) => void;
  #memory: Uint8Array = new Uint8Array(0);
  #filled = 0;
  /** The only piece so far, not copied: most bodies come in one. */
  #single: Buffer | null = null;
  /** Memory that was asked for. */
  #held = 0;

  constructor(
    ceiling: number,
    alignAt: number,
    bound: { take: (bytes: number) => boolean; giveBack: (bytes: number) => void },
  ) {
    this.#ceiling = ceiling;
    this.#offset = (8 - (alignAt % 8)) % 8;
    this.#take = bound.take;
    this.#giveBack = bound.giveBack;
  }

  /** Idempotent. */
  release(): void {
    this.#giveBack(this.#held);
    this.#held = 0;
  }

  get length(): number {
    return this.#single?.length ?? this.#filled;
  }

  /** False where there is no room; what came before is still there then. */
  add(piece: Buffer): boolean {
    if (this.length === 0 && piece.length <= firstBytes) {
      if (!this.#hold(piece.length)) return false;
      this.#single = piece;
      return true;
    }
    const first = this.#single;
    this.#single = null;
    if (first !== null && !this.#append(first)) {
      // Nothing that came is lost: somebody else may have patience for it.
      this.#single = first;
      return false;
    }
    return this.#append(piece);
  }

  /** Where all of it will lie, once that is known: it does not move any more. Null before. */
  whole(): Uint8Array | null {
    const end = this.#offset + this.#ceiling;
    return this.#memory.length < end ? null : this.#memory.subarray(this.#offset, end);
  }

  bytes(): Uint8Array {
    return this.#single ?? this.#memory.subarray(this.#offset, this.#offset + this.#filled);
  }

  #hold(bytes: number): boolean {
    if (bytes > this.#held && !this.#take(bytes - this.#held)) return false;
    this.#held = Math.max(this.#held, bytes);
    return true;
  }

  #append(piece: Buffer): boolean {
    const needed = this.#filled + piece.length;
    if (this.#offset + needed > this.#memory.length) {
      const capacity = Math.min(this.#ceiling, Math.max(needed, needed * growth, firstBytes));
      if (!this.#hold(capacity)) return false;
      const larger = allocate(this.#offset + capacity);
      if (larger === null) return false;
      larger.set(this.bytes(), this.#offset);
      this.#memory = larger;
    }
    this.#memory.set(piece, this.#offset + this.#filled);
    this.#filled = needed;
    return true;
  }
}

export function createBodyReader(clock: Clock, limits: BodyLimits): BodyReader {
  let heldBytes = 0;
  const take = (bytes: number): boolean => {
    if (heldBytes + bytes > limits.totalBytesMax) return false;
    heldBytes += bytes;
    return true;
  };
  const giveBack = (bytes: number): void => {
    heldBytes -= bytes;
  };
  const bound = { take, giveBack };

  const read: BodyReader['read'] = (request, alignAt = 0) => {
    const coding = readCoding(request.headers['content-encoding']);
    if (!coding.ok) return Promise.resolve(coding);
    const announced = request.headers['content-length'];
    const announcedBytes = announced === undefined ? null : Number(announced);
    if (announcedBytes !== null && announcedBytes > limits.bytesMax) {
      const detail = `a body of ${announcedBytes} bytes; the limit is ${limits.bytesMax}`;
      return Promise.resolve(refuse('body-too-large', detail));
    }
    const ceiling = coding.value === null && announcedBytes !== null ? announcedBytes : limits.bytesMax;
    const gathering = new Gathering(ceiling, alignAt, bound);
    const come = { coding: coding.value, announcedBytes };
    return receive(request, come, gathering, (refusal) => {
      if (refusal !== null) {
        gathering.release();
        // The rest is not read: the answer goes out and the connection is closed.
        request.pause();
        return { ok: false, refusal };
      }
      return ok({ bytes: gathering.bytes(), done: () => gathering.release() });
    });
  };

  /** `conclude` is told null once the whole body is in `gathering`. */
  const receive = (
    request: IncomingMessage,
    { coding, announcedBytes }: { coding: Coding | null; announcedBytes: number | null },
    gathering: Gathering,
    conclude: (refusal: Refusal | null) => Result<Body>,
  ): Promise<Result<Body>> =>
    new Promise((resolve) => {
      let timer: Timer | null = null;
      let unpacker: Unpacker | null = null;
      let settled = false;
      let cameBytes = 0;
      const settle = (code: Refusal['code'] | null, detail = ''): void => {
        if (settled) return;
        settled = true;
        timer?.cancel();
        request.off('data', onData);
        unpacker?.stop();
        resolve(conclude(code === null ? null : { code, detail }));
      };
      const keep = (piece: Buffer): void => {
        if (settled) return;
        if (gathering.length + piece.length > limits.bytesMax)
          settle('body-too-large', `more than ${limits.bytesMax} bytes`);
        else if (!gathering.add(piece)) settle('infer-queue-full', 'too many large requests at once');
      };
      if (coding !== null) {
        unpacker = createUnpacker(coding, {
          piece: keep,
          // What is not inflated yet waits in the socket, not here.
          hold: () => request.pause(),
          goOn: () => {
            if (!settled) request.resume();
          },
          end: (fault) => settle(fault === null ? null : 'body-malformed', fault ?? ''),
        });
      }
      const onData = (chunk: Buffer): void => {
        cameBytes += chunk.length;
        if (unpacker === null) keep(chunk);
        else unpacker.write(chunk);
      };
      request.on('data', onData);
      request.on('end', () => (unpacker === null ? settle(null) : unpacker.end()));
      const aborted = (): void => {
        if (!request.complete) settle('interrupted', 'the client went away');
      };
      request.on('error', aborted);
      request.on('close', aborted);
      // A body that came in one packet with its head is there by then, and needs no timer.
      void Promise.resolve().then(() => {
        if (settled || request.complete || cameBytes === announcedBytes) return;
        timer = clock.timer(limits.timeoutMs);
        void timer.done.then(() => settle('body-timeout', `no complete body within ${limits.timeoutMs} ms`));
      });
    });

  return {
    read,
    gather: (announcedBytes, alignAt = 0) =>
      announcedBytes > limits.bytesMax ? null : new Gathering(announcedBytes, alignAt, bound),
  };
}
