// Why: keys and signatures that a careless verifier takes: small order, second spellings, other algorithms.
// Trusts: the equations of RFC 8032, computed here with numbers. Must never: use the code it attacks to attack.

import { createHash, generateKeyPairSync, sign as nodeSign } from 'node:crypto';
import { canonicalJson } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, tufKeyObject, verify } from '../../shared/crypto/ed25519.ts';
import { isCanonicalScalar } from '../../shared/crypto/points.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type AttackCase, onRepository } from './attack-case.ts';
import { directRow, resultOf } from './direct-rows.ts';
import {
  canonical,
  encode,
  type HostileRepository,
  inside,
  type Json,
  signatureOf,
  signerNamed,
} from './hostile-repository.ts';
import { followRoots } from './repository-healing.ts';

const p = (1n << 255n) - 19n;
const order = (1n << 252n) + 27742317777372353535851937790883648493n;
/** The base point, RFC 8032 §5.1: with S = 1 it is a signature of any message by a key of small order. */
const basePoint = `58${'66'.repeat(31)}`;

function littleEndian(value: bigint): string {
  return Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse().toString('hex');
}

function numberOf(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
}

const sha512 = (...parts: Uint8Array[]): Uint8Array =>
  new Uint8Array(createHash('sha512').update(Buffer.concat(parts)).digest());

/** A root, signed as it must be, whose timestamp role has this key object alone. */
function nameTimestampKey(evil: HostileRepository, key: Json, keyId: string): void {
  evil.publishRoot({
    change: (signed) => {
      inside(signed, 'keys')[keyId] = key;
      inside(signed, 'roles', 'timestamp')['keyids'] = [keyId];
    },
  });
}

/** A timestamp key that is no honest point, with a signature that fits it by the equation alone. */
function weakKey(id: string, attack: string, publicHex: string): AttackCase {
  return onRepository(
    `weak-key-${id}`,
    attack,
    'metadata-signature-invalid',
    (evil) => {
      const key: Json = { ...tufKeyObject(new Uint8Array(Buffer.from(publicHex, 'hex'))) };
      const keyId = sha256Hex(encode(canonical(key)));
      nameTimestampKey(evil, key, keyId);
      evil.publish('acme');
      evil.publish('timestamp', {
        signatures: (list) => {
          list.splice(0, list.length, { keyid: keyId, sig: basePoint + littleEndian(1n) });
        },
      });
    },
    { heals: followRoots },
  );
}

/**
 * A signature by the true timestamp key whose R is the neutral element: S = k·a. Whoever holds the key can make
 * it, and it is one of many for one message: nothing may be told apart by it.
 */
function smallOrderR(signed: Json): string {
  const seed = new Uint8Array(Buffer.from(sha256Hex(encode('timestamp')), 'hex'));
  const scalar = sha512(seed).slice(0, 32);
  scalar[0] = (scalar[0] ?? 0) & 248;
  scalar[31] = ((scalar[31] ?? 0) & 127) | 64;
  const neutral = new Uint8Array(32);
  neutral[0] = 1;
  const k = numberOf(sha512(neutral, signerNamed('timestamp').publicKey, encode(canonical(signed))));
  const s = (k * numberOf(scalar)) % order;
  return Buffer.from(neutral).toString('hex') + littleEndian(s);
}

/** The signature with the group's order added to S: the same to a verifier that does not look. */
function malleated(sig: string): string {
  const s = numberOf(Buffer.from(sig.slice(64), 'hex'));
  return sig.slice(0, 64) + littleEndian(s + order);
}

function keyOfAnotherKind(id: string, attack: string, change: (key: Json) => void): AttackCase {
  return onRepository(
    id,
    attack,
    'metadata-signature-invalid',
    (evil) => {
      const key: Json = { ...tufKeyObject(signerNamed('timestamp').publicKey) };
      change(key);
      const keyId = sha256Hex(encode(canonical(key)));
      nameTimestampKey(evil, key, keyId);
      evil.role('timestamp').keys = [{ ...signerNamed('timestamp'), keyId }];
      evil.publish('acme');
    },
    { heals: followRoots },
  );
}

function ecdsaSigner(): { signer: Signer; key: Json } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString();
  const key: Json = { keytype: 'ecdsa', scheme: 'ecdsa-sha2-nistp256', keyval: { public: pem } };
  const keyId = sha256Hex(encode(canonical(key)));
  const sign = (message: Uint8Array): Uint8Array => new Uint8Array(nodeSign('sha256', message, privateKey));
  return { signer: { publicKey: new Uint8Array(32), keyId, sign }, key };
}

