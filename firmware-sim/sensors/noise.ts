// Why: a stream of chance for what a sensor sees, from one seed; draws depend on those before them, unlike
// chance.ts, because a signal is long and read in order. Trusts: nothing. Must never: touch real randomness.

import { draw32 } from '../chance.ts';

export interface Noise {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
}

/** Chris Doty-Humphrey's small fast counting generator, its state filled from the seed. */
export function createNoise(seed: number): Noise {
  let [a, b, c] = [draw32(seed, 'noise', 0), draw32(seed, 'noise', 1), draw32(seed, 'noise', 2)];
  let counter = 1;
  let spare: number | null = null;
  const next = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  const uniform = (): number => next() / 2 ** 32;
  // The first outputs still show the seed.
  for (let round = 0; round < 12; round += 1) next();
  return {
    uniform,
    /** Box and Muller: two at a time. */
    normal: () => {
      if (spare !== null) {
        const kept = spare;
        spare = null;
        return kept;
      }
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const angle = 2 * Math.PI * uniform();
      spare = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    },
  };
}
