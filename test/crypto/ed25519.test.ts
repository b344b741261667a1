// Why: what may sign, and what a signature is. The forgeries here are accepted by tweetnacl itself, which
// shows that they are real. Trusts: RFC 8032's vectors. Must never: test a refusal that cannot fail.

import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import nacl from 'tweetnacl';
import {
  checkPublicKey,
  keyPairFromSeed,
  publicKeyOf,
  signerFromSeed,
  tufKeyId,
  verify,
} from '../../shared/crypto/ed25519.ts';

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const seeds = fc.uint8Array({ minLength: 32, maxLength: 32 });

/** RFC 8032 §7.1, tests 1 to 3. */
const vectors = [
  {
    seed: '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
    publicKey: 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    message: '',
    signature:
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  },
  {
    seed: '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
    publicKey: '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
    message: '72',
    signature:
      '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
  },
  {
    seed: 'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
    publicKey: 'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
    message: 'af82',
    signature:
      '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
  },
];

/** Every spelling of the eight points whose order divides 8, canonical or not (little-endian). */
const smallOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0000000000000000000000000000000000000000000000000000000000000080',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000080',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
];

const groupOrder = (1n << 252n) + 27742317777372353535851937790883648493n;
const toBig = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
const fromBig = (value: bigint): Uint8Array =>
  new Uint8Array(Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse());
const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** The clamped scalar behind a seed (RFC 8032 §5.1.5). */
function secretScalar(seed: Uint8Array): bigint {
  const half = createHash('sha512').update(seed).digest().subarray(0, 32);
  half[0] = (half[0] ?? 0) & 248;
  half[31] = ((half[31] ?? 0) & 127) | 64;
  return toBig(half);
}

describe('Ed25519', () => {
  for (const [index, vector] of vectors.entries()) {
    it(`follows RFC 8032 test ${index + 1} with both engines`, () => {
      const message = hex(vector.message);
      assert.deepEqual(publicKeyOf(hex(vector.seed)), hex(vector.publicKey));
      for (const engine of ['tweetnacl', 'node'] as const) {
        assert.deepEqual(
          signerFromSeed(hex(vector.seed), engine).sign(message),
          hex(vector.signature),
          engine,
        );
      }
      assert.equal(verify(hex(vector.publicKey), message, hex(vector.signature)), true);
    });
  }

  it('signs the same bytes with both engines and refuses every change of one bit', () => {
    fc.assert(
      fc.property(seeds, fc.uint8Array({ minLength: 1, maxLength: 200 }), fc.nat(), (seed, message, bit) => {
        const signer = signerFromSeed(seed, 'node');
        const signature = signer.sign(message);
        assert.deepEqual(signerFromSeed(seed, 'tweetnacl').sign(message), signature);
        assert.equal(verify(signer.publicKey, message, signature), true);
        const flipped = (bytes: Uint8Array): Uint8Array => {
          const copy = new Uint8Array(bytes);
          const at = (bit >> 3) % copy.length;
          copy[at] = (copy[at] ?? 0) ^ (1 << (bit & 7));
          return copy;
        };
        assert.equal(verify(signer.publicKey, flipped(message), signature), false);
        assert.equal(verify(signer.publicKey, message, flipped(signature)), false);
        assert.equal(verify(flipped(signer.publicKey), message, signature), false);
      }),
      { numRuns: 40 },
    );
  });

  it('refuses the second spelling of a signature, S + L', () => {
    const { publicKey, ...signer } = signerFromSeed(new Uint8Array(32).fill(7), 'node');
    const message = hex('6c6570746f6e');
    const signature = signer.sign(message);
    const malleable = join(signature.subarray(0, 32), fromBig(toBig(signature.subarray(32)) + groupOrder));
    assert.equal(nacl.sign.detached.verify(message, malleable, publicKey), true, 'tweetnacl accepts it');
    assert.equal(verify(publicKey, message, malleable), false);
  });

  it('refuses keys of small order, with which tweetnacl accepts what nobody signed', () => {
    // R = s·B and S = s satisfy S·B = R + h·A wherever h·A vanishes: no secret of A is needed.
    const nonce = new Uint8Array(32).fill(9);
    const forged = join(publicKeyOf(nonce), fromBig(secretScalar(nonce) % groupOrder));
    let accepted = 0;
    for (const spelling of smallOrder) {
      const key = hex(spelling);
      for (let tries = 0; tries < 60; tries += 1) {
        const message = createHash('sha256').update(`${spelling}${tries}`).digest();
        assert.equal(verify(key, message, forged), false);
        if (!nacl.sign.detached.verify(new Uint8Array(message), forged, key)) continue;
        accepted += 1;
        break;
      }
      const checked = checkPublicKey(key);
      assert.equal(checked.ok ? 'ok' : checked.refusal.code, 'key-invalid', spelling);
    }
    assert.equal(accepted, smallOrder.length, 'each of them is a real forgery');
  });

  it('refuses a nonce point of small order under an honest key', () => {
    const seed = new Uint8Array(32).fill(3);
    const publicKey = publicKeyOf(seed);
    // With R neutral, S = h·a satisfies the equation: only the key's owner can make it, and must not.
    const neutral = hex(smallOrder[2] ?? '');
    const message = hex('00');
    const h =
      toBig(
        createHash('sha512')
          .update(join(neutral, publicKey, message))
          .digest(),
      ) % groupOrder;
    const signature = join(neutral, fromBig((h * secretScalar(seed)) % groupOrder));
    assert.equal(nacl.sign.detached.verify(message, signature, publicKey), true, 'tweetnacl accepts it');
    assert.equal(verify(publicKey, message, signature), false);
  });

  it('accepts real public keys, and refuses about half of all other strings as no points', () => {
    for (let round = 0; round < 20; round += 1) {
      const jwk = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' });
      assert.equal(checkPublicKey(new Uint8Array(Buffer.from(jwk.x ?? '', 'base64url'))).ok, true);
    }
    let points = 0;
    for (let round = 0; round < 200; round += 1) {
      const bytes = new Uint8Array(createHash('sha256').update(`y${round}`).digest());
      if (checkPublicKey(bytes).ok) points += 1;
    }
    assert.ok(points > 60 && points < 140, `${points} of 200`);
    assert.equal(checkPublicKey(new Uint8Array(31)).ok, false);
    // y = p + 2: a second spelling of y = 2.
    assert.equal(checkPublicKey(fromBig((1n << 255n) - 17n)).ok, false);
  });

  it('gives false, never a fault, for malformed input', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 70 }),
        fc.uint8Array({ maxLength: 70 }),
        fc.uint8Array({ maxLength: 70 }),
        (key, message, signature) => verify(key, message, signature) === false,
      ),
    );
  });

  it('names a key by the SHA-256 of its canonical object', () => {
    const { publicKey } = keyPairFromSeed(hex(vectors[0]?.seed ?? ''));
    const object = `{"keytype":"ed25519","keyval":{"public":"${vectors[0]?.publicKey}"},"scheme":"ed25519"}`;
    assert.equal(tufKeyId(publicKey), createHash('sha256').update(object).digest('hex'));
  });
});
