// Why: digests, SPKI, PKCS #8 and device ids against node's own encoders. Trusts: node:crypto as the other
// implementation. Must never: compare our encoder only with our decoder.

import assert from 'node:assert/strict';
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { sha256Hex, sha256Stream } from '../../shared/crypto/digests.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import {
  deviceIdOf,
  pkcs8PemFromSeed,
  publicKeyFromSpki,
  seedFromPkcs8Pem,
  spkiFromPublicKey,
} from '../../shared/crypto/spki.ts';

const seeds = fc.uint8Array({ minLength: 32, maxLength: 32 });

describe('encodings', () => {
  it('digests a stream like the whole', () => {
    assert.equal(
      sha256Hex(Buffer.from('abc')),
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 50 })), (pieces) => {
        const stream = sha256Stream();
        for (const piece of pieces) stream.update(piece);
        assert.equal(stream.hex(), sha256Hex(Buffer.concat(pieces)));
      }),
    );
  });

  it('writes keys that node reads, and reads those that node writes', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const publicKey = publicKeyOf(seed);
        const key = createPrivateKey(pkcs8PemFromSeed(seed));
        const der = createPublicKey(key).export({ format: 'der', type: 'spki' });
        assert.deepEqual(Buffer.from(spkiFromPublicKey(publicKey)), der);
        assert.deepEqual(publicKeyFromSpki(der), { ok: true, value: publicKey });
        assert.equal(key.export({ format: 'pem', type: 'pkcs8' }), pkcs8PemFromSeed(seed));
        assert.deepEqual(seedFromPkcs8Pem(pkcs8PemFromSeed(seed)), { ok: true, value: new Uint8Array(seed) });
        assert.equal(deviceIdOf(publicKey), createHash('sha256').update(der).digest('hex').slice(0, 32));
      }),
      { numRuns: 20 },
    );
  });

  it('refuses what is no Ed25519 key, without quoting it', () => {
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const x25519 = generateKeyPairSync('x25519');
    const encrypted = generateKeyPairSync('ed25519').privateKey.export({
      format: 'pem',
      type: 'pkcs8',
      cipher: 'aes-256-cbc',
      passphrase: 'x',
    });
    const privates = [
      ec.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
      x25519.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
      encrypted.toString(),
      'a secret that is no PEM',
      '',
    ];
    for (const pem of privates) {
      const read = seedFromPkcs8Pem(pem);
      assert.ok(!read.ok);
      assert.equal(read.refusal.code, 'key-invalid');
      assert.ok(!read.refusal.detail.includes('secret that'));
    }
    const good = spkiFromPublicKey(publicKeyOf(new Uint8Array(32).fill(1)));
    const publics = [
      ec.publicKey.export({ format: 'der', type: 'spki' }),
      x25519.publicKey.export({ format: 'der', type: 'spki' }),
      good.subarray(0, 43),
      Buffer.concat([good, Buffer.alloc(1)]),
      spkiFromPublicKey(new Uint8Array(32)),
    ];
    for (const der of publics) {
      const read = publicKeyFromSpki(der);
      assert.equal(read.ok ? 'ok' : read.refusal.code, 'key-invalid');
    }
  });
});
