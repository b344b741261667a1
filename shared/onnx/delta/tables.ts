// Why: finds where the scales of a quantised release come from, so that they need not be sent: the greatest amount of
// each channel over 127 and its kin, and for biases that times the scale of their input.
// Trusts: nothing; a table is used only where it gives the very numbers. Must never: send numbers twice.

import { elementBytes } from './elements.ts';
import type { Guesser } from './guesses.ts';
import type { Table } from './operations.ts';

/** Over what quantisers divide: signed and unsigned ends of 8 bits, likewise of 16, with one or both ends. */
const divisors = {
  peak: [127, 127.5, 128, 32767, 32767.5, 32768],
  span: [255, 254, 65535, 65534],
} as const;
/** Whoever multiplied may have rounded otherwise than the quotient does. */
/** Earlier tables that are looked at; the one that is multiplied is most often among the last. */
const multiplesMax = 1_000;
const ulpsTried = [0, 1, -1, 2, -2];

export class TableBook {
  readonly tables: Table[] = [];
  readonly #values: Float32Array[] = [];
  readonly #byName = new Map<string, number>();
  readonly #ofBase = new Map<number, number | null>();
  readonly #guesser: Guesser;

  #numbersLeft: number;

  /** Scans the base by `guesser`, whose own tables are not asked for; holds at most so many numbers in all. */
  constructor(guesser: Guesser, numbersMax: number) {
    this.#guesser = guesser;
    this.#numbersLeft = numbersMax;
  }

  /** Null where a decoder would refuse so many. */
  #add(table: Table, values: Float32Array): number | null {
    if (values.length > this.#numbersLeft) return null;
    this.#numbersLeft -= values.length;
    this.tables.push(table);
    this.#values.push(values);
    return this.tables.length - 1;
  }

  /** Numbers of a table. */
  lengthOf(table: number): number {
    return this.#values[table]?.length ?? 0;
  }

  /** The table that was found for a tensor of the target. */
  named(name: string): number | undefined {
    return this.#byName.get(name);
  }

  listed(values: Float32Array): number | null {
    return this.#add({ kind: 'listed', values }, values);
  }

  ofBase(base: number): number | null {
    const before = this.#ofBase.get(base);
    if (before !== undefined) return before;
    const table: Table = { kind: 'base', base };
    const index = this.#add(table, this.#guesser.compute(table));
    this.#ofBase.set(base, index);
    return index;
  }

  /** A table for the scale of that name, which has these values and serves a tensor made from the base tensor. */
  scale(name: string, values: Float32Array, base: number, inner: number): number | null {
    const before = this.#byName.get(name);
    if (before !== undefined) return before;
    const index = this.#channelTable(values, base, inner) ?? this.#multiple(values) ?? this.listed(values);
    if (index !== null) this.#byName.set(name, index);
    return index;
  }

  #channelTable(values: Float32Array, base: number, inner: number): number | null {
    const { kind: type, length } = this.#guesser.extent(base);
    if (values.length * inner > length / elementBytes(type)) return null;
    for (const kind of ['peak', 'span'] as const) {
      const table = { kind, base, channels: values.length, inner, divisor: 1, factor: 1 };
      const amounts = this.#guesser.compute(table);
      for (const divisor of divisors[kind]) {
        const found = amounts.map((amount) => Math.fround(amount / divisor));
        if (equal(found, values)) return this.#add({ ...table, divisor }, values);
      }
    }
    return null;
  }

  /** An earlier table times one number. */
  #multiple(values: Float32Array): number | null {
    if (values.length < 2) return null;
    const first = Math.max(0, this.#values.length - multiplesMax);
    for (const [at, earlier] of this.#values.slice(first).entries()) {
      const table = this.tables[first + at];
      if (earlier.length !== values.length || table === undefined) continue;
      if ((table.kind !== 'peak' && table.kind !== 'span') || table.factor !== 1) continue;
      const factor = factorOf(earlier, values);
      if (factor !== null) return this.#add({ ...table, factor }, values);
    }
    return null;
  }
}

function factorOf(earlier: Float32Array, values: Float32Array): number | null {
  const quotient = Math.fround((values[0] as number) / (earlier[0] as number));
  if (!Number.isFinite(quotient) || quotient === 0) return null;
  const bits = new Int32Array(Float32Array.of(quotient).buffer)[0] as number;
  for (const ulps of ulpsTried) {
    const factor = new Float32Array(Int32Array.of(bits + ulps).buffer)[0] as number;
    if (values.every((value, at) => Math.fround((earlier[at] as number) * factor) === value)) return factor;
  }
  return null;
}

function equal(one: Float32Array, other: Float32Array): boolean {
  return one.length === other.length && one.every((value, at) => Object.is(value, other[at]));
}
