// Why: a file stands under its digest only when it has that digest, whatever the client did.
// Trusts: the real disk. Must never: leave its folder behind.

import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openBlobs } from '../../registry/catalog/blobs.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { countedEntropy, once, temporaryFolder } from './support.ts';

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test('bytes come back whole and in ranges; a second upload changes nothing', async (t) => {
  const folder = temporaryFolder(t);
  const blobs = await openBlobs({ disk: openDisk(folder), entropy: countedEntropy('blobs') });
  const bytes = countedEntropy('content').bytes(3_000_001);
  const sha256 = sha256Hex(bytes);
  assert.deepEqual(await blobs.put(sha256, inChunks(bytes, 65_536)), {
    ok: true,
    value: { bytes: bytes.length, existed: false },
  });
  const again = await blobs.put(sha256, once(bytes));
  assert.equal(again.ok && again.value.existed, true);
  assert.equal(await blobs.size(sha256), bytes.length);
  assert.deepEqual(await blobs.read(sha256), bytes);
  assert.deepEqual(await blobs.readRange(sha256, 2_999_999, 10), bytes.subarray(2_999_999));
  assert.deepEqual(readdirSync(folder), [sha256]);
});

test('an empty file is a file', async (t) => {
  const blobs = await openBlobs({ disk: openDisk(temporaryFolder(t)), entropy: countedEntropy('blobs') });
  const sha256 = sha256Hex(new Uint8Array());
  assert.equal((await blobs.put(sha256, inChunks(new Uint8Array(), 1))).ok, true);
  assert.equal(await blobs.size(sha256), 0);
});

test('other bytes, too many bytes and a broken upload leave nothing behind', async (t) => {
  const folder = temporaryFolder(t);
  const blobs = await openBlobs({
    disk: openDisk(folder),
    entropy: countedEntropy('blobs'),
    bytesMax: 1_000,
  });
  const sha256 = sha256Hex(Buffer.from('right'));
  const wrong = await blobs.put(sha256, once(Buffer.from('wrong')));
  assert.equal(wrong.ok ? 'taken' : wrong.refusal.code, 'blob-digest-mismatch');
  const large = await blobs.put(sha256, once(new Uint8Array(1_001)));
  assert.equal(large.ok ? 'taken' : large.refusal.code, 'body-too-large');
  const noDigest = await blobs.put('../x', once(Buffer.from('x')));
  assert.equal(noDigest.ok ? 'taken' : noDigest.refusal.code, 'input-invalid');
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('ri');
    throw new Error('the client hung up');
  }
  await assert.rejects(blobs.put(sha256, broken()), /hung up/);
  assert.deepEqual(readdirSync(folder), []);
  assert.equal(await blobs.has(sha256), false);
});

test('two uploads of one file at once end in one file', async (t) => {
  const folder = temporaryFolder(t);
  const blobs = await openBlobs({ disk: openDisk(folder), entropy: countedEntropy('blobs') });
  const bytes = countedEntropy('both').bytes(400_000);
  const sha256 = sha256Hex(bytes);
  const both = await Promise.all([
    blobs.put(sha256, inChunks(bytes, 1_000)),
    blobs.put(sha256, inChunks(bytes, 1_777)),
  ]);
  assert.deepEqual(
    both.map((one) => one.ok),
    [true, true],
  );
  assert.deepEqual(readdirSync(folder), [sha256]);
  assert.deepEqual(await blobs.read(sha256), bytes);
});

test('what an earlier process left half received is removed at the start', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, `${'a'.repeat(64)}.0011.unverified`), 'half');
  await openBlobs({ disk: openDisk(folder), entropy: countedEntropy('blobs') });
  assert.deepEqual(readdirSync(folder), []);
});
