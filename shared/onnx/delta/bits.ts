// Why: the low bits of differences, which no coder makes smaller, packed one behind the other.
// Trusts: its caller for widths up to 32. Must never: read outside of its bytes; past their end come zeros, and
// the caller asks `overrun` once a piece.

/** Writes up to 32 bits a call, low bits first. */
export class BitWriter {
  /** What is filled. For a writer in a loop of its own, which gives all of these back. */
  bytes = new Uint8Array(1024);
  length = 0;
  /** Fewer than eight bits that fill no byte yet. */
  rest = 0;
  restBits = 0;

  write(value: number, bits: number): void {
    if (bits > 24) {
      this.write(value & 0xffff, 16);
      this.write(value >>> 16, bits - 16);
      return;
    }
    this.makeRoom(4);
    this.rest |= value << this.restBits;
    this.restBits += bits;
    while (this.restBits >= 8) {
      this.bytes[this.length++] = this.rest;
      this.rest >>>= 8;
      this.restBits -= 8;
    }
  }

  makeRoom(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.length + more));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  finish(): Uint8Array {
    if (this.restBits > 0) {
      this.makeRoom(1);
      this.bytes[this.length++] = this.rest;
    }
    return this.bytes.subarray(0, this.length);
  }
}

/** Zero bytes that must stand behind the bits, so that whole words can be read at their end. */
export const bitPaddingBytes = 8;

export class BitReader {
  readonly bytes: Uint8Array;
  readonly #bits: number;
  /** The next bit. For a reader in a loop of its own, which gives it back. */
  at = 0;

  /** `bytes` with `bitPaddingBytes` more than the `length` that holds bits. */
  constructor(bytes: Uint8Array, length: number) {
    this.bytes = bytes;
    this.#bits = length * 8;
  }

  /** Up to 32 bits. Far past the end it gives zeros. */
  read(count: number): number {
    const byte = this.at >>> 3;
    const shift = this.at & 7;
    this.at += count;
    const { bytes } = this;
    if (byte + 5 > bytes.length) return 0;
    const low =
      (bytes[byte] as number) |
      ((bytes[byte + 1] as number) << 8) |
      ((bytes[byte + 2] as number) << 16) |
      ((bytes[byte + 3] as number) << 24);
    if (count + shift <= 32) return count === 32 ? low >>> 0 : (low >>> shift) & ((1 << count) - 1);
    const value = ((low >>> shift) | ((bytes[byte + 4] as number) << (32 - shift))) >>> 0;
    return count === 32 ? value : value & ((1 << count) - 1);
  }

  get overrun(): boolean {
    return this.at > this.#bits;
  }

  get finished(): boolean {
    return this.#bits - this.at < 8 && !this.overrun;
  }
}
