// Why: a registry that was filled by an earlier version keeps what it knew: what waits, what is barred, what is signed.
// Trusts: the migrations folder. Must never: fill the old tables by today's code.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { migrationsFolder, openRegistryStore } from '../../registry/store/open.ts';
import { openStore, readMigrations } from '../../shared/host/sqlite.ts';
import { makeTargets } from '../../shared/trust/tuf/repository.ts';
import { dayMs, publisherKey, temporaryFolder } from './support.ts';

test('005: standing and requirements come from the signed metadata, a waiting push goes on waiting', async (t) => {
  const path = join(temporaryFolder(t), 'registry.sqlite');
  const before = readMigrations(migrationsFolder).filter(({ name }) => name < '005');
  const metadata = makeTargets({
    version: 4,
    expiresAtMs: dayMs,
    targets: new Map(
      [1, 2, 3].map((counter) => [
        `acme/echo/1.${counter}.0`,
        {
          sha256: String(counter).repeat(64),
          bytes: 9,
          counter,
          requires: counter === 1 ? null : { opset: 17, arch: ['x64'] },
        },
      ]),
    ),
    floors: new Map([['echo', 2]]),
    withdrawn: new Map([['echo', new Set([2])]]),
    signers: [publisherKey('acme')],
  });
  const old = await openStore(path, { synchronous: 'FULL', migrations: before });
  await old.tx((db) => {
    db.run('INSERT INTO metadata_files VALUES (?, ?, 0)', '4.acme.json', metadata);
    db.run("INSERT INTO metadata_roles VALUES ('ns/acme', 4, '4.acme.json', 0)");
    db.run("INSERT INTO publishers VALUES ('acme', '[]', 1, 0)");
    for (const counter of [1, 2, 3]) {
      const version = `1.${counter}.0`;
      db.run(
        "INSERT INTO releases VALUES (?, 'acme', 'echo', ?, ?, '', x'7b7d', 0, '[]', 1, NULL, 'ann', 0)",
        `acme/echo@${version}`,
        version,
        counter,
      );
    }
    db.run("INSERT INTO pending_pushes VALUES ('acme', 'acme/echo@2.0.0', x'01', x'02', 'ann', 7)");
    const device = 'd'.repeat(32);
    db.run(
      "INSERT INTO devices VALUES (?, x'00', 'active', 'c', '{}', 'UTC', 'unknown', 0, NULL, '{}', NULL, 0, 0, NULL, 0, 0, 0, 0, 0)",
      device,
    );
    db.run("INSERT INTO desired VALUES (?, 'echo', 'acme/echo@1.3.0', '', 9, 3, NULL, '{}')", device);
    db.run(
      "INSERT INTO rollouts VALUES (1, 'r1', 'r', 'acme/echo@1.3.0', 'echo', '', 9, 3, '{}', 'running', NULL, NULL, 'ann', 0, NULL)",
    );
    const previous = JSON.stringify({ releaseId: 'acme/echo@1.2.0', counter: 2 });
    db.run(
      "INSERT INTO rollout_devices VALUES ('r1', ?, 0, 'pending', NULL, 'assigned', 1, 0, ?)",
      device,
      previous,
    );
  });
  await old.close();

  const store = await openRegistryStore(path);
  t.after(() => store.close());
  const { qb } = store;
  await store.tx((db) => {
    const signed = '{"opset":17,"arch":["x64"]}';
    assert.deepEqual(
      db
        .all(qb.selectFrom('releases').selectAll().orderBy('counter'))
        .map((row) => [row.version, row.withdrawn, row.below_floor, row.requires]),
      [
        ['1.1.0', 0, 1, null],
        ['1.2.0', 1, 0, signed],
        ['1.3.0', 0, 0, signed],
      ],
    );
    assert.deepEqual(db.first(qb.selectFrom('model_floors').selectAll()), {
      namespace: 'acme',
      name: 'echo',
      floor: 2,
      counter_floor: 0,
    });
    const waiting = db.first(qb.selectFrom('publisher_steps').selectAll());
    assert.deepEqual(
      [waiting?.release_id, [...(waiting?.metadata ?? [])], [...(waiting?.manifest ?? [])]],
      ['acme/echo@2.0.0', [1], [2]],
    );
    assert.equal(db.first(qb.selectFrom('publishers').select('version_floor'))?.version_floor, 0);
    assert.equal(db.first(qb.selectFrom('desired').select('requires'))?.requires, signed);
    const member = db.first(qb.selectFrom('rollout_devices').select('previous'));
    assert.deepEqual(JSON.parse(member?.previous ?? ''), {
      releaseId: 'acme/echo@1.2.0',
      counter: 2,
      requires: signed,
    });
  });
});
