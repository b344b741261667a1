// Why: boxes are libsodium's, byte for byte, whoever computes them.
// Trusts: tweetnacl as the other implementation, and published vectors. Must never: compare a thing with itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blake2b } from 'blakejs';
import fc from 'fast-check';
import nacl from 'tweetnacl';
import { hsalsa20 } from '../../shared/crypto/hsalsa20.ts';
import { boxKeyPairFromSeed, openSealed, sealOverheadBytes, sealTo } from '../../shared/crypto/sealed-box.ts';
import { openSecret, sealSecret } from '../../shared/crypto/secretbox.ts';
import { unwrap } from '../../shared/kernel/errors.ts';

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const hex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'));

test('HSalsa20: the published vector, and tweetnacl’s', () => {
  // "Cryptography in NaCl" §8: shared secret of Alice and Bob, then the first-level key.
  const shared = hex('4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742');
  const first = '1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389';
  assert.equal(Buffer.from(hsalsa20(shared, new Uint8Array(16))).toString('hex'), first);
  fc.assert(
    fc.property(bytes(32), bytes(32), (a, b) => {
      const publicKey = nacl.box.keyPair.fromSecretKey(b).publicKey;
      const secret = nacl.scalarMult(a, publicKey);
      assert.deepEqual(hsalsa20(secret, new Uint8Array(16)), nacl.box.before(publicKey, a));
    }),
    { numRuns: 20 },
  );
});

test('key pairs: the published vector, and tweetnacl’s', () => {
  // RFC 7748 §6.1, Alice.
  const seed = hex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a');
  const { publicKey } = boxKeyPairFromSeed(seed);
  assert.equal(
    Buffer.from(publicKey).toString('hex'),
    '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a',
  );
  fc.assert(
    fc.property(bytes(32), (seed) => {
      assert.deepEqual(boxKeyPairFromSeed(seed).publicKey, nacl.box.keyPair.fromSecretKey(seed).publicKey);
    }),
    { numRuns: 20 },
  );
});

test('a sealed box is what libsodium’s crypto_box_seal makes of the same seed', () => {
  fc.assert(
    fc.property(bytes(32), bytes(32), fc.uint8Array({ maxLength: 200 }), (seed, ephemeralSeed, plain) => {
      const { publicKey, secretKey } = boxKeyPairFromSeed(seed);
      const sealed = unwrap(sealTo(publicKey, plain, ephemeralSeed));
      const ephemeral = nacl.box.keyPair.fromSecretKey(ephemeralSeed);
      const nonce = blake2b(Buffer.concat([ephemeral.publicKey, publicKey]), undefined, 24);
      const expected = Buffer.concat([
        ephemeral.publicKey,
        nacl.box(plain, nonce, publicKey, ephemeral.secretKey),
      ]);
      assert.deepEqual(sealed, new Uint8Array(expected));
      assert.equal(sealed.length, plain.length + sealOverheadBytes);
      assert.deepEqual(openSealed(publicKey, secretKey, sealed), plain);
      // Also where they are views into something larger.
      const within = Buffer.concat([Buffer.from([1]), sealed, Buffer.from([2])]).subarray(1, -1);
      assert.deepEqual(openSealed(Buffer.from(publicKey), Buffer.from(secretKey), within), plain);
    }),
    { numRuns: 20 },
  );
});

test('a changed byte, another key or a cut opens nothing', () => {
  const { publicKey, secretKey } = boxKeyPairFromSeed(new Uint8Array(32).fill(1));
  const other = boxKeyPairFromSeed(new Uint8Array(32).fill(2));
  const sealed = unwrap(sealTo(publicKey, new Uint8Array([1, 2, 3]), new Uint8Array(32).fill(3)));
  for (const at of sealed.keys()) {
    const changed = sealed.slice();
    changed[at] = (changed[at] ?? 0) ^ 1;
    assert.equal(openSealed(publicKey, secretKey, changed), null, `byte ${at}`);
  }
  for (let length = 0; length < sealed.length; length += 1) {
    assert.equal(openSealed(publicKey, secretKey, sealed.subarray(0, length)), null);
  }
  assert.equal(openSealed(other.publicKey, other.secretKey, sealed), null);
  assert.equal(openSealed(publicKey, other.secretKey, sealed), null);
});

test('public keys of small order are refused, for sealing and for opening', () => {
  const smallOrder = [
    '00'.repeat(32),
    `01${'00'.repeat(31)}`,
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    `ec${'ff'.repeat(30)}7f`,
    `ed${'ff'.repeat(30)}7f`,
    `ee${'ff'.repeat(30)}7f`,
  ];
  const { publicKey, secretKey } = boxKeyPairFromSeed(new Uint8Array(32).fill(1));
  for (const text of smallOrder) {
    const sealed = sealTo(hex(text), new Uint8Array(3), new Uint8Array(32).fill(9));
    assert.equal(sealed.ok ? 'sealed' : sealed.refusal.code, 'key-invalid', text);
    const forged = Buffer.concat([hex(text), new Uint8Array(40)]);
    assert.equal(openSealed(publicKey, secretKey, forged), null);
  }
  assert.equal(sealTo(new Uint8Array(31), new Uint8Array(3), new Uint8Array(32)).ok, false);
});

test('secret boxes are tweetnacl’s and open only as they were made', () => {
  fc.assert(
    fc.property(bytes(32), bytes(24), fc.uint8Array({ maxLength: 300 }), (key, nonce, plain) => {
      const box = sealSecret(key, nonce, Buffer.from(plain));
      assert.deepEqual(box, nacl.secretbox(plain, nonce, key));
      assert.deepEqual(openSecret(key, nonce, Buffer.from(box)), plain);
      const wrong = key.slice();
      wrong[0] = (wrong[0] ?? 0) ^ 1;
      assert.equal(openSecret(wrong, nonce, box), null);
      assert.equal(openSecret(key, nonce, box.subarray(1)), null);
    }),
  );
  assert.equal(openSecret(new Uint8Array(32), new Uint8Array(24), new Uint8Array(15)), null);
});
