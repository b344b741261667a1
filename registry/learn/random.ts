// Why: numbers that look like chance and that a seed repeats on every platform, for initial weights and shuffles. Pure.
// Trusts: nothing; only integers, and what IEEE 754 rounds exactly. Must never: protect anything; it can be foretold.

import { log } from './elementary.ts';

export type RandomState = [number, number, number, number];

export interface Random {
  /** A whole number in [0, 2³²). */
  next(): number;
  /** In [0, 1), of 53 bits. */
  uniform(): number;
  /** Of mean 0 and variance 1. */
  normal(): number;
  /** In place: each order is as likely as another. */
  shuffle(values: Int32Array): void;
}

const mask64 = 0xffff_ffff_ffff_ffffn;

/** Two steps of SplitMix64, as its authors advise for the state of a xoshiro: no seed gives the state of zeros alone. */
function stateOf(seed: number): RandomState {
  let state = BigInt(seed) & mask64;
  const words: number[] = [];
  for (let step = 0; step < 2; step += 1) {
    state = (state + 0x9e37_79b9_7f4a_7c15n) & mask64;
    let mixed = ((state ^ (state >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & mask64;
    mixed = ((mixed ^ (mixed >> 27n)) * 0x94d0_49bb_1331_11ebn) & mask64;
    mixed ^= mixed >> 31n;
    words.push(Number(mixed & 0xffff_ffffn), Number(mixed >> 32n));
  }
  const [a = 0, b = 0, c = 0, d = 0] = words;
  return [a, b, c, d];
}

/**
 * xoshiro128** 1.1 (Blackman, Vigna: Scrambled Linear Pseudorandom Number Generators, 2021) from a whole number, or
 * from a state that is not all zeros.
 */
export function createRandom(seed: number | RandomState): Random {
  let [a, b, c, d] = typeof seed === 'number' ? stateOf(seed) : seed;

  function next(): number {
    const five = Math.imul(b, 5);
    const result = Math.imul((five << 7) | (five >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result;
  }

  function uniform(): number {
    const high = next() >>> 5;
    return (high * 0x400_0000 + (next() >>> 6)) / 2 ** 53;
  }

  // Marsaglia's polar method makes two at a time.
  let spare = Number.NaN;
  function normal(): number {
    if (!Number.isNaN(spare)) {
      const kept = spare;
      spare = Number.NaN;
      return kept;
    }
    for (;;) {
      const x = 2 * uniform() - 1;
      const y = 2 * uniform() - 1;
      const square = x * x + y * y;
      if (square === 0 || square >= 1) continue;
      const factor = Math.sqrt((-2 * log(square)) / square);
      spare = y * factor;
      return x * factor;
    }
  }

  /** Fisher and Yates, as Durstenfeld wrote it. */
  function shuffle(values: Int32Array): void {
    for (let last = values.length - 1; last > 0; last -= 1) {
      const other = Math.floor(uniform() * (last + 1));
      const kept = values[last] as number;
      values[last] = values[other] as number;
      values[other] = kept;
    }
  }

  return { next, uniform, normal, shuffle };
}
