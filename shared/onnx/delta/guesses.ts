// Why: computes a guess, a unit at a time, alike for the encoder, which judges it, and the decoder, which completes it.
// Trusts: a plan that was checked (plan.ts) against the base's sizes. Must never: read outside of the extents it
// is given, or use arithmetic that two machines may do differently.

import { DeltaFault } from './bytes.ts';
import { type ElementKind, elementAt, elementBytes, loadElements } from './elements.ts';
import { rangeOf, rint, toElement, toInteger, toNumbers } from './numbers.ts';
import { type BaseExtent, type Guess, type Table, tableLength, unitElements } from './operations.ts';

/** What is guessed: a type and where the result goes. */
export interface GuessTarget {
  kind: ElementKind;
  signed: boolean;
  elements: Uint32Array;
}

export interface TableBounds {
  /** Elements of the base that are looked at. */
  scannedMax: number;
  /** Numbers that are kept. */
  numbersMax: number;
}

/** Scales are scanned for once or twice, and are few beside what they scale. */
export function tableBounds(baseAndTargetBytes: number): TableBounds {
  return { scannedMax: baseAndTargetBytes * 4, numbersMax: 65_536 + Math.floor(baseAndTargetBytes / 32) };
}

type PermutedGuess = Extract<Guess, { kind: 'permuted' }>;
export type SampledGuess = PermutedGuess | Extract<Guess, { kind: 'base' }>;

/** How a base is walked through in another order of axes, and where the walk is. */
interface Turning {
  guess: PermutedGuess;
  sizes: number[];
  steps: number[];
  at: number[];
}

function turningOf(guess: PermutedGuess): Turning {
  const { dims, order } = guess;
  const strides = dims.map((_, axis) => dims.slice(axis + 1).reduce((product, size) => product * size, 1));
  return {
    guess,
    sizes: order.map((axis) => dims[axis] as number),
    steps: order.map((axis) => strides[axis] as number),
    at: order.map(() => 0),
  };
}

type ChannelTable = Extract<Table, { kind: 'peak' | 'span' }>;

/** Reads the base by a plan's extents and tables. */
export class Guesser {
  readonly #bases: readonly Uint8Array[];
  readonly #extents: readonly BaseExtent[];
  readonly #tables: readonly Table[];
  readonly #values = new Map<number, Float32Array>();
  /** Amounts of channels, which a scale and its multiples share. */
  readonly #amounts = new Map<string, Float64Array>();
  /** As long as the longest that was asked for; a unit at most. */
  #loaded = new Uint32Array(0);
  #numbers = new Float64Array(0);
  #turning: Turning | null = null;
  #workLeft: number;
  #numbersLeft: number;

  /** `bounds`: what tables may cost, so that a plan cannot ask for the same scan a million times. */
  constructor(
    bases: readonly Uint8Array[],
    extents: readonly BaseExtent[],
    tables: readonly Table[],
    bounds: TableBounds,
  ) {
    this.#bases = bases;
    this.#extents = extents;
    this.#tables = tables;
    this.#workLeft = bounds.scannedMax;
    this.#numbersLeft = bounds.numbersMax;
  }

  extent(index: number): BaseExtent {
    const extent = this.#extents[index];
    if (extent === undefined) throw new DeltaFault('a base tensor that is not there');
    return extent;
  }

