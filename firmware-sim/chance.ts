// Why: every decision of the simulated world comes from one seed, keyed by what it is about, so that
// taking one fault out does not move the others. Trusts: nothing. Must never: keep state between draws.

/** 32 bits from a seed and a key: FNV-1a over the text, then MurmurHash3's finalizer. */
export function draw32(seed: number, ...key: (string | number)[]): number {
  let hash = 0x811c9dc5;
  const text = `${seed}|${key.join('|')}`;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Uniform in [0, 1). */
export function draw(seed: number, ...key: (string | number)[]): number {
  return draw32(seed, ...key) / 2 ** 32;
}

/** A whole number in [low, high]. */
export function drawInt(low: number, high: number, seed: number, ...key: (string | number)[]): number {
  return low + Math.floor(draw(seed, ...key) * (high - low + 1));
}

/** Bytes from one draw: Marsaglia's xorshift32, started with it. */
export function drawBytes(length: number, seed: number, ...key: (string | number)[]): Uint8Array {
  const bytes = new Uint8Array(length);
  let word = draw32(seed, ...key) | 1;
  for (let index = 0; index < length; index += 1) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    bytes[index] = word >>> 8;
  }
  return bytes;
}
