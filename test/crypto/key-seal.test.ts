// Why: a key file keeps its key from whoever lacks the passphrase, and a hostile file costs its reader nothing.
// Trusts: node:crypto's scrypt and tweetnacl. Must never: write a key that is used anywhere else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { signerFromSeed, tufKeyId } from '../../shared/crypto/ed25519.ts';
import { keySealEntropyBytes, makeSealedKey, openSealedKey } from '../../shared/crypto/key-seal.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { type KeyFile, parseKeyFile, publicKeyFileOf } from '../../shared/wire/key-file.ts';

const entropy = (byte: number): Uint8Array =>
  new Uint8Array(Buffer.alloc(keySealEntropyBytes, 0).map((_, at) => (at * 7 + byte) % 256));
const encode = (file: object): Uint8Array => new TextEncoder().encode(JSON.stringify(file));
const refused = (result: Result<unknown>): string => (result.ok ? 'accepted' : result.refusal.code);

function read(file: object): KeyFile {
  const parsed = unwrap(parseKeyFile(encode(file)));
  assert.equal(parsed.kind, 'lepton-key');
  return parsed as KeyFile;
}

const sealed = makeSealedKey('Alice B.', 'correct horse battery', entropy(1));

test('a key comes back with its passphrase, and with no other', () => {
  const file = read(sealed);
  const seed = unwrap(openSealedKey(file, 'correct horse battery'));
  assert.deepEqual(seed, entropy(1).slice(0, 32));
  assert.equal(signerFromSeed(seed, 'tweetnacl').keyId, file.keyId);
  for (const wrong of ['correct horse batterz', '', 'correct horse battery ']) {
    assert.equal(refused(openSealedKey(file, wrong)), 'passphrase-wrong');
  }
  // Nothing of the seed stands in the file.
  assert.ok(!JSON.stringify(sealed).includes(Buffer.from(seed).toString('hex')));
  assert.deepEqual(sealed.kdf, { ...sealed.kdf, name: 'scrypt', N: 131_072, r: 8, p: 1 });
});

test('a file of today opens in later versions', () => {
  const kept = {
    schemaVersion: 1,
    kind: 'lepton-key',
    holder: 'Alice B.',
    publicKey: 'e4030998cfd5ad1723c169f956aa0b9eb8619b5992bd612c2af428ebc79f8df0',
    keyId: '7d651969b418c9835d7660dc1ba8004f0caf94e6fd057458237288c6e604bc0c',
    kdf: {
      name: 'scrypt',
      salt: 'e1e8eff6fd040b121920272e353c434a51585f666d747b828990979ea5acb3ba',
      N: 131072,
      r: 8,
      p: 1,
    },
    nonce: 'c1c8cfd6dde4ebf2f900070e151c232a31383f464d545b62',
    box: '825efd69e605a9a4bb97986a5395187bde644642504e1278c05fb5387b296e167c4f098999f599390f7e496ef952300f',
  };
  assert.deepEqual(unwrap(openSealedKey(read(kept), 'correct horse battery')), entropy(1).slice(0, 32));
});

test('the same words on another keyboard are the same passphrase', () => {
  const made = makeSealedKey('a', 'e\u0301tude', entropy(2));
  assert.ok(openSealedKey(made, '\u00e9tude').ok);
});

test('every changed byte of the box, the nonce or the salt is a wrong passphrase', () => {
  const flip = (text: string, at: number): string =>
    `${text.slice(0, at)}${text[at] === '0' ? '1' : '0'}${text.slice(at + 1)}`;
  const changed: KeyFile[] = [
    { ...sealed, box: flip(sealed.box, 5) },
    { ...sealed, box: flip(sealed.box, 90) },
    { ...sealed, nonce: flip(sealed.nonce, 0) },
    { ...sealed, kdf: { ...sealed.kdf, salt: flip(sealed.kdf.salt, 3) } },
  ];
  for (const file of changed)
    assert.equal(refused(openSealedKey(read(file), 'correct horse battery')), 'passphrase-wrong');
});

test('a public key that is not the box’s is found out, not used', () => {
  const other = makeSealedKey('mallory', 'correct horse battery', entropy(9));
  const swapped = { ...sealed, publicKey: other.publicKey, keyId: other.keyId };
  assert.equal(refused(openSealedKey(read(swapped), 'correct horse battery')), 'key-file-malformed');
});

test('hostile files are refused while they are read, before anything is stretched', () => {
  const kdf = (change: object): object => ({ ...sealed, kdf: { ...sealed.kdf, ...change } });
  const smallOrder = '0100000000000000000000000000000000000000000000000000000000000000';
  const cases: [string, object, ErrorCode][] = [
    ['a terabyte', kdf({ N: 2 ** 40 }), 'key-file-malformed'],
    ['half a gibibyte', kdf({ N: 2 ** 19, r: 8 }), 'key-file-malformed'],
    ['memory by r', kdf({ N: 2 ** 17, r: 32 }), 'key-file-malformed'],
    ['work by p', kdf({ p: 16 }), 'key-file-malformed'],
    ['N no power of two', kdf({ N: 131_071 }), 'key-file-malformed'],
    ['N negative', kdf({ N: -131_072 }), 'key-file-malformed'],
    ['N a fraction', kdf({ N: 131_072.5 }), 'key-file-malformed'],
    ['no work at all', kdf({ N: 2 }), 'key-file-malformed'],
    ['another kdf', kdf({ name: 'pbkdf2' }), 'key-file-malformed'],
    ['a megabyte of salt', kdf({ salt: 'ab'.repeat(1_000_000) }), 'key-file-malformed'],
    ['an unknown member', { ...sealed, note: 'x' }, 'key-file-malformed'],
    ['a short box', { ...sealed, box: sealed.box.slice(2) }, 'key-file-malformed'],
    ['another id', { ...sealed, keyId: '0'.repeat(64) }, 'key-file-malformed'],
    ['a holder of two lines', { ...sealed, holder: 'alice\nroot: bob' }, 'key-file-malformed'],
    ['a holder that turns the text around', { ...sealed, holder: 'alice\u202e' }, 'key-file-malformed'],
    [
      'a small-order key',
      { ...sealed, publicKey: smallOrder, keyId: tufKeyId(Buffer.from(smallOrder, 'hex')) },
      'key-invalid',
    ],
    ['another kind', { ...sealed, kind: 'lepton-claim' }, 'key-file-malformed'],
    ['another version', { ...sealed, schemaVersion: 2 }, 'key-file-malformed'],
  ];
  for (const [what, file, code] of cases) {
    assert.equal(refused(parseKeyFile(encode(file))), code, what);
  }
  assert.equal(refused(parseKeyFile(new Uint8Array(Buffer.from('nonsense')))), 'key-file-malformed');
});

test('whatever bytes come, reading a key file gives a value or a code', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.jsonValue(), (bytes, value) => {
      assert.equal(parseKeyFile(bytes).ok, false);
      assert.equal(parseKeyFile(encode({ ...sealed, kdf: value })).ok, false);
    }),
    { numRuns: 200 },
  );
});

test('the public file holds what the private one says and nothing secret', () => {
  const file = publicKeyFileOf(sealed);
  assert.deepEqual(Object.keys(file).sort(), ['holder', 'keyId', 'kind', 'publicKey', 'schemaVersion']);
  assert.deepEqual(unwrap(parseKeyFile(encode(file))), file);
});
