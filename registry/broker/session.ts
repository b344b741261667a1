// Why: everything that the registry sends to one connected client, written to its own socket, so that a
// client that does not read can hold up nobody but itself (DESIGN 4).
// Trusts: broker.ts to have checked who the client is and what it may hear. Must never: keep more bytes for
// a client than its limits, nor send a message out of the order in which it was published.

import type { TLSSocket } from 'node:tls';
import { generate } from 'mqtt-packet';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log, Timer } from '../../shared/kernel/ports.ts';
import type { CertificateIdentity } from './identity.ts';

export interface OutgoingMessage {
  topic: string;
  payload: Buffer;
  qos: 0 | 1;
  retain: boolean;
}

export interface SessionParts {
  clientId: string;
  identity: CertificateIdentity;
  socket: TLSSocket;
  clock: Clock;
  log: Log;
}

/**
 * Bytes that may wait for one client: its bulk frames and, beside them, control messages. More than that
 * means that it stopped reading; the connection is dropped and it gets what is retained when it is back.
 */
export const sessionBytesMax = limits.bulkInFlightBytesMax + 4 * limits.busMessageBytesMax;

const nothing = new Uint8Array(0);
const publishQos0 = 0x30;

/** A QoS 0 publication up to the frame's body, which follows it (MQTT 3.1.1 §3.3). */
function bulkHead(topic: string, frame: Uint8Array, bodyBytes: number): Buffer {
  const name = Buffer.from(topic);
  const lengths = [publishQos0];
  for (let left = 2 + name.length + frame.length + bodyBytes; ; left = Math.floor(left / 128)) {
    lengths.push(left < 128 ? left : (left % 128) | 0x80);
    if (left < 128) break;
  }
  return Buffer.concat([Buffer.from([...lengths, name.length >> 8, name.length & 0xff]), name, frame]);
}

export class Session {
  readonly clientId: string;
  readonly identity: CertificateIdentity;
  readonly socket: TLSSocket;
  /** Granted topics with their QoS. Exact topics: nobody but the registry gets wildcards. */
  readonly topics = new Map<string, 0 | 1>();
  readonly #clock: Clock;
  readonly #log: Log;
  #messageId = 0;
  #bulkBytes = 0;
  #bulkProgressAtMs = 0;
  #bulkWatch: Timer | null = null;
  /** Frames handed to the socket that have not left for the kernel yet. */
  readonly #bulkFlying = new Set<(sent: boolean) => void>();
  /** Frames that wait for room, first come first served. */
  readonly #bulkQueue: { bytes: number; go(room: boolean): void }[] = [];

  constructor(parts: SessionParts) {
    this.clientId = parts.clientId;
    this.identity = parts.identity;
    this.socket = parts.socket;
    this.#clock = parts.clock;
    this.#log = parts.log;
    parts.socket.once('close', () => this.#release());
  }

  /** Sends a control message at once. False where the client is gone or was dropped for not reading. */
  send(message: OutgoingMessage): boolean {
    if (this.socket.destroyed) return false;
    if (this.socket.writableLength + message.payload.length > sessionBytesMax) {
      if (message.qos === 1) this.drop('too many bytes wait');
      return false;
    }
    this.socket.write(this.#encode(message));
    return true;
  }

  /**
   * Sends a QoS 0 frame when at most `bulkInFlightBytesMax` bytes of bulk would wait. True once the frame
   * has left for the kernel; false where the client went away or did not read for `bulkStallMs`.
   */
  async sendBulk(topic: string, frame: Uint8Array, body: Uint8Array = nothing): Promise<boolean> {
    const bytes = frame.length + body.length;
    if (!(await this.#room(bytes))) return false;
    if (this.socket.destroyed || !this.topics.has(topic)) {
      this.#leave(bytes);
      return false;
    }
    const head = bulkHead(topic, frame, body.length);
    const sent = await new Promise<boolean>((resolve) => {
      this.#bulkFlying.add(resolve);
      const left = (): void => {
        this.#bulkFlying.delete(resolve);
        // Node also calls back, without an error, for a write that a closed socket cancelled.
        resolve(!this.socket.destroyed);
      };
      if (body.length === 0) {
        this.socket.write(head, left);
        return;
      }
      // Together, so that the head gets no TLS record and no system call of its own; the body is not copied here.
      this.socket.cork();
      this.socket.write(head);
      this.socket.write(body, left);
      this.socket.uncork();
    });
    this.#leave(bytes);
    return sent;
  }

  /** Ends a connection whose client does not read. */
  drop(reason: string): void {
    if (this.socket.destroyed) return;
    this.#log.emit('warn', 'broker.stalled', {
      clientId: this.clientId,
      reason,
      waitingBytes: this.socket.writableLength,
    });
    this.socket.destroy();
  }

  #encode(message: OutgoingMessage): Buffer {
    if (message.qos === 1) this.#messageId = (this.#messageId % 0xffff) + 1;
    return generate({
      cmd: 'publish',
      topic: message.topic,
      payload: message.payload,
      qos: message.qos,
      retain: message.retain,
      dup: false,
      ...(message.qos === 1 ? { messageId: this.#messageId } : {}),
    });
  }

  /** Resolves with the bytes counted in, or false. */
  #room(bytes: number): Promise<boolean> {
    if (this.socket.destroyed) return Promise.resolve(false);
    if (this.#bulkQueue.length === 0 && this.#fits(bytes)) {
      this.#enter(bytes);
      return Promise.resolve(true);
    }
    return new Promise((resolve) => this.#bulkQueue.push({ bytes, go: resolve }));
  }

  /** One frame may always be on its way, however large, or it never could. */
  #fits(bytes: number): boolean {
    return this.#bulkBytes === 0 || this.#bulkBytes + bytes <= limits.bulkInFlightBytesMax;
  }

  #enter(bytes: number): void {
    if (this.#bulkBytes === 0) this.#bulkProgressAtMs = this.#clock.mono();
    this.#bulkBytes += bytes;
    if (this.#bulkWatch === null) this.#watchBulk();
  }

  #leave(bytes: number): void {
    this.#bulkBytes -= bytes;
    this.#bulkProgressAtMs = this.#clock.mono();
    for (
      let next = this.#bulkQueue[0];
      next !== undefined && this.#fits(next.bytes);
      next = this.#bulkQueue[0]
    ) {
      this.#bulkQueue.shift();
      this.#enter(next.bytes);
      next.go(true);
    }
  }

  /** One timer while bulk is on its way: drops the client when none of it left for `bulkStallMs`. */
  #watchBulk(): void {
    const leftMs = this.#bulkProgressAtMs + limits.bulkStallMs - this.#clock.mono();
    if (leftMs <= 0) {
      this.drop('bulk stalled');
      return;
    }
    const timer = this.#clock.timer(leftMs);
    this.#bulkWatch = timer;
    void timer.done.then(() => {
      this.#bulkWatch = null;
      if (this.#bulkBytes > 0 && !this.socket.destroyed) this.#watchBulk();
    });
  }

  #release(): void {
    this.#bulkWatch?.cancel();
    for (const waiting of this.#bulkQueue.splice(0)) waiting.go(false);
    for (const resolve of this.#bulkFlying) resolve(false);
    this.#bulkFlying.clear();
  }
}
