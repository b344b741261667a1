// Why: releases that are still to come when their publisher bars them, or the catalogue names others, are never shown.
// Trusts: test/fleet/world.ts; files that are here already stand for those that another region brings.
// Must never: need another region.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { regionLimits } from '../../registry/regions/limits.ts';
import { createMirrorFiles } from '../../registry/regions/mirror-files.ts';
import { readMirrorIn, writeMirrorIn } from '../../registry/regions/mirror-state.ts';
import { createRoleFiles } from '../../registry/signing/role-files.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok } from '../../shared/kernel/result.ts';
import { noBounds, raisedFloors } from '../../shared/trust/tuf/floors.ts';
import { parseSnapshot, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { parseRootFile } from '../../shared/trust/tuf/repository.ts';
import { openWorld } from '../fleet/world.ts';
import { publisherKey, temporaryFolder } from '../registry-core/support.ts';

/** A region whose catalogue names these versions of one model, and that has no release of them yet. */
async function mirroring(t: TestContext, versions: readonly string[]) {
  const world = await openWorld(t);
  const { store, repository, releases, clock } = world.core;
  for (const [index, version] of versions.entries()) await world.push(`acme/digits@${version}`, index + 1);
  await store.tx((db) => {
    db.sql.run(
      `INSERT INTO mirror_releases
         (release_id, namespace, manifest_sha256, manifest_bytes, counter, signed_by, state, retry_at_ms)
       SELECT release_id, namespace, manifest_sha256, length(manifest), counter, '[]', 'wanted', 0 FROM releases`,
    );
    db.sql.run('DELETE FROM releases');
  });
  let steps = versions.length;
  return {
    store,
    /** What the publisher says of its releases, here: this region has become home. */
    async bar(change: { floor?: number; withdrawn?: number }): Promise<void> {
      const metadata = nextPublisherTargets({
        ...{ namespace: 'acme', add: [], signers: [publisherKey('acme')] },
        current: await repository.file(`${steps}.acme.json`),
        floors: new Map(change.floor === undefined ? [] : [['digits', change.floor]]),
        withdrawn: new Map(change.withdrawn === undefined ? [] : [['digits', new Set([change.withdrawn])]]),
        expiresAtMs: clock.wall() + 86_400_000,
      });
      steps += 1;
      unwrap(await releases.takeStep({ namespace: 'acme', metadata: unwrap(metadata), pushedBy: 'tester' }));
    },
    /** `meanwhile` happens when the files of a release are about to be fetched. */
    async work(meanwhile: (releaseId: string) => Promise<void>): Promise<void> {
      const files = createMirrorFiles(world.core, {
        disk: openDisk(temporaryFolder(t)),
        limits: regionLimits,
        sources: async () => [],
        judge: async (releaseId) => {
          await meanwhile(releaseId);
          return ok();
        },
      });
      await files.work();
      assert.deepEqual(await files.pending(), { wanted: 0, refused: [] });
    },
    async shown(): Promise<string[]> {
      const models = await releases.list();
      return models.flatMap((model) =>
        model.versions
          .filter((one) => one.admitted && !one.withdrawn && !one.belowFloor)
          .map((one) => one.version),
      );
    },
  };
}

test('what its publisher barred before it came, or while it came, is not shown', async (t) => {
  const region = await mirroring(t, ['1.0.0', '2.0.0', '3.0.0']);
  await region.bar({ floor: 2 });
  await region.work(async (releaseId) => {
    if (releaseId === 'acme/digits@2.0.0') await region.bar({ withdrawn: 2 });
  });
  assert.deepEqual(await region.shown(), ['3.0.0']);
});

test('what the catalogue stopped to name while it came is not shown', async (t) => {
  const region = await mirroring(t, ['1.0.0', '2.0.0']);
  await region.work(async (releaseId) => {
    if (releaseId !== 'acme/digits@1.0.0') return;
    // As the mirror does where another home's catalogue does not have it.
    await region.store.tx((db) =>
      db.sql.run("DELETE FROM mirror_releases WHERE release_id = 'acme/digits@1.0.0'"),
    );
  });
  assert.deepEqual(await region.shown(), ['2.0.0']);
});

test('a region that was home asks for what its list names, whoever gave it the list, and once', async (t) => {
  const world = await openWorld(t);
  const { store, keyring, region } = world.core;
  const { qb } = store;
  for (const counter of [1, 2]) await world.push(`acme/digits@${counter}.0.0`, counter);
  const files = createRoleFiles({ qb, keyring, region });
  const wanted = () =>
    store.tx((db) => {
      // As where a device brought the list back: it never came with files.
      db.sql.run("DELETE FROM releases WHERE release_id = 'acme/digits@2.0.0'");
      db.sql.run('DELETE FROM mirror_releases');
      const held = readMirrorIn(db, qb, files) ?? assert.fail();
      const { root, timestamp, snapshot } = held;
      const numbers = raisedFloors(
        unwrap(parseRootFile(root)),
        noBounds,
        unwrap(parseTimestamp(timestamp ?? new Uint8Array())),
        unwrap(parseSnapshot(snapshot ?? new Uint8Array())),
      );
      writeMirrorIn(db, qb, files, { ...held, numbers, roots: [] }, world.clock.wall());
      return db.all(qb.selectFrom('mirror_releases').select('release_id')).map((row) => row.release_id);
    });
  assert.deepEqual(await wanted(), ['acme/digits@2.0.0']);
  assert.deepEqual(await wanted(), [], 'the same catalogue again');
});
