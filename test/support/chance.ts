// Why: numbers that look like chance and that a seed repeats, for edits and weights in tests.
// Trusts: nothing. Must never: be used where chance protects anything.

/** Numbers in [0, 1) (mulberry32). */
export function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Some bytes written over, taken out, put in or repeated, or the end cut off. */
export function edited(bytes: Uint8Array, next: () => number): Uint8Array {
  let out = Buffer.from(bytes);
  for (let left = 1 + Math.floor(next() * 4); left > 0 && out.length > 0; left--) {
    const at = Math.floor(next() * out.length);
    const to = Math.min(out.length, at + Math.ceil(next() * 400));
    const kind = Math.floor(next() * 5);
    const piece = Buffer.from(Array.from({ length: to - at }, () => Math.floor(next() * 256)));
    if (kind === 0) out.set(piece, at);
    else if (kind === 1) out = Buffer.concat([out.subarray(0, at), out.subarray(to)]);
    else if (kind === 2) out = Buffer.concat([out.subarray(0, at), piece, out.subarray(at)]);
    else if (kind === 3) out = Buffer.concat([out.subarray(0, to), out.subarray(at)]);
    else out = out.subarray(0, at);
  }
  return out;
}
