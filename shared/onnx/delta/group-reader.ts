// Why: the way back from a group's section to the elements of its units.
// Trusts: nothing in the section; its guess. Must never: allocate more than the section was declared to hold, or
// leave a read past the end of a stream unnoticed.

import type { Zstd } from '../../kernel/ports.ts';
import { BitReader, bitPaddingBytes } from './bits.ts';
import { ByteReader, DeltaFault, joined } from './bytes.ts';
import { contextShift, type ElementKind, elementBytes, isFloat } from './elements.ts';
import { unpackFrame } from './frames.ts';
import { blockElements, type Operation, unitElements } from './operations.ts';
import { routesMax } from './routes.ts';
import { addDifferences, symbolTable } from './symbols.ts';

const differences = new Int32Array(unitElements);
/** So many bits from any bit of a byte on lie in four bytes. */
const shortBitsMax = 24;

export class GroupReader {
  readonly #zstd: Zstd;
  #plainLeft: number;
  #unitsLeft: number;
  readonly #streamOf = new Uint16Array(routesMax);
  /** All streams one behind the other, where each one is now, and where it ends. */
  readonly #symbols: Uint8Array;
  readonly #at: Uint32Array;
  readonly #ends: Uint32Array;
  readonly #bits: BitReader;
  readonly #runs: ByteReader;
  readonly #bytes: ByteReader;
  readonly #patches: ByteReader;

