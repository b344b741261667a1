// Why: collects the units of many tensors, symbols apart by what routes them, so that each table of code lengths is
// built on numbers that resemble each other. Trusts: its caller for lengths. Must never: hold more than one group.

import type { Zstd, ZstdLevel } from '../../kernel/ports.ts';
import { BitWriter } from './bits.ts';
import { ByteWriter } from './bytes.ts';
import { contextShift, type ElementKind, elementBytes, isFloat } from './elements.ts';
import { packFrame } from './frames.ts';
import { blockElements, groupElements, type Operation, unitElements } from './operations.ts';
import { mergeRoutes, routesMax } from './routes.ts';
import { differencesOf, symbolOf, symbolTable } from './symbols.ts';

/** Above it a higher level costs much time and gains nothing on symbols. */
const strongBytesMax = 8 * 1024;
const fastLevel = 1;
/** So many bits fit behind up to seven others in one number. */
const shortBitsMax = 24;
/** For tensors that repeat themselves. */
const bytesLevel = 6;

/** A group's section: what it holds once decoded bounds the decoder's memory. */
export interface GroupSection {
  bytes: Uint8Array;
  plainBytes: number;
}

export class GroupWriter {
  readonly #zstd: Zstd;
  readonly #strength: ZstdLevel;
  /** Wider as units come: short files have few. */
  #symbols = new Uint8Array(0);
  #routes = new Uint16Array(0);
  #differences = new Int32Array(0);
  #count = 0;
  #units = 0;
  #plain = 0;
  #bits = new BitWriter();
  #runs = new ByteWriter();
  #bytes = new ByteWriter();
  #patches = new ByteWriter();
  readonly sections: GroupSection[] = [];

  /** `strength`: the level of short parts. */
  constructor(zstd: Zstd, strength: ZstdLevel) {
    this.#zstd = zstd;
    this.#strength = strength;
  }