function timestampSignature(
  id: string,
  attack: string,
  make: (honest: string, signed: Json) => string,
): AttackCase {
  return onRepository(id, attack, 'metadata-signature-invalid', (evil) => {
    evil.publish('acme');
    evil.publish('timestamp', {
      signatures: (list, signed) => {
        const { keyid, sig } = signatureOf(signerNamed('timestamp'), signed);
        list.splice(0, list.length, { keyid, sig: make(sig, signed) });
      },
    });
  });
}

const judged = (isGood: boolean): Result<void> =>
  isGood ? ok() : refuse('metadata-signature-invalid', 'not strict');
const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));

/** Refused by the house's own rule, whatever the version of OpenSSL below it does. */
const scalars: [string, string, string][] = [
  ['order-added', 'a scalar with the group’s order added', littleEndian(5n + order)],
  ['long', 'a scalar of 33 bytes', `${littleEndian(5n)}00`],
  ['short', 'a scalar of 31 bytes', littleEndian(5n).slice(0, 62)],
];

export const cryptoAttacks: AttackCase[] = [
  weakKey('neutral', 'a timestamp key of order 1, for which anybody can sign', littleEndian(1n)),
  weakKey('neutral-sign', 'the same key with its sign bit set', littleEndian(1n | (1n << 255n))),
  weakKey('second-spelling', 'the same key spelled as y = p + 1', littleEndian(p + 1n)),
  weakKey('order-2', 'a timestamp key of order 2', littleEndian(p - 1n)),
  weakKey('order-4', 'a timestamp key of order 4', littleEndian(0n)),
  weakKey(
    'order-8',
    'a timestamp key of order 8',
    littleEndian(0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n),
  ),
  weakKey(
    'order-8-other',
    'the other timestamp key of order 8',
    littleEndian(0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n),
  ),
  weakKey('short', 'a timestamp key of 31 bytes', '58'.repeat(31)),
  timestampSignature('signature-malleable', 'a signature whose S has the group’s order added', malleated),
  timestampSignature('signature-small-order', 'a signature whose R is of small order', (_sig, signed) =>
    smallOrderR(signed),
  ),
  timestampSignature('signature-short', 'a signature of 63 bytes', (sig) => sig.slice(0, 126)),
  timestampSignature('signature-long-tail', 'a signature of 65 bytes', (sig) => `${sig}00`),
  timestampSignature(
    'signature-other-message',
    'the honest signature of another timestamp',
    (_sig, signed) => signatureOf(signerNamed('timestamp'), { ...signed, version: 77 }).sig,
  ),
  keyOfAnotherKind('key-type-rsa', 'an Ed25519 key that calls itself RSA', (key) => {
    key['keytype'] = 'rsa';
  }),
  keyOfAnotherKind('key-scheme-ecdsa', 'an Ed25519 key with the scheme of ECDSA', (key) => {
    key['scheme'] = 'ecdsa-sha2-nistp256';
  }),
  keyOfAnotherKind('key-capitals', 'an Ed25519 key in capital digits: a second spelling', (key) => {
    key['keyval'] = { public: Buffer.from(signerNamed('timestamp').publicKey).toString('hex').toUpperCase() };
  }),
  onRepository(
    'key-ecdsa',
    'an ECDSA key with a true ECDSA signature, where production takes Ed25519 only',
    'metadata-signature-invalid',
    (evil) => {
      const { signer, key } = ecdsaSigner();
      nameTimestampKey(evil, key, signer.keyId);
      evil.role('timestamp').keys = [signer];
      evil.publish('acme');
    },
    { heals: followRoots },
  ),
  ...scalars.map(([id, attack, hex]) =>
    directRow('repository', `scalar-${id}`, attack, 'metadata-signature-invalid', () => ({
      honest: judged(isCanonicalScalar(bytesOf(littleEndian(5n)))),
      forged: judged(isCanonicalScalar(bytesOf(hex))),
    })),
  ),
  directRow(
    'repository',
    'verify-key-short',
    'a key of 31 bytes, handed to the verifier by another way than metadata',
    'metadata-signature-invalid',
    () => {
      const { publicKey, sign } = signerNamed('timestamp');
      const message = encode('message');
      const check = (key: Uint8Array) => judged(verify(key, message, sign(message)));
      return { honest: check(publicKey), forged: check(publicKey.subarray(0, 31)) };
    },
  ),
  directRow(
    'repository',
    'canonical-half-pair',
    'half a surrogate pair, whose bytes would be those of another text',
    'input-invalid',
    () => ({
      honest: resultOf(() => canonicalJson('\ufffd')),
      forged: resultOf(() => canonicalJson('\ud800')),
    }),
  ),
];
