// Why: which 32 bytes are an Ed25519 point that may stand for somebody, decided before any verification.
// Trusts: nothing. Must never: accept a small-order point (it "verifies" messages that nobody signed) or
// one of the second spellings of a point, which would let one key pass for two.

import { ok, type Result, refuse } from '../kernel/result.ts';

/** Field prime 2^255 − 19 and the curve's constant d (RFC 8032 §5.1). */
const p = (1n << 255n) - 19n;
const d = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;
/** Order of the base point (RFC 8032 §5.1). */
const groupOrder = (1n << 252n) + 27742317777372353535851937790883648493n;

/** y of every point whose order divides 8. Both signs of x are of small order. */
const smallOrderY: ReadonlySet<bigint> = new Set([
  0n, // order 4
  1n, // the neutral element
  p - 1n, // order 2
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n, // order 8
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n, // order 8
]);

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
}

function yOf(encoded: Uint8Array): bigint {
  return littleEndian(encoded) & ((1n << 255n) - 1n);
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  let square = base % p;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % p;
    square = (square * square) % p;
  }
  return result;
}

/** Whether some x belongs to this y: x² = (y² − 1) / (d·y² + 1) must be a square (RFC 8032 §5.1.3). */
function isOnCurve(y: bigint): boolean {
  const ySquared = (y * y) % p;
  const product = (ySquared - 1n + p) * ((d * ySquared + 1n) % p);
  return power(product, (p - 1n) / 2n) === 1n;
}

/** True for 32 bytes that are canonical (y < p) and not of small order. Cheap: done in every verification. */
export function isStrictPoint(encoded: Uint8Array): boolean {
  if (encoded.length !== 32) return false;
  const y = yOf(encoded);
  return y < p && !smallOrderY.has(y);
}

/** True for a scalar S below the group order; a larger one is a second spelling of the same signature. */
export function isCanonicalScalar(encoded: Uint8Array): boolean {
  return encoded.length === 32 && littleEndian(encoded) < groupOrder;
}

/**
 * Whether the 32 raw bytes may be somebody's public key: canonical, on the curve, not of small order.
 * Refusal: `key-invalid`.
 */
export function checkPublicKey(raw: Uint8Array): Result<void> {
  if (raw.length !== 32) return refuse('key-invalid', `a public key has 32 bytes, not ${raw.length}`);
  const y = yOf(raw);
  if (y >= p) return refuse('key-invalid', 'the public key is not canonically encoded');
  if (smallOrderY.has(y)) return refuse('key-invalid', 'the public key is of small order');
  if (!isOnCurve(y)) return refuse('key-invalid', 'the public key is no point of the curve');
  return ok();
}
