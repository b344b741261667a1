// Why: signing and verifying, one strict rule for everybody. tweetnacl makes keys and signs what is signed
// rarely; node:crypto verifies everywhere and signs what is signed often. The bytes are the same.
// Trusts: points.ts for what may be a key. Must never: accept a signature that has a second spelling.

import {
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign as nodeSign,
  verify as nodeVerify,
} from 'node:crypto';
import nacl from 'tweetnacl';
import { invariant } from '../kernel/errors.ts';
import { createRecent } from '../kernel/recent.ts';
import { canonicalJson } from './canonical-json.ts';
import { sha256Hex } from './digests.ts';
import { isCanonicalScalar, isStrictPoint } from './points.ts';
import { spkiFromPublicKey } from './spki.ts';

export { checkPublicKey } from './points.ts';

export interface KeyPair {
  /** 32 bytes, a secret (RFC 8032 §5.1.5). */
  seed: Uint8Array;
  /** 32 bytes. */
  publicKey: Uint8Array;
}

/** Somebody who can sign. The key itself stays inside. */
export interface Signer {
  /** 32 raw bytes. */
  publicKey: Uint8Array;
  /** TUF key id, 64 hex digits. */
  keyId: string;
  /** 64 bytes; deterministic. */
  sign(message: Uint8Array): Uint8Array;
}

export type SigningEngine = 'tweetnacl' | 'node';

/** A key pair from 32 bytes of entropy, which the caller drew. */
export function keyPairFromSeed(seed: Uint8Array): KeyPair {
  invariant(seed.length === 32, 'an Ed25519 seed has 32 bytes');
  return { seed: new Uint8Array(seed), publicKey: nacl.sign.keyPair.fromSeed(seed).publicKey };
}

/** The raw public key of a seed. By OpenSSL: a hundred times as fast, and asked for at every start. */
export function publicKeyOf(seed: Uint8Array): Uint8Array {
  invariant(seed.length === 32, 'an Ed25519 seed has 32 bytes');
  return rawPublicKey(privateKeyOf(seed));
}

/** As a JWK (RFC 8037 §2), which takes a tenth of the time of PKCS#8; where `d` is given Node reads no `x`. */
function privateKeyOf(seed: Uint8Array): KeyObject {
  const d = Buffer.from(seed).toString('base64url');
  return createPrivateKey({ key: { kty: 'OKP', crv: 'Ed25519', d, x: '' }, format: 'jwk' });
}

/** The last 32 bytes of an Ed25519 SubjectPublicKeyInfo (RFC 8410 §4). */
function rawPublicKey(key: KeyObject): Uint8Array {
  return new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32));
}

/** TUF 1.0.34 §4.2.1: SHA-256 of the canonical JSON of the key object, hex. */
export function tufKeyId(publicKey: Uint8Array): string {
  return sha256Hex(canonicalJson(tufKeyObject(publicKey)));
}

/** A type and not an interface, so that it is a JSON value to the compiler. */
export type TufKeyObject = { keytype: 'ed25519'; scheme: 'ed25519'; keyval: { public: string } };

/** The key as TUF metadata spells it (TUF 1.0.34 §4.2.1). */
export function tufKeyObject(publicKey: Uint8Array): TufKeyObject {
  return {
    keytype: 'ed25519',
    scheme: 'ed25519',
    keyval: { public: Buffer.from(publicKey).toString('hex') },
  };
}

/**
 * A signer for a seed. `tweetnacl` (178 signatures a second) keeps offline metadata independent of OpenSSL,
 * `node` (26,000 a second) is for what is signed often. Both give the same bytes.
 */
export function signerFromSeed(seed: Uint8Array, engine: SigningEngine): Signer {
  if (engine === 'node') return nodeSigner(seed);
  const { publicKey } = keyPairFromSeed(seed);
  return { publicKey, keyId: tufKeyId(publicKey), sign: naclSigning(seed) };
}

function nodeSigner(seed: Uint8Array): Signer {
  invariant(seed.length === 32, 'an Ed25519 seed has 32 bytes');
  const key = privateKeyOf(seed);
  const publicKey = rawPublicKey(key);
  return {
    publicKey,
    keyId: tufKeyId(publicKey),
    sign: (message) => new Uint8Array(nodeSign(null, message, key)),
  };
}

function naclSigning(seed: Uint8Array): Signer['sign'] {
  const { secretKey } = nacl.sign.keyPair.fromSeed(seed);
  // A Buffer is a Uint8Array of another class; tweetnacl wants plain ones.
  return (message) => nacl.sign.detached(new Uint8Array(message), secretKey);
}

/**
 * Whether the 64-byte signature over the message is the key's. False for anything malformed: keys and
 * nonce points of small order or in a second spelling, S not below the group order (RFC 8032 §5.1.7).
 */
export function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== 64) return false;
  const name = `${latin1(signature)}${latin1(publicKey)}${sha256Hex(message)}`;
  if (verified.get(name) === true) return true;
  if (!isStrictPoint(publicKey)) return false;
  if (!isStrictPoint(signature.subarray(0, 32))) return false;
  if (!isCanonicalScalar(signature.subarray(32))) return false;
  const good = nodeVerify(null, message, parsed(publicKey), signature);
  if (good) verified.set(name, true);
  return good;
}

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

/**
 * What was found good lately by all of these checks, by signature, key and digest of the message: the same few
 * metadata files are looked at at every refresh, and a digest takes a tenth of the time.
 */
const verified = createRecent<true>(512);

/** Keys that were parsed lately: the same few sign again and again, and parsing takes longer than verifying. */
const parsedKeys = createRecent<KeyObject>(256);

function parsed(publicKey: Uint8Array): KeyObject {
  const name = latin1(publicKey);
  const known = parsedKeys.get(name);
  if (known !== undefined) return known;
  const key = createPublicKey({
    key: Buffer.from(spkiFromPublicKey(publicKey)),
    format: 'der',
    type: 'spki',
  });
  parsedKeys.set(name, key);
  return key;
}