  /** One unit whose elements differ from the guess; `dense`, `sparse` or `full`. */
  addElements(
    operation: Operation,
    kind: ElementKind,
    guess: Uint32Array,
    target: Uint32Array,
    count: number,
  ): void {
    this.#makeRoom(count);
    if (operation.coding === 'full') this.#full(operation, kind, guess, target, count);
    else {
      differencesOf(kind, guess, target, count, this.#differences);
      if (operation.coding === 'dense') this.#differing(operation, kind, guess, 0, count);
      else this.#sparse(operation, kind, guess, count);
    }
    this.#closeUnit();
  }

  #makeRoom(more: number): void {
    if (this.#differences.length < more) this.#differences = new Int32Array(more);
    const needed = this.#count + more;
    if (needed <= this.#symbols.length) return;
    const length = Math.min(groupElements + unitElements, Math.max(needed, 2 * this.#symbols.length));
    const [symbols, routes] = [new Uint8Array(length), new Uint16Array(length)];
    symbols.set(this.#symbols.subarray(0, this.#count));
    routes.set(this.#routes.subarray(0, this.#count));
    this.#symbols = symbols;
    this.#routes = routes;
  }

  addBytes(bytes: Uint8Array): void {
    this.#bytes.bytes(bytes);
    this.#closeUnit();
  }

  /** A frame over a dictionary that the plan names. */
  addPatch(frame: Uint8Array): void {
    this.#patches.varint(frame.length).bytes(frame);
    this.#closeUnit();
  }

  #differing(operation: Operation, kind: ElementKind, guess: Uint32Array, from: number, to: number): void {
    const { shift, mask } = contextShift(kind);
    const off = operation.exponentShift;
    const symbols = this.#symbols;
    const routes = this.#routes;
    const bits = this.#bits;
    const { rawBits } = symbolTable;
    const differences = this.#differences;
    let count = this.#count;
    // The heart of an encoding: few raw bits are written here, without a call.
    bits.makeRoom((to - from + 1) * 4);
    const { bytes } = bits;
    let { length, rest, restBits } = bits;
    for (let at = from; at < to; at++) {
      const difference = differences[at] as number;
      const symbol = symbolOf(difference);
      symbols[count] = symbol;
      routes[count++] = ((((guess[at] as number) >>> shift) & mask) - off) & 0xff;
      const raw = rawBits[symbol] as number;
      if (raw === 0) continue;
      let low = (difference < 0 ? -difference : difference) & (0xffffffff >>> (32 - raw));
      let left = raw;
      if (left > shortBitsMax) {
        rest |= (low & 0xff) << restBits;
        bytes[length++] = rest;
        rest >>>= 8;
        low >>>= 8;
        left -= 8;
      }
      rest |= low << restBits;
      restBits += left;
      while (restBits >= 8) {
        bytes[length++] = rest;
        rest >>>= 8;
        restBits -= 8;
      }
    }
    Object.assign(bits, { length, rest, restBits });
    this.#count = count;
  }

  /** Lengths of runs of blocks that are equal and that are not, in turn; then the latter's differences. */
  #sparse(operation: Operation, kind: ElementKind, guess: Uint32Array, count: number): void {
    let equal = true;
    let run = 0;
    for (let from = 0; from < count; from += blockElements) {
      const to = Math.min(from + blockElements, count);
      const differs = this.#differs(from, to);
      if (differs === equal) {
        this.#runs.varint(run);
        run = 0;
        equal = !equal;
      }
      run += 1;
      if (differs) this.#differing(operation, kind, guess, from, to);
    }
    this.#runs.varint(run);
  }

  #differs(from: number, to: number): boolean {
    for (let at = from; at < to; at++) if (this.#differences[at] !== 0) return true;
    return false;
  }

  #full(
    operation: Operation,
    kind: ElementKind,
    guess: Uint32Array,
    target: Uint32Array,
    count: number,
  ): void {
    const { shift, mask } = contextShift(kind);
    const width = elementBytes(kind) * 8;
    const raw = width - 8;
    const routed = operation.guess.kind !== 'none';
    const off = operation.exponentShift;
    let next = this.#count;
    for (let at = 0; at < count; at++) {
      const value = target[at] as number;
      this.#routes[next] = 256 + (routed ? ((((guess[at] as number) >>> shift) & mask) - off) & 0xff : 0);
      if (isFloat(kind)) {
        this.#symbols[next++] = (value >>> (raw - 1)) - off;
        const low = (value & (0xffffffff >>> (33 - raw))) | ((value >>> (width - 1)) << (raw - 1));
        this.#bits.write(low, raw);
      } else {
        this.#symbols[next++] = value >>> raw;
        if (raw > 0) this.#bits.write(value & (0xffffffff >>> (32 - raw)), raw);
      }
    }
    this.#count = next;
  }

  #closeUnit(): void {
    this.#units += 1;
    if (this.#count + this.#bytes.length + this.#patches.length >= groupElements) this.finish();
  }

  /** Closes the group under way. */
  finish(): void {
    if (this.#units === 0) return;
    const routes = mergeRoutes(this.#symbols, this.#routes, this.#count);
    const streams = routes.counts.map((count) => new Uint8Array(count));
    const ends = new Uint32Array(streams.length);
    for (let at = 0; at < this.#count; at++) {
      const stream = routes.streamOf[this.#routes[at] as number] as number;
      const into = streams[stream] as Uint8Array;
      into[ends[stream] as number] = this.#symbols[at] as number;
      ends[stream] = (ends[stream] as number) + 1;
    }
    const out = new ByteWriter().varint(this.#units).varint(streams.length);
    if (streams.length > 1) writeMap(out, routes.streamOf);
    for (const part of streams) this.#part(out, part, 'symbols');
    // Low bits are noise: the symbols' way finds out soonest.
    this.#part(out, this.#bits.finish(), 'symbols');
    this.#part(out, this.#runs.view(), fastLevel);
    this.#part(out, this.#bytes.view(), bytesLevel);
    out.varint(this.#patches.length).bytes(this.#patches.view());
    this.sections.push({ bytes: out.view(), plainBytes: this.#plain });
    this.#plain = 0;
    this.#count = 0;
    this.#units = 0;
    this.#bits = new BitWriter();
    this.#runs = new ByteWriter();
    this.#bytes = new ByteWriter();
    this.#patches = new ByteWriter();
  }

  #part(out: ByteWriter, bytes: Uint8Array, level: ZstdLevel): void {
    this.#plain += bytes.length;
    out.varint(bytes.length);
    if (bytes.length === 0) return;
    const packed = packFrame(this.#zstd, bytes, bytes.length <= strongBytesMax ? this.#strength : level);
    const packs = packed.length < bytes.length;
    // Twice its length, and one more where it is packed.
    out.varint((packs ? packed.length : bytes.length) * 2 + (packs ? 1 : 0)).bytes(packs ? packed : bytes);
  }
}

/** Which stream a route leads to, as runs of equal ones. */
function writeMap(out: ByteWriter, streamOf: Uint16Array): void {
  for (let from = 0; from < routesMax; ) {
    let to = from + 1;
    while (to < routesMax && streamOf[to] === streamOf[from]) to++;
    out.varint(to - from).varint(streamOf[from] as number);
    from = to;
  }
}
