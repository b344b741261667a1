// Why: the envelopes in which other software carries Ed25519 keys (RFC 8410), and the id made of one.
// Trusts: nothing that was read. Must never: accept another algorithm or a key that points.ts refuses.

import { createPrivateKey } from 'node:crypto';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { sha256Hex } from './digests.ts';
import { checkPublicKey } from './points.ts';

/** SubjectPublicKeyInfo { id-Ed25519 } and its BIT STRING of 32 bytes: DER has exactly one spelling. */
const spkiHead = Buffer.from('302a300506032b6570032100', 'hex');
/** PKCS #8 PrivateKeyInfo { version 0, id-Ed25519 } and its OCTET STRING of 32 bytes. */
const pkcs8Head = Buffer.from('302e020100300506032b657004220420', 'hex');

/** SPKI in DER, 44 bytes. */
export function spkiFromPublicKey(raw: Uint8Array): Uint8Array {
  return new Uint8Array(Buffer.concat([spkiHead, raw]));
}

/** The raw 32 bytes of an Ed25519 key. Refusal: `key-invalid`. */
export function publicKeyFromSpki(der: Uint8Array): Result<Uint8Array> {
  const head = der.subarray(0, spkiHead.length);
  if (der.length !== spkiHead.length + 32 || !spkiHead.equals(head)) {
    return refuse('key-invalid', 'not the SPKI of an Ed25519 key');
  }
  const raw = new Uint8Array(der.subarray(spkiHead.length));
  const checked = checkPublicKey(raw);
  return checked.ok ? ok(raw) : checked;
}

/** PKCS #8 in DER, 48 bytes. A secret. */
export function pkcs8FromSeed(seed: Uint8Array): Uint8Array {
  return new Uint8Array(Buffer.concat([pkcs8Head, seed]));
}

/** PKCS #8 in PEM. A secret. */
export function pkcs8PemFromSeed(seed: Uint8Array): string {
  const base64 = Buffer.from(pkcs8FromSeed(seed)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n`;
}

/** The 32-byte seed of an unencrypted Ed25519 private key in PEM. Refusal: `key-invalid`, without the key. */
export function seedFromPkcs8Pem(pem: string): Result<Uint8Array> {
  const plain = seedAsWritten(pem);
  if (plain !== null) return ok(plain);
  let jwk: { kty?: unknown; crv?: unknown; d?: unknown };
  try {
    jwk = createPrivateKey(pem).export({ format: 'jwk' });
  } catch {
    // OpenSSL's own words are left out: they may quote what was in the file.
    return refuse('key-invalid', 'not an unencrypted private key in PEM');
  }
  if (jwk.crv !== 'Ed25519' || typeof jwk.d !== 'string')
    return refuse('key-invalid', 'not an Ed25519 private key');
  return ok(new Uint8Array(Buffer.from(jwk.d, 'base64url')));
}

/** Of a file as `pkcs8PemFromSeed` writes it, to the letter: without OpenSSL, which takes fifty times as long. */
function seedAsWritten(pem: string): Uint8Array | null {
  const base64 = /^-----BEGIN PRIVATE KEY-----\n([A-Za-z0-9+/]{64})\n-----END PRIVATE KEY-----\n$/.exec(
    pem,
  )?.[1];
  if (base64 === undefined) return null;
  const seed = new Uint8Array(Buffer.from(base64, 'base64').subarray(pkcs8Head.length));
  return pkcs8PemFromSeed(seed) === pem ? seed : null;
}

/** Id of a device: the first 32 hex digits of the SHA-256 of its public key's SPKI. */
export function deviceIdOf(publicKeyRaw: Uint8Array): string {
  return sha256Hex(spkiFromPublicKey(publicKeyRaw)).slice(0, 32);
}
