// Why: anybody can seal to a public key and only its holder can open: libsodium's `crypto_box_seal` format,
// X25519 and XSalsa20-Poly1305 under a key pair that is used once.
// Trusts: the caller's seed to be fresh and secret. Must never: seal to a key for which the shared secret is
// known to everybody (a point of small order).

import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto';
import { blake2b } from 'blakejs';
import { invariant } from '../kernel/errors.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { hsalsa20 } from './hsalsa20.ts';
import { openSecret, sealSecret } from './secretbox.ts';

export interface BoxKeyPair {
  /** 32 bytes, a secret. */
  secretKey: Uint8Array;
  /** 32 bytes, X25519. */
  publicKey: Uint8Array;
}

/** Ephemeral public key and authenticator. */
export const sealOverheadBytes = 48;

/** The key pair whose secret key is this seed of 32 random bytes (RFC 7748 §6.1). */
export function boxKeyPairFromSeed(seed: Uint8Array): BoxKeyPair {
  invariant(seed.length === 32, 'an X25519 secret key has 32 bytes');
  return { secretKey: new Uint8Array(seed), publicKey: publicKeyOf(secretObject(seed)) };
}

/**
 * Seals `plain` to a public key, 48 bytes longer. `ephemeralSeed`: 32 random bytes, never used again.
 * Refusal: `key-invalid` where the public key is of small order.
 */
export function sealTo(
  publicKey: Uint8Array,
  plain: Uint8Array,
  ephemeralSeed: Uint8Array,
): Result<Uint8Array> {
  invariant(ephemeralSeed.length === 32, 'an X25519 secret key has 32 bytes');
  const secret = secretObject(ephemeralSeed);
  const ephemeral = publicKeyOf(secret);
  const shared = sharedKey(publicKey, secret);
  if (shared === null) return refuse('key-invalid', 'no X25519 public key that can be sealed to');
  const box = sealSecret(shared, sealNonce(ephemeral, publicKey), plain);
  shared.fill(0);
  const sealed = new Uint8Array(32 + box.length);
  sealed.set(ephemeral);
  sealed.set(box, 32);
  return ok(sealed);
}

/** What was sealed to this key pair, or null where it was sealed to another or changed. */
export function openSealed(
  publicKey: Uint8Array,
  secretKey: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | null {
  if (sealed.length < sealOverheadBytes || publicKey.length !== 32 || secretKey.length !== 32) return null;
  const ephemeral = sealed.subarray(0, 32);
  const shared = sharedKey(ephemeral, secretObject(secretKey));
  if (shared === null) return null;
  const plain = openSecret(shared, sealNonce(ephemeral, publicKey), sealed.subarray(32));
  shared.fill(0);
  return plain;
}

/** BLAKE2b-192 of both public keys: the ephemeral one is fresh, so the nonce is too. */
function sealNonce(ephemeral: Uint8Array, recipient: Uint8Array): Uint8Array {
  const both = new Uint8Array(64);
  both.set(ephemeral);
  both.set(recipient, 32);
  return blake2b(both, undefined, 24);
}

/** HSalsa20 of the X25519 secret, or null for a point of small order: its secret is zero for everybody. */
function sharedKey(publicKey: Uint8Array, secret: KeyObject): Uint8Array | null {
  if (publicKey.length !== 32) return null;
  let product: Buffer;
  try {
    product = diffieHellman({ privateKey: secret, publicKey: publicObject(publicKey) });
  } catch {
    // OpenSSL refuses exactly the product that is zero (RFC 7748 §6.1).
    return null;
  }
  if (product.every((byte) => byte === 0)) return null;
  const key = hsalsa20(product, new Uint8Array(16));
  product.fill(0);
  return key;
}

// Keys go in and out as JWK: OpenSSL takes ten times as long to find its way into DER.

/** JWK wants an `x`, which is not looked at: the public half is computed from `d`. */
const noPublicHalf = Buffer.alloc(32).toString('base64url');

function secretObject(secretKey: Uint8Array): KeyObject {
  const d = Buffer.from(secretKey).toString('base64url');
  return createPrivateKey({ key: { kty: 'OKP', crv: 'X25519', d, x: noPublicHalf }, format: 'jwk' });
}

function publicObject(publicKey: Uint8Array): KeyObject {
  const x = Buffer.from(publicKey).toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
}

function publicKeyOf(secret: KeyObject): Uint8Array {
  const { x } = createPublicKey(secret).export({ format: 'jwk' });
  invariant(x !== undefined, 'an X25519 key has a public half');
  return new Uint8Array(Buffer.from(x, 'base64url'));
}
