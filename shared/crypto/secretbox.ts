// Why: what a device seals under a batch key: XSalsa20-Poly1305, byte for byte libsodium's `crypto_secretbox_easy`.
// Trusts: the caller to use one nonce once under one key. Must never: give out a byte that is not authentic.

import nacl from 'tweetnacl';
import { invariant } from '../kernel/errors.ts';

export const secretKeyBytes = 32;
export const secretNonceBytes = 24;
/** By how much a box is longer than what is in it. */
export const secretBoxOverheadBytes = 16;

/** The box of `plain`, 16 bytes longer. A nonce must never be used twice under one key. */
export function sealSecret(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array): Uint8Array {
  invariant(key.length === secretKeyBytes && nonce.length === secretNonceBytes, 'a key of 32, a nonce of 24');
  return nacl.secretbox(ownBytes(plain), ownBytes(nonce), ownBytes(key));
}

/** What is in the box, or null where it was not made with this key and nonce. */
export function openSecret(key: Uint8Array, nonce: Uint8Array, box: Uint8Array): Uint8Array | null {
  if (key.length !== secretKeyBytes || nonce.length !== secretNonceBytes) return null;
  if (box.length < secretBoxOverheadBytes) return null;
  return nacl.secretbox.open(ownBytes(box), ownBytes(nonce), ownBytes(key));
}

/** tweetnacl refuses Buffers, which are Uint8Arrays of another class. */
function ownBytes(bytes: Uint8Array): Uint8Array {
  return Object.getPrototypeOf(bytes) === Uint8Array.prototype
    ? bytes
    : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}
