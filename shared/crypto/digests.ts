// Why: content is named by its SHA-256, in small pieces of memory and in streams.
// Trusts: node:crypto. Must never: name anything by another digest.

import { createHash, createHmac } from 'node:crypto';

/** SHA-256 of the bytes, 64 lower-case hex digits. */
export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** HMAC-SHA-256 (RFC 2104), 64 lower-case hex digits. */
export function hmacSha256Hex(key: Uint8Array, bytes: Uint8Array): string {
  return Buffer.from(hmacSha256(key, bytes)).toString('hex');
}

/** 32 bytes. */
export function hmacSha256(key: Uint8Array, bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac('sha256', key).update(bytes).digest());
}

export interface DigestStream {
  update(bytes: Uint8Array): void;
  /** SHA-256 of everything so far, 64 lower-case hex digits. Ends the stream: call it once. */
  hex(): string;
}

/** SHA-256 of a file that does not fit in memory. */
export function sha256Stream(): DigestStream {
  const hash = createHash('sha256');
  return {
    update(bytes) {
      hash.update(bytes);
    },
    hex: () => hash.digest('hex'),
  };
}
