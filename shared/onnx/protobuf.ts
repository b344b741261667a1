// Why: the little of the protobuf wire format that ONNX files need, reading without copying.
// Trusts: nothing; every length is checked against what is there. Must never: allocate by a length it
// read, or read past its own part of the file.
// Wire format: protobuf.dev/programming-guides/encoding.

/** The bytes are no protobuf of the expected message. Caught where a file is read (model.ts). */
export class ProtobufFault extends Error {}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export const wireTypes = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/**
 * Messages, texts and numbers that one file may make us keep: each takes two bytes of a file and up to a hundred of
 * memory. A graph of ten thousand nodes has a tenth of that.
 */
const partsMax = 1_000_000;
/** One text: a name, an operator, a value of the metadata. */
const textBytesMax = 1024 * 1024;

/** What is left of a file's parts; shared by the readers of one file. */
export interface PartsLeft {
  parts: number;
}

/**
 * Walks the fields of one message: `while (reader.next())` then read or `skip()` the field.
 * Sub-messages and bytes are views of the same memory. What is skipped costs nothing but time.
 */
export class ProtobufReader {
  readonly #bytes: Uint8Array;
  readonly #left: PartsLeft;
  #at = 0;
  field = 0;
  wireType = 0;

  constructor(bytes: Uint8Array, left: PartsLeft = { parts: partsMax }) {
    this.#bytes = bytes;
    this.#left = left;
  }

  /** A reader of bytes that this one gave out, on the account of the same file. */
  inner(bytes: Uint8Array): ProtobufReader {
    this.#take();
    return new ProtobufReader(bytes, this.#left);
  }

  #take(): void {
    if (--this.#left.parts < 0) throw new ProtobufFault('it has too many parts');
  }

  /** Steps to the next field; false at the end of the message. */
  next(): boolean {
    if (this.#at === this.#bytes.length) return false;
    const tag = Number(this.#varint());
    this.field = Math.floor(tag / 8);
    this.wireType = tag % 8;
    if (this.field === 0 || tag > 0xffff_ffff) throw new ProtobufFault('a field without a number');
    return true;
  }

  /** Value of a varint field as an unsigned 64-bit number; a bigint only where it is beyond 2^49. */
  #varint(): number | bigint {
    let low = 0;
    // Seven groups fit a double exactly; the rest is rare enough for BigInt.
    for (let shift = 1; shift <= 2 ** 42; shift *= 128) {
      const byte = this.#byte();
      low += (byte & 0x7f) * shift;
      if (byte < 0x80) return low;
    }
    let value = BigInt(low);
    for (let shift = 49n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value += BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new ProtobufFault('a number longer than ten bytes');
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw new ProtobufFault('the file ends inside a field');
    return byte;
  }

  #expect(wireType: number): void {
    if (this.wireType !== wireType)
      throw new ProtobufFault(`field ${this.field} has another type than expected`);
  }

  /** An int64 field as a number. Faults beyond 2^53. */
  int(): number {
    this.#expect(wireTypes.varint);
    return safeInt(this.#varint());
  }

  /** A varint field as it stands there, unsigned. */
  varint(): bigint {
    this.#expect(wireTypes.varint);
    return BigInt(this.#varint());
  }

  /** A fixed-size field: its bytes. */
  fixed(length: 4 | 8): Uint8Array {
    this.#expect(length === 4 ? wireTypes.fixed32 : wireTypes.fixed64);
    const start = this.#at;
    this.#fixed(length);
    return this.#bytes.subarray(start, this.#at);
  }

  /** A `repeated int64` field: one element, or all of them where they are packed. */
  ints(into: number[]): void {
    if (this.wireType === wireTypes.varint) {
      this.#take();
      into.push(this.int());
      return;
    }
    for (const value of this.packed()) {
      this.#take();
      into.push(safeInt(value));
    }
  }

  /** The elements of a packed `repeated int64` field, as unsigned 64-bit numbers. */
  *packed(): Generator<bigint> {
    const inner = new ProtobufReader(this.bytes());
    while (inner.#at < inner.#bytes.length) yield BigInt(inner.#varint());
  }

  /** A length-delimited field: a view, not a copy. */
  bytes(): Uint8Array {
    this.#expect(wireTypes.bytes);
    const length = this.#length();
    const start = this.#at;
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  /** Of what follows, all of which is there. */
  #length(): number {
    const length = this.#varint();
    if (length > this.#bytes.length - this.#at) throw new ProtobufFault('the file ends inside a field');
    return Number(length);
  }

  message(): ProtobufReader {
    return this.inner(this.bytes());
  }

  string(): string {
    return this.text(this.bytes());
  }

  /** The text in bytes that this reader gave out. */
  text(bytes: Uint8Array): string {
    this.#take();
    if (bytes.length > textBytesMax)
      throw new ProtobufFault(`field ${this.field} is a text of ${bytes.length} bytes`);
    try {
      return decoder.decode(bytes);
    } catch (error) {
      if (error instanceof TypeError) throw new ProtobufFault(`field ${this.field} is not UTF-8`);
      throw error;
    }
  }

  skip(): void {
    switch (this.wireType) {
      case wireTypes.varint:
        this.#varint();
        return;
      case wireTypes.bytes:
        this.#pass(this.#length());
        return;
      case wireTypes.fixed64:
        this.#fixed(8);
        return;
      case wireTypes.fixed32:
        this.#fixed(4);
        return;
      default:
        // Groups (3, 4) never occur in ONNX; 6 and 7 do not exist.
        throw new ProtobufFault(`field ${this.field} has an unknown type`);
    }
  }

  #fixed(length: number): void {
    if (this.#bytes.length - this.#at < length) throw new ProtobufFault('the file ends inside a field');
    this.#pass(length);
  }

  #pass(length: number): void {
    this.#at += length;
  }
}

function safeInt(value: number | bigint): number {
  if (typeof value === 'number') return value;
  const signed = Number(BigInt.asIntN(64, value));
  if (!Number.isSafeInteger(signed)) throw new ProtobufFault('a number beyond 2^53');
  return signed;
}

/** Builds one message, field by field, in the order of the calls. */
export class ProtobufWriter {
  readonly #parts: Uint8Array[] = [];

  int(field: number, value: number | bigint): this {
    this.#parts.push(
      varintBytes(BigInt(field * 8 + wireTypes.varint)),
      varintBytes(BigInt.asUintN(64, BigInt(value))),
    );
    return this;
  }

  /** A float field: four bytes, little-endian. */
  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.#parts.push(varintBytes(BigInt(field * 8 + wireTypes.fixed32)), bytes);
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    const head = varintBytes(BigInt(field) * 8n + BigInt(wireTypes.bytes));
    this.#parts.push(head, varintBytes(BigInt(value.length)), value);
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, encoder.encode(value));
  }

  message(field: number, value: ProtobufWriter): this {
    return this.bytes(field, value.finish());
  }

  finish(): Uint8Array {
    const bytes = new Uint8Array(this.#parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }
}

function varintBytes(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  do {
    const more = rest > 0x7fn;
    bytes.push(Number(rest & 0x7fn) + (more ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}
