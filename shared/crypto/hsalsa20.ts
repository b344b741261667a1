// Why: a sealed box's key is HSalsa20 of the X25519 secret; with it OpenSSL can do the curve, twenty times
// faster than JavaScript, and the bytes stay libsodium's. Trusts: its cross-check with tweetnacl (test/telemetry).
// Must never: branch or index by a secret.

/** "expand 32-byte k" (Bernstein, "Extending the Salsa20 nonce", §2). */
const sigma = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const;

/** 32 bytes from a key of 32 and an input of 16, all little endian. */
export function hsalsa20(key: Uint8Array, input: Uint8Array): Uint8Array {
  const k = new DataView(key.buffer, key.byteOffset, 32);
  const n = new DataView(input.buffer, input.byteOffset, 16);
  let [x0, x5, x10, x15] = sigma as readonly [number, number, number, number];
  let x1 = k.getInt32(0, true);
  let x2 = k.getInt32(4, true);
  let x3 = k.getInt32(8, true);
  let x4 = k.getInt32(12, true);
  let x6 = n.getInt32(0, true);
  let x7 = n.getInt32(4, true);
  let x8 = n.getInt32(8, true);
  let x9 = n.getInt32(12, true);
  let x11 = k.getInt32(16, true);
  let x12 = k.getInt32(20, true);
  let x13 = k.getInt32(24, true);
  let x14 = k.getInt32(28, true);
  for (let round = 0; round < 20; round += 2) {
    x4 ^= left((x0 + x12) | 0, 7);
    x8 ^= left((x4 + x0) | 0, 9);
    x12 ^= left((x8 + x4) | 0, 13);
    x0 ^= left((x12 + x8) | 0, 18);
    x9 ^= left((x5 + x1) | 0, 7);
    x13 ^= left((x9 + x5) | 0, 9);
    x1 ^= left((x13 + x9) | 0, 13);
    x5 ^= left((x1 + x13) | 0, 18);
    x14 ^= left((x10 + x6) | 0, 7);
    x2 ^= left((x14 + x10) | 0, 9);
    x6 ^= left((x2 + x14) | 0, 13);
    x10 ^= left((x6 + x2) | 0, 18);
    x3 ^= left((x15 + x11) | 0, 7);
    x7 ^= left((x3 + x15) | 0, 9);
    x11 ^= left((x7 + x3) | 0, 13);
    x15 ^= left((x11 + x7) | 0, 18);
    x1 ^= left((x0 + x3) | 0, 7);
    x2 ^= left((x1 + x0) | 0, 9);
    x3 ^= left((x2 + x1) | 0, 13);
    x0 ^= left((x3 + x2) | 0, 18);
    x6 ^= left((x5 + x4) | 0, 7);
    x7 ^= left((x6 + x5) | 0, 9);
    x4 ^= left((x7 + x6) | 0, 13);
    x5 ^= left((x4 + x7) | 0, 18);
    x11 ^= left((x10 + x9) | 0, 7);
    x8 ^= left((x11 + x10) | 0, 9);
    x9 ^= left((x8 + x11) | 0, 13);
    x10 ^= left((x9 + x8) | 0, 18);
    x12 ^= left((x15 + x14) | 0, 7);
    x13 ^= left((x12 + x15) | 0, 9);
    x14 ^= left((x13 + x12) | 0, 13);
    x15 ^= left((x14 + x13) | 0, 18);
  }
  const out = new Uint8Array(32);
  const view = new DataView(out.buffer);
  for (const [index, word] of [x0, x5, x10, x15, x6, x7, x8, x9].entries()) {
    view.setInt32(4 * index, word, true);
  }
  return out;
}

function left(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
