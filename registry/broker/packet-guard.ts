// Why: aedes' parser collects a packet of any length that the client announces (up to 256 MiB) before it
// looks at it. This reads the lengths as the bytes go by and ends the connection before they are collected.
// Trusts: nothing. Must never: copy or keep payload bytes.

import type { Duplex } from 'node:stream';

/** Follows the packet lengths of an MQTT stream chunk by chunk (MQTT 3.1.1 §2.2.3). */
export class PacketLengths {
  readonly #bytesMax: number;
  #left = 0;
  #inLength = false;
  #length = 0;
  #shift = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** False from the first packet on that is longer than allowed or whose length is malformed. */
  accept(chunk: Uint8Array): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, chunk.length - at);
        this.#left -= step;
        at += step;
        continue;
      }
      const byte = chunk[at] ?? 0;
      at += 1;
      if (!this.#inLength) {
        // The first byte is type and flags; the parser judges them.
        this.#inLength = true;
        this.#length = 0;
        this.#shift = 0;
        continue;
      }
      this.#length += (byte & 0x7f) * 2 ** this.#shift;
      this.#shift += 7;
      if (this.#length > this.#bytesMax || (byte & 0x80 && this.#shift === 28)) return false;
      if ((byte & 0x80) === 0) {
        this.#inLength = false;
        this.#left = this.#length;
      }
    }
    return true;
  }
}

/** Puts the check between a stream and whoever reads it. A packet that is too long ends the stream. */
export function guardPackets(stream: Duplex, bytesMax: number, onRefused: () => void): void {
  const lengths = new PacketLengths(bytesMax);
  const read = stream.read.bind(stream);
  stream.read = (size?: number): unknown => {
    const chunk: unknown = read(size);
    if (!(chunk instanceof Uint8Array) || lengths.accept(chunk)) return chunk;
    onRefused();
    stream.destroy();
    return null;
  };
}
