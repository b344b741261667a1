// Why: what a registry keeps is sealed to a key that can be deleted: AES-256-GCM (NIST SP 800-38D), in the machine's own
// instructions. Trusts: node:crypto. Must never: use a nonce twice under one key, or give out a byte that is not authentic.

import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { invariant } from '../kernel/errors.ts';

const cipher = 'aes-256-gcm';
const keyBytes = 32;
export const storedNonceBytes = 12;
const tagBytes = 16;

/** A key of its own purpose (HKDF-SHA-256, RFC 5869); whoever deletes the secret deletes it as well. */
export function derivedKey(secret: Uint8Array, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), purpose, keyBytes));
}

/** Nonce, ciphertext and tag. `about` is bound to it and not in it. */
export function sealStored(
  key: Uint8Array,
  nonce: Uint8Array,
  plain: Uint8Array,
  about: Uint8Array,
): Uint8Array {
  invariant(key.length === keyBytes && nonce.length === storedNonceBytes, 'a key of 32, a nonce of 12');
  const work = createCipheriv(cipher, key, nonce).setAAD(about);
  return new Uint8Array(Buffer.concat([nonce, work.update(plain), work.final(), work.getAuthTag()]));
}

/** What was sealed, or null where it was not sealed with this key about this. */
export function openStored(key: Uint8Array, sealed: Uint8Array, about: Uint8Array): Uint8Array | null {
  if (key.length !== keyBytes || sealed.length < storedNonceBytes + tagBytes) return null;
  const work = createDecipheriv(cipher, key, sealed.subarray(0, storedNonceBytes), {
    authTagLength: tagBytes,
  }).setAAD(about);
  work.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const plain = work.update(sealed.subarray(storedNonceBytes, sealed.length - tagBytes));
  try {
    work.final();
  } catch {
    return null;
  }
  return new Uint8Array(plain);
}
