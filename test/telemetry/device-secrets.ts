// Why: whoever has a device's disk tries all that lies on it as a key. Trusts: nothing but the bytes.
// Must never: pass because nothing was held.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { boxKeyPairFromSeed, openSealed } from '../../shared/crypto/sealed-box.ts';
import { openSecret } from '../../shared/crypto/secretbox.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { device } from '../trust/region-fixture.ts';

/** Tries every 32 bytes that the device holds as a key on everything that it holds sealed. */
export async function nothingOpens(folder: string, marker: string): Promise<void> {
  const store = await openStore(join(folder, 'outbox.sqlite'), { synchronous: 'FULL', readOnly: true });
  const { held, state } = await store.tx((db) => ({
    held: db
      .all<{ head: Uint8Array; wrap: Uint8Array; body: Uint8Array | null }>(
        'SELECT head, wrap, body FROM batches',
      )
      .flatMap(({ head, wrap, body }) => [head, wrap, ...(body === null ? [] : [body])])
      .concat(db.all<{ box: Uint8Array }>('SELECT box FROM rows').map(({ box }) => box)),
    state: db.get<{ public_key: string }>('SELECT public_key FROM outbox_state'),
  }));
  await store.close();
  const seed = new Uint8Array(32);
  seed.set(new TextEncoder().encode('device'));
  const candidates = [
    seed,
    device.publicKey,
    new Uint8Array(Buffer.from(state?.public_key ?? '', 'hex')),
    ...held.flatMap((bytes) =>
      Array.from(
        { length: Math.min(8, Math.floor(bytes.length / 32)) },
        (_, at) => new Uint8Array(bytes.subarray(32 * at, 32 * at + 32)),
      ),
    ),
  ].slice(0, 200);
  const nonces = [1, 2].map((kind) => {
    const nonce = new Uint8Array(24);
    nonce[0] = kind;
    return nonce;
  });
  assert.ok(held.length >= 3);
  for (const bytes of held) {
    assert.equal(Buffer.from(bytes).includes(marker), false);
    for (const key of candidates) {
      for (const nonce of nonces) assert.equal(openSecret(key, nonce, bytes), null);
    }
  }
  for (const secret of candidates) {
    const pair = boxKeyPairFromSeed(secret);
    for (const bytes of held.slice(0, 4)) {
      assert.equal(openSealed(pair.publicKey, pair.secretKey, bytes), null);
    }
  }
}
