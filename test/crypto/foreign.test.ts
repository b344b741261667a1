// Why: the algorithms of public repositories: what is a key, which keys are one, what is a signature.
// Trusts: node:crypto for making keys and signatures. Must never: accept by one scheme what another one made.

import assert from 'node:assert/strict';
import { constants, createPublicKey, ECDH, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, it } from 'node:test';
import { readForeignKey, sha512Hex, sha512Stream, verifyForeign } from '../../shared/crypto/foreign.ts';

const message = Buffer.from('message');
const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString();
const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve });
const rsa = (modulusLength: number) => generateKeyPairSync('rsa', { modulusLength });
const p256 = ec('P-256');
const p384 = ec('P-384');
const rsa2048 = rsa(2_048);
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING };

describe('foreign keys', () => {
  const pairs: [string, string, KeyObject, Uint8Array][] = [
    ['ecdsa', 'ecdsa-sha2-nistp256', p256.publicKey, sign('sha256', message, p256.privateKey)],
    ['ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp256', p256.publicKey, sign('sha256', message, p256.privateKey)],
    ['ecdsa', 'ecdsa-sha2-nistp384', p384.publicKey, sign('sha384', message, p384.privateKey)],
    [
      'rsa',
      'rsassa-pss-sha256',
      rsa2048.publicKey,
      sign('sha256', message, { key: rsa2048.privateKey, ...pss, saltLength: 32 }),
    ],
    [
      'rsa',
      'rsassa-pss-sha256',
      rsa2048.publicKey,
      sign('sha256', message, {
        key: rsa2048.privateKey,
        ...pss,
        saltLength: constants.RSA_PSS_SALTLEN_MAX_SIGN,
      }),
    ],
    ['rsa', 'rsa-pkcs1v15-sha256', rsa2048.publicKey, sign('sha256', message, rsa2048.privateKey)],
  ];
  for (const [keyType, scheme, publicKey, signature] of pairs) {
    it(`${keyType}, ${scheme}: its own signature over its own message, and nothing else`, () => {
      const key = readForeignKey(keyType, scheme, pem(publicKey));
      assert.ok(key);
      assert.ok(verifyForeign(key, message, signature));
      assert.ok(!verifyForeign(key, Buffer.from('massage'), signature));
      for (const other of [
        new Uint8Array(),
        signature.subarray(1),
        Buffer.concat([signature, Buffer.alloc(1)]),
        Buffer.alloc(signature.length),
      ])
        assert.ok(!verifyForeign(key, message, other));
      for (const [, otherScheme, , otherSignature] of pairs)
        if (otherScheme !== scheme) assert.ok(!verifyForeign(key, message, otherSignature), otherScheme);
    });
  }

  it('are none under the scheme of another kind, curve or size', () => {
    const none: [string, string, string][] = [
      ['ecdsa', 'ecdsa-sha2-nistp384', pem(p256.publicKey)],
      ['ecdsa', 'ecdsa-sha2-nistp256', pem(p384.publicKey)],
      ['ecdsa', 'ecdsa-sha2-nistp256', pem(ec('secp256k1').publicKey)],
      ['ecdsa', 'rsassa-pss-sha256', pem(rsa2048.publicKey)],
      ['rsa', 'ecdsa-sha2-nistp256', pem(p256.publicKey)],
      ['rsa', 'rsassa-pss-sha256', pem(p256.publicKey)],
      ['ecdsa', 'ecdsa-sha2-nistp256', pem(generateKeyPairSync('ed25519').publicKey)],
      ['rsa', 'rsassa-pss-sha256', pem(rsa(1_024).publicKey)],
      ['rsa', 'rsassa-pss-sha512', pem(rsa2048.publicKey)],
      ['rsa', '__proto__', pem(rsa2048.publicKey)],
    ];
    for (const [keyType, scheme, text] of none)
      assert.equal(readForeignKey(keyType, scheme, text), null, scheme);
  });

  it('are PEM of a public key and nothing else that Node would read', () => {
    const good = pem(p256.publicKey);
    assert.ok(readForeignKey('ecdsa', 'ecdsa-sha2-nistp256', good));
    assert.ok(readForeignKey('ecdsa', 'ecdsa-sha2-nistp256', good.trimEnd()));
    for (const text of [
      '',
      'no PEM',
      p256.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      p256.privateKey.export({ type: 'sec1', format: 'pem' }).toString(),
      `${good}${good}`,
      `x${good}`,
      good.replace(/\n/g, ''),
      good.replace('PUBLIC KEY', 'CERTIFICATE'),
      good.slice(0, 40) + good.slice(60),
      good.replace('-----END', `${'A'.repeat(10_000)}\n-----END`),
    ])
      assert.equal(readForeignKey('ecdsa', 'ecdsa-sha2-nistp256', text), null, text.slice(0, 40));
  });

  it('are counted by what they are, not by how they are written', () => {
    const { x = '', y = '' } = p256.publicKey.export({ format: 'jwk' });
    const point = Buffer.concat([Buffer.from([4]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]);
    const compressed = ECDH.convertKey(point, 'prime256v1', undefined, undefined, 'compressed') as Buffer;
    // SubjectPublicKeyInfo { id-ecPublicKey, prime256v1 } with a BIT STRING of 33 bytes.
    const der = Buffer.concat([
      Buffer.from('3039301306072a8648ce3d020106082a8648ce3d030107032200', 'hex'),
      compressed,
    ]);
    const text = `-----BEGIN PUBLIC KEY-----\r\n${der.toString('base64')}\r\n-----END PUBLIC KEY-----\r\n`;
    assert.ok(createPublicKey(text));
    assert.notEqual(text, pem(p256.publicKey));
    const plain = readForeignKey('ecdsa', 'ecdsa-sha2-nistp256', pem(p256.publicKey));
    const other = readForeignKey('ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp256', text);
    assert.deepEqual(other?.publicKey, plain?.publicKey);
    const first = readForeignKey('rsa', 'rsassa-pss-sha256', pem(rsa2048.publicKey));
    const second = readForeignKey('rsa', 'rsa-pkcs1v15-sha256', pem(rsa2048.publicKey));
    assert.ok(first);
    assert.deepEqual(first.publicKey, second?.publicKey);
  });

  it('digest by SHA-512 at once and in parts', () => {
    // FIPS 180-4: SHA-512 of "abc".
    const expected =
      'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f';
    assert.equal(sha512Hex(Buffer.from('abc')), expected);
    const stream = sha512Stream();
    for (const part of ['a', '', 'bc']) stream.update(Buffer.from(part));
    assert.equal(stream.hex(), expected);
  });
});