  /** `plainBytes`: what the patch's directory says it holds. */
  constructor(zstd: Zstd, section: Uint8Array, plainBytes: number) {
    this.#zstd = zstd;
    this.#plainLeft = plainBytes;
    const reader = new ByteReader(section);
    this.#unitsLeft = reader.varint();
    const count = reader.varint();
    if (count > routesMax) throw new DeltaFault('too many streams');
    if (count > 1) readMap(reader, this.#streamOf, count);
    const streams = Array.from({ length: count }, () => this.#part(reader));
    this.#symbols = joined(streams);
    this.#ends = Uint32Array.from(streams, ends());
    this.#at = Uint32Array.from(streams, (stream, index) => (this.#ends[index] ?? 0) - stream.length);
    const bits = this.#part(reader, bitPaddingBytes);
    this.#bits = new BitReader(bits, bits.length - bitPaddingBytes);
    this.#runs = new ByteReader(this.#part(reader));
    this.#bytes = new ByteReader(this.#part(reader));
    this.#patches = new ByteReader(reader.bytes(reader.varint()));
    reader.end();
  }

  #part(reader: ByteReader, padding = 0): Uint8Array {
    const length = reader.varint();
    this.#plainLeft -= length;
    if (this.#plainLeft < 0) throw new DeltaFault('a group holds more than it says');
    const into = new Uint8Array(length + padding);
    if (length === 0) return into;
    const stored = reader.varint();
    const bytes = reader.bytes(Math.floor(stored / 2));
    if (stored % 2 === 1) unpackFrame(this.#zstd, bytes, into.subarray(0, length));
    else if (bytes.length === length) into.set(bytes);
    else throw new DeltaFault('a part of another length than it says');
    return into;
  }

  get finished(): boolean {
    return this.#unitsLeft === 0;
  }

  /** To be asked when all units were read: what is left over was never meant. */
  close(): void {
    this.#bytes.end();
    this.#runs.end();
    this.#patches.end();
    if (!this.#bits.finished) throw new DeltaFault('bits are left over');
    if (this.#at.some((at, index) => at !== this.#ends[index])) throw new DeltaFault('symbols are left over');
  }

  /** Completes a guess: `elements` holds it, and the elements afterwards. */
  readElements(operation: Operation, kind: ElementKind, elements: Uint32Array, count: number): void {
    if (operation.coding === 'full') this.#full(operation, kind, elements, count);
    else {
      if (operation.coding === 'dense') this.#differing(operation, kind, elements, 0, count);
      else this.#sparse(operation, kind, elements, count);
      addDifferences(kind, elements, differences, count);
    }
    this.#closeUnit();
  }

  readBytes(length: number): Uint8Array {
    const bytes = this.#bytes.bytes(length);
    this.#closeUnit();
    return bytes;
  }

  readPatch(length: number, dictionary: Uint8Array): Uint8Array {
    const into = new Uint8Array(length);
    unpackFrame(this.#zstd, this.#patches.bytes(this.#patches.varint()), into, dictionary);
    this.#closeUnit();
    return into;
  }

  #closeUnit(): void {
    this.#unitsLeft -= 1;
    if (this.#bits.overrun) throw new DeltaFault('it ends too early');
    for (let stream = 0; stream < this.#at.length; stream++)
      if ((this.#at[stream] as number) > (this.#ends[stream] as number))
        throw new DeltaFault('it ends too early');
  }

  #differing(operation: Operation, kind: ElementKind, guess: Uint32Array, from: number, to: number): void {
    const { shift, mask } = contextShift(kind);
    const off = operation.exponentShift;
    const { packed } = symbolTable;
    const symbols = this.#symbols;
    const streamOf = this.#streamOf;
    const positions = this.#at;
    const bits = this.#bits;
    const { bytes } = bits;
    const total = symbols.length;
    // The heart of a rebuild: few raw bits are read here, without a call.
    let bitAt = bits.at;
    for (let at = from; at < to; at++) {
      const stream = streamOf[((((guess[at] as number) >>> shift) & mask) - off) & 0xff] as number;
      const position = positions[stream] as number;
      positions[stream] = position + 1;
      // Past the end of all symbols they are 0; noticed at the end of the unit.
      const symbol = position < total ? (packed[symbols[position] as number] as number) : 0;
      const raw = (symbol >>> 3) & 31;
      let amount = symbol & 7;
      if (raw > shortBitsMax) {
        bits.at = bitAt;
        amount = ((amount << raw) >>> 0) + bits.read(raw);
        bitAt = bits.at;
      } else if (raw > 0) {
        const byte = bitAt >>> 3;
        const word =
          (bytes[byte] as number) |
          ((bytes[byte + 1] as number) << 8) |
          ((bytes[byte + 2] as number) << 16) |
          ((bytes[byte + 3] as number) << 24);
        amount = (amount << raw) + ((word >>> (bitAt & 7)) & ((1 << raw) - 1));
        bitAt += raw;
      }
      const sign = -(symbol >>> 8);
      differences[at] = (amount ^ sign) - sign;
    }
    bits.at = bitAt;
  }

  #sparse(operation: Operation, kind: ElementKind, guess: Uint32Array, count: number): void {
    differences.fill(0, 0, count);
    let equal = true;
    for (let from = 0; from < count; equal = !equal) {
      const to = Math.min(from + this.#runs.varint() * blockElements, count);
      // Only the first run may be of no blocks.
      if (to === from && from > 0) throw new DeltaFault('a run of no blocks');
      if (!equal && to > from) this.#differing(operation, kind, guess, from, to);
      else if (!equal) throw new DeltaFault('a run of no blocks');
      from = to;
    }
  }

  #full(operation: Operation, kind: ElementKind, elements: Uint32Array, count: number): void {
    const { shift, mask } = contextShift(kind);
    const raw = elementBytes(kind) * 8 - 8;
    const float = isFloat(kind);
    const routed = operation.guess.kind !== 'none';
    const off = operation.exponentShift;
    const symbols = this.#symbols;
    const positions = this.#at;
    const bits = this.#bits;
    for (let at = 0; at < count; at++) {
      const route = 256 + (routed ? ((((elements[at] as number) >>> shift) & mask) - off) & 0xff : 0);
      const stream = this.#streamOf[route] as number;
      const position = positions[stream] as number;
      positions[stream] = position + 1;
      const symbol = symbols[position] as number;
      if (float) {
        const exponent = (symbol + off) & 0xff;
        const low = bits.read(raw);
        const sign = low >>> (raw - 1);
        elements[at] = (((sign << 8) | exponent) << (raw - 1)) | (low & (0xffffffff >>> (33 - raw)));
      } else elements[at] = raw > 0 ? (symbol << raw) | bits.read(raw) : symbol;
    }
  }
}

function ends(): (stream: Uint8Array) => number {
  let end = 0;
  return (stream) => {
    end += stream.length;
    return end;
  };
}

function readMap(reader: ByteReader, streamOf: Uint16Array, streams: number): void {
  for (let from = 0; from < routesMax; ) {
    const run = reader.varint();
    const stream = reader.varint();
    if (run === 0 || from + run > routesMax || stream >= streams) throw new DeltaFault('a map that is none');
    streamOf.fill(stream, from, from + run);
    from += run;
  }
}