  bytes(index: number): Uint8Array {
    const { file, offset, length } = this.extent(index);
    return (this.#bases[file] as Uint8Array).subarray(offset, offset + length);
  }

  #load(index: number, from: number, count: number): Uint32Array {
    const width = elementBytes(this.extent(index).kind);
    const bytes = this.bytes(index).subarray(from * width, (from + count) * width);
    if (this.#loaded.length < count) {
      this.#loaded = new Uint32Array(count);
      this.#numbers = new Float64Array(count);
    }
    loadElements(bytes, width, this.#loaded);
    return this.#loaded;
  }

  #readNumbers(index: number, from: number, count: number): Float64Array {
    const { kind, signed } = this.extent(index);
    toNumbers(kind, signed, this.#load(index, from, count), count, this.#numbers);
    return this.#numbers;
  }

  /** Elements from `from` on; `count` is at most one unit. */
  guess(guess: Guess, from: number, count: number, target: GuessTarget): void {
    const { elements, kind, signed } = target;
    if (guess.kind === 'none') elements.fill(0, 0, count);
    else if (guess.kind === 'table') {
      const values = this.table(guess.table);
      for (let at = 0; at < count; at++) elements[at] = toElement(kind, signed, values[from + at] as number);
    } else if (guess.kind === 'permuted') this.#permuted(guess, from, count, elements);
    else if (guess.kind === 'base')
      loadElements(
        this.bytes(guess.base).subarray(from * elementBytes(kind), (from + count) * elementBytes(kind)),
        elementBytes(kind),
        elements,
      );
    else this.#computed(guess, from, count, target);
  }

  #computed(
    guess: Extract<Guess, { kind: 'quantised' | 'dequantised' | 'cast' | 'scaled' }>,
    from: number,
    count: number,
    target: GuessTarget,
  ): void {
    const { elements, kind, signed } = target;
    // Tables first: computing one reads into the same memory.
    const scales = guess.kind === 'cast' ? noZeros : this.table(guess.scale);
    const zeros = 'zero' in guess && guess.zero !== null ? this.table(guess.zero) : noZeros;
    const numbers = this.#readNumbers(guess.base, from, count);
    if (guess.kind === 'cast') {
      for (let at = 0; at < count; at++) elements[at] = toElement(kind, signed, numbers[at] as number);
      return;
    }
    const range = rangeOf(kind, signed);
    let row = Math.floor(from / guess.inner);
    let left = guess.inner - (from % guess.inner);
    for (let at = 0; at < count; row++, left = guess.inner) {
      const scale = scales[row % scales.length] as number;
      const zero = zeros[row % zeros.length] as number;
      const end = Math.min(count, at + left);
      if (guess.kind === 'quantised') {
        for (; at < end; at++)
          elements[at] = toInteger(range, rint(Math.fround((numbers[at] as number) / scale)) + zero);
      } else {
        for (; at < end; at++)
          elements[at] = toElement(
            kind,
            signed,
            Math.fround(Math.fround((numbers[at] as number) - zero) * scale),
          );
      }
    }
  }

