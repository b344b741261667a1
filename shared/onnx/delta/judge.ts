// Why: what a guess would cost, told from samples of the tensor, and how what it lacks is coded best.
// Trusts: its caller for types and sizes. Must never: decide what is right; a wrong judgement costs bytes only.

import type { Zstd } from '../../kernel/ports.ts';
import { contextShift, elementAt, elementBytes, isFloat } from './elements.ts';
import { packFrame } from './frames.ts';
import type { Guesser, SampledGuess } from './guesses.ts';
import { blockElements, type Guess, type Operation } from './operations.ts';
import { differencesOf, symbolOf, symbolTable } from './symbols.ts';
import { countOf, type FileTensor, readElements } from './tensors.ts';

const sampleElements = 2048;
const samples = 4;
/** Of a tensor's bytes, packed to see whether they repeat themselves. */
const packedSampleBytes = 32 * 1024;
/** Places at which tensors are compared, of them those of the first look, and by how much that may be wrong. */
const allPlaces = 48;
const firstPlaces = 12;
const firstDoubt = 1.15;
/** Above this share of differing blocks their runs are not worth telling. */
const sparseShareMax = 0.7;

export interface Judgement extends Operation {
  bits: number;
}

export class Judge {
  readonly #guesser: Guesser;
  readonly #zstd: Zstd;
  readonly #elements = new Uint32Array(sampleElements);
  readonly #target = new Uint32Array(sampleElements);
  readonly #differences = new Int32Array(sampleElements);

  constructor(guesser: Guesser, zstd: Zstd) {
    this.#guesser = guesser;
    this.#zstd = zstd;
  }

  /** Whether the guess is the tensor, to the bit. */
  exact(tensor: FileTensor, guess: Guess): boolean {
    const count = countOf(tensor);
    // In short steps: most that are not the tensor show it soon.
    for (let from = 0; from < count; from += sampleElements) {
      const part = Math.min(sampleElements, count - from);
      const target = this.#target;
      readElements(tensor, from, part, target);
      this.#guess(tensor, guess, from, part);
      for (let at = 0; at < part; at++) if (this.#elements[at] !== target[at]) return false;
    }
    return true;
  }

  #guess(tensor: FileTensor, guess: Guess, from: number, count: number): void {
    const { kind, signed } = tensor;
    this.#guesser.guess(guess, from, count, { kind, signed, elements: this.#elements });
  }

  /** Differences to a guess. */
  differing(tensor: FileTensor, guess: Guess): Judgement {
    const { kind } = tensor;
    const counts = new Uint32Array(256);
    const { shift, mask } = contextShift(kind);
    let rawBits = 0;
    let seen = 0;
    let blocks = 0;
    let differingBlocks = 0;
    let lengths = 0;
    let differing = 0;
    for (const [from, count] of windows(countOf(tensor))) {
      readElements(tensor, from, count, this.#target);
      this.#guess(tensor, guess, from, count);
      differencesOf(kind, this.#elements, this.#target, count, this.#differences);
      for (let block = 0; block < count; block += blockElements) {
        let differs = false;
        for (let at = block; at < Math.min(block + blockElements, count); at++) {
          const difference = this.#differences[at] as number;
          const symbol = symbolOf(difference);
          counts[symbol] = (counts[symbol] as number) + 1;
          rawBits += symbolTable.rawBits[symbol] as number;
          if (difference === 0) continue;
          differs = true;
          differing += 1;
          lengths +=
            32 - Math.clz32(Math.abs(difference)) + (((this.#elements[at] as number) >>> shift) & mask);
        }
        blocks += 1;
        if (differs) differingBlocks += 1;
      }
      seen += count;
    }
    const share = differingBlocks / blocks;
    const bits = ((rawBits + entropyOf(counts, seen)) / seen) * countOf(tensor);
    // Bit length and exponent of a difference add up to the logarithm of the change.
    const scale = differing === 0 || !isFloat(kind) ? 0 : Math.round(lengths / differing) & 0xff;
    return { guess, coding: share < sparseShareMax ? 'sparse' : 'dense', exponentShift: scale, bits };
  }

  /** Elements in full; a guess only routes them. */
  full(tensor: FileTensor, guess: Guess): Judgement {
    const raw = elementBytes(tensor.kind) * 8 - 8;
    const shift = isFloat(tensor.kind) ? raw - 1 : raw;
    const counts = new Uint32Array(256);
    let seen = 0;
    for (const [from, count] of windows(countOf(tensor))) {
      readElements(tensor, from, count, this.#target);
      for (let at = 0; at < count; at++) {
        const symbol = ((this.#target[at] as number) >>> shift) & 0xff;
        counts[symbol] = (counts[symbol] as number) + 1;
      }
      seen += count;
    }
    const bits = (raw + entropyOf(counts, seen) / seen) * countOf(tensor);
    // The commonest exponent, so that tensors of unlike scale share their tables.
    const exponentShift = isFloat(tensor.kind) ? counts.indexOf(Math.max(...counts)) : 0;
    return { guess, coding: 'full', exponentShift, bits };
  }

  bytes(tensor: FileTensor): Judgement {
    const from = Math.max(0, Math.floor((tensor.length - packedSampleBytes) / 2));
    const sample = tensor.bytes.subarray(from, from + packedSampleBytes);
    const packed = packFrame(this.#zstd, sample, 1);
    const bits = ((Math.min(packed.length, sample.length) * 8) / sample.length) * tensor.length;
    return { guess: { kind: 'none' }, coding: 'bytes', exponentShift: 0, bits };
  }

  /**
   * Mean bit length of differences at a few places: how near two tensors are. Beyond `enough` a first look tells that
   * they are not.
   */
  distance(tensor: FileTensor, guess: SampledGuess, enough: number): number {
    const count = countOf(tensor);
    const first = this.#distanceAt(tensor, guess, Math.min(count, firstPlaces));
    if (first > enough * firstDoubt) return first;
    return this.#distanceAt(tensor, guess, Math.min(count, allPlaces));
  }

  #distanceAt(tensor: FileTensor, guess: SampledGuess, places: number): number {
    const { kind } = tensor;
    const count = countOf(tensor);
    const indexes = Array.from({ length: places }, (_, place) =>
      Math.floor(((place + 0.5) / places) * count),
    );
    this.#guesser.sample(guess, indexes, this.#elements);
    const width = elementBytes(kind);
    for (let at = 0; at < places; at++)
      this.#target[at] = elementAt(tensor.bytes, width, indexes[at] as number);
    differencesOf(kind, this.#elements, this.#target, places, this.#differences);
    let bits = 0;
    for (let at = 0; at < places; at++) bits += 32 - Math.clz32(Math.abs(this.#differences[at] as number));
    return bits / places;
  }
}

/** Places of a tensor that are looked at, spread over it. */
function windows(count: number): [number, number][] {
  if (count <= sampleElements * samples)
    return Array.from({ length: Math.ceil(count / sampleElements) }, (_, at): [number, number] => [
      at * sampleElements,
      Math.min(sampleElements, count - at * sampleElements),
    ]);
  const step = (count - sampleElements) / (samples - 1);
  return Array.from({ length: samples }, (_, at): [number, number] => [
    Math.floor(at * step),
    sampleElements,
  ]);
}

/** Bits of all symbols together. */
function entropyOf(counts: Uint32Array, total: number): number {
  let bits = 0;
  for (const count of counts) if (count > 0) bits -= count * Math.log2(count / total);
  return bits;
}
