// Why: holds what rooms rely on: a transaction is all or nothing, and what was written comes back typed.
// Trusts: SQLite. Must never: reach into a driver.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openRegistryStore } from '../../registry/store/open.ts';
import { createSettings } from '../../registry/store/settings.ts';
import { temporaryFolder } from './support.ts';

test('a throw inside a transaction leaves nothing of it', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const { qb } = store;
  await assert.rejects(
    store.tx((db) => {
      db.run(qb.insertInto('settings').values({ key: 'a', value: '1' }));
      throw new Error('stop');
    }),
    /stop/,
  );
  assert.deepEqual(await store.tx((db) => db.all(qb.selectFrom('settings').selectAll())), []);
});

test('bytes, numbers and nulls come back as they went in', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const { qb } = store;
  const bytes = Uint8Array.from([0, 255, 10]);
  await store.tx((db) => {
    db.run(qb.insertInto('metadata_files').values({ name: '1.x.json', bytes, created_at_ms: 2 ** 41 }));
    db.run(
      qb.insertInto('tokens').values({
        id: 'i',
        user: 'u',
        role: 'admin',
        namespace: null,
        secret_sha256: 's',
        created_at_ms: 1,
        expires_at_ms: null,
        revoked_at_ms: null,
      }),
    );
  });
  const row = await store.tx((db) => db.first(qb.selectFrom('metadata_files').selectAll()));
  assert.deepEqual(new Uint8Array(row?.bytes ?? []), bytes);
  assert.equal(row?.created_at_ms, 2 ** 41);
  const token = await store.tx((db) => db.first(qb.selectFrom('tokens').selectAll()));
  assert.equal(token?.namespace, null);
});

test('a store that is opened again has what was committed, and its settings', async (t) => {
  const path = join(temporaryFolder(t), 'registry.sqlite');
  const first = await openRegistryStore(path);
  assert.equal(await createSettings(first).keep('region', 'eu'), 'eu');
  await createSettings(first).set('http.port', '8443');
  await first.close();
  const second = await openRegistryStore(path);
  t.after(() => second.close());
  const settings = createSettings(second);
  assert.equal(await settings.keep('region', 'us'), 'eu');
  assert.equal(await settings.number('http.port'), 8443);
  assert.equal(await settings.number('mqtt.port'), null);
});