  /** Single elements of a guess whose type is the base's own; cheaper than `guess` for a few here and there. */
  sample(guess: SampledGuess, indexes: readonly number[], into: Uint32Array): void {
    const source = this.bytes(guess.base);
    const width = elementBytes(this.extent(guess.base).kind);
    for (let at = 0; at < indexes.length; at++) {
      const index = indexes[at] as number;
      let position = index;
      if (guess.kind === 'permuted') {
        if (this.#turning?.guess !== guess) this.#turning = turningOf(guess);
        const { sizes, steps } = this.#turning;
        position = 0;
        for (let axis = sizes.length - 1, rest = index; axis >= 0; axis--) {
          const size = sizes[axis] as number;
          position += (rest % size) * (steps[axis] as number);
          rest = Math.floor(rest / size);
        }
      }
      into[at] = elementAt(source, width, position);
    }
  }

  #permuted(guess: PermutedGuess, from: number, count: number, into: Uint32Array): void {
    if (this.#turning?.guess !== guess) this.#turning = turningOf(guess);
    const { sizes, steps, at } = this.#turning;
    const inner = sizes.length - 1;
    let position = 0;
    for (let axis = inner, rest = from; axis >= 0; axis--) {
      const size = sizes[axis] as number;
      at[axis] = rest % size;
      rest = Math.floor(rest / size);
      position += (at[axis] as number) * (steps[axis] as number);
    }
    const { offset, file, kind } = this.extent(guess.base);
    const source = this.#bases[file] as Uint8Array;
    const width = elementBytes(kind);
    const step = inner < 0 ? 0 : (steps[inner] as number);
    for (let index = 0; index < count; ) {
      const row = inner < 0 ? 1 : (sizes[inner] as number) - (at[inner] as number);
      const end = Math.min(count, index + row);
      for (let byte = offset + position * width; index < end; index++, byte += step * width) {
        if (width === 1) into[index] = source[byte] as number;
        else if (width === 2) into[index] = (source[byte] as number) | ((source[byte + 1] as number) << 8);
        else
          into[index] =
            (source[byte] as number) |
            ((source[byte + 1] as number) << 8) |
            ((source[byte + 2] as number) << 16) |
            ((source[byte + 3] as number) << 24);
      }
      if (inner < 0 || index === count) return;
      // To the start of the next row.
      position -= (at[inner] as number) * step;
      at[inner] = 0;
      for (let axis = inner - 1; axis >= 0; axis--) {
        position += steps[axis] as number;
        const next = (at[axis] as number) + 1;
        at[axis] = next;
        if (next < (sizes[axis] as number)) break;
        position -= next * (steps[axis] as number);
        at[axis] = 0;
      }
    }
  }

  /** The numbers of a table, computed once. */
  table(index: number): Float32Array {
    const before = this.#values.get(index);
    if (before !== undefined) return before;
    const table = this.#tables[index];
    if (table === undefined) throw new DeltaFault('a table that is not there');
    this.#numbersLeft -= tableLength(this.#extents, table);
    if (this.#numbersLeft < 0) throw new DeltaFault('its tables hold too much');
    const values = this.compute(table);
    this.#values.set(index, values);
    return values;
  }

  compute(table: Table): Float32Array {
    if (table.kind === 'listed') return table.values;
    if (table.kind !== 'base') {
      const amounts = this.#amountsOf(table);
      const values = new Float32Array(amounts.length);
      for (let at = 0; at < values.length; at++)
        values[at] = Math.fround(Math.fround((amounts[at] as number) / table.divisor) * table.factor);
      return values;
    }
    const count = this.#scan(table.base);
    const values = new Float32Array(count);
    for (let from = 0; from < count; from += unitElements) {
      const part = Math.min(unitElements, count - from);
      values.set(this.#readNumbers(table.base, from, part).subarray(0, part), from);
    }
    return values;
  }

  /** Elements of a base tensor that is scanned as a whole. */
  #scan(base: number): number {
    const { kind, length } = this.extent(base);
    const count = length / elementBytes(kind);
    this.#workLeft -= count;
    if (this.#workLeft < 0) throw new DeltaFault('its tables cost too much');
    return count;
  }

  #amountsOf(table: ChannelTable): Float64Array {
    const key = `${table.kind} ${table.base} ${table.channels} ${table.inner}`;
    const before = this.#amounts.get(key);
    if (before !== undefined) return before;
    const amounts = this.#channels(table, this.#scan(table.base));
    this.#amounts.set(key, amounts);
    return amounts;
  }

  #channels(table: ChannelTable, count: number): Float64Array {
    const { channels, inner } = table;
    const high = new Float64Array(channels);
    const low = new Float64Array(channels);
    for (let from = 0; from < count; from += unitElements) {
      const part = Math.min(unitElements, count - from);
      const numbers = this.#readNumbers(table.base, from, part);
      let channel = Math.floor(from / inner) % channels;
      let left = inner - (from % inner);
      for (let at = 0; at < part; channel = (channel + 1) % channels, left = inner) {
        let most = high[channel] as number;
        let least = low[channel] as number;
        for (const end = Math.min(part, at + left); at < end; at++) {
          const value = numbers[at] as number;
          if (value > most) most = value;
          else if (value < least) least = value;
        }
        high[channel] = most;
        low[channel] = least;
      }
    }
    return high.map((most, channel) => {
      const least = low[channel] as number;
      return table.kind === 'peak' ? Math.max(most, -least) : Math.fround(most - least);
    });
  }
}

const noZeros = new Float32Array(1);
