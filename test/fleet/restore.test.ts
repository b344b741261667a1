// Why: a registry that was restored from an old backup is healed by what devices hold, and by nothing else.
// Trusts: holder.ts for a device's side. Must never: check prose; codes, numbers and states only.

import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { type Envelope, encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import {
  dayMs,
  hexOf,
  identityModel,
  preparePush,
  publisherKey,
  temporaryFolder,
} from '../registry-core/support.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { giveBack, type Holder } from './holder.ts';
import { goOn, holdersOf, namespaces, restored, running } from './restored-fleet.ts';
import { openWorld, region, rolloutFile, type World } from './world.ts';

test('a restored registry is healed by its devices, and all of them go on', async (t) => {
  const { world, holders, batches } = await restored(t, 3);
  const [one, two, three] = holders;
  assert.ok(one && two && three);
  const epochBefore = one.assignment?.epoch ?? 0;
  assert.ok(epochBefore > 2);

  // Numbers alone, in questions and reports, change nothing.
  one.device.says = { held: one.versions() };
  one.device.report();
  const asked = await one.refresh(namespaces);
  await world.settle();
  assert.deepEqual(asked.behind, ['timestamp', 'snapshot', 'targets', 'ns/acme', 'ns/beta']);
  assert.equal((await world.events('restore-suspected')).length, 1);
  assert.equal((await world.events('restore-adopted')).length, 0);

  // What it holds, signed, does.
  one.giveBack(asked.behind);
  await world.settle();
  const healed = await one.refresh(namespaces);
  assert.deepEqual(healed, { refusal: null, behind: [] });
  assert.ok((await world.repository.publisher('beta')) !== null);
  // The others need to give back nothing, and what they give back all the same is no attack.
  const before = two.versions();
  assert.deepEqual(await two.refresh(namespaces), { refusal: null, behind: [] });
  assert.ok(two.versions().timestamp > before.timestamp);
  three.giveBack(asked.behind);
  await world.settle();
  assert.deepEqual(await three.refresh(namespaces), { refusal: null, behind: [] });
  assert.equal((await world.events('held-invalid')).length, 0);
  assert.equal(
    (await world.store.tx((db) => db.all(world.store.qb.selectFrom('version_floors').selectAll()))).length,
    0,
  );

  // Releases whose bytes are gone are written down and offered to nobody.
  const lost = (await world.events('lost-in-restore')).map(
    ({ detail }) => /release (\S+):/.exec(detail)?.[1],
  );
  assert.deepEqual(new Set(lost), new Set(['acme/digits@2.0.0', 'beta/voice@1.0.0']));
  assert.equal(await world.releases.find('acme/digits@2.0.0'), null);

  // Assignments: each gives its own back and is issued the next epoch, with what this registry wants.
  for (const holder of holders) {
    assert.equal(await holder.follow(), 'assignment-replayed');
    await world.settle();
    assert.equal(await holder.follow(), 'taken');
    await world.settle();
    assert.equal(holder.assignment?.epoch, epochBefore + 1);
    assert.equal(await running(world, holder), 'acme/digits@1.0.0');
  }

  // Telemetry goes on after what was acknowledged; nothing is taken twice, and what is gone is known.
  for (const holder of holders) assert.equal(await holder.send(recordsOf(3, 9)), 'stored');
  const records = createTelemetryRecords(world.core);
  const [counts] = await records.counts(one.device.id);
  assert.deepEqual([counts?.batches, counts?.records, counts?.lostBatches], [2, 6, 2]);
  assert.deepEqual(
    (await records.lost(one.device.id)).map((row) => [row.firstSequence, row.lastSequence]),
    [[2, 3]],
  );
  // A device whose answer was lost with them has them still: they are taken, once. Whoever recorded one can do no more than bring it
  // back, and does not make it look as if there were two devices.
  const [, second, third] = batches;
  assert.ok(second && third);
  for (const again of [third, third]) assert.equal(await one.exchange(again), 'stored');
  assert.deepEqual(
    (await records.lost(one.device.id)).map((row) => [row.firstSequence, row.lastSequence]),
    [[2, 2]],
  );
  for (const again of [second, second]) assert.equal(await one.exchange(again), 'stored');
  const [found] = await records.counts(one.device.id);
  assert.deepEqual([found?.batches, found?.records, found?.lostBatches], [4, 12, 0]);
  assert.equal((await world.view(one.device)).status, 'active');

  // The next release reaches everybody.
  await world.push('acme/digits@3.0.0', 3);
  await world.start(rolloutFile('digits-3', { release: 'acme/digits@3.0.0', as: 'digits' }));
  await goOn(holders);
  for (const holder of holders) assert.equal(await running(world, holder), 'acme/digits@3.0.0');

  // And all of it outlives the next restart.
  await world.restart();
  for (const holder of holders) {
    holder.moveTo(world);
    assert.deepEqual(await holder.refresh(namespaces), { refusal: null, behind: [] });
    assert.equal(await holder.follow(), 'taken');
  }
});

test('brought back by a person who said so: devices keep what they were last told, until a rollout says otherwise', async (t) => {
  const { world, holders } = await restored(t, 2, async (folder, nowMs) => {
    const store = await openStore(join(folder, 'registry.sqlite'), { synchronous: 'FULL' });
    const mark = { backup: 'b', takenAtMs: 1, restoredAtMs: nowMs, erasures: 'none' };
    await store.tx((db) => {
      db.run("INSERT INTO settings VALUES ('restored', ?)", JSON.stringify(mark));
      // Of a model that was taken away after the backup.
      db.run(
        `INSERT INTO desired (device_id, as_name, release_id, manifest_sha256, manifest_bytes, counter, policy)
         SELECT device_id, 'old', 'acme/old@1.0.0', manifest_sha256, manifest_bytes, 1, policy FROM desired`,
      );
    });
    await store.close();
  });
  const [one, two] = holders;
  assert.ok(one && two);
  for (const holder of holders) {
    holder.giveBack((await holder.refresh(namespaces)).behind);
    await world.settle();
  }
  const epochBefore = one.assignment?.epoch ?? 0;
  assert.equal(await one.follow(), 'assignment-replayed');
  await world.settle();
  await goOn([one]);
  assert.ok((one.assignment?.epoch ?? 0) > epochBefore);
  const taken = await world.store.tx(({ sql }) =>
    sql.all(
      "SELECT release_id AS id, manifest_bytes AS bytes FROM desired WHERE as_name = 'old' AND device_id = ?",
      one.device.id,
    ),
  );
  assert.deepEqual(taken, [{ id: 'acme/old', bytes: 0 }]);
  assert.deepEqual(
    (await world.view(one.device)).models.map(({ name, active }) => [name, active]),
    [
      ['digits', 'acme/digits@2.0.0'],
      ['voice', 'beta/voice@1.0.0'],
    ],
  );

  // The other one comes back after a decision of since then: that one holds, and the rest is as it was.
  await world.push('acme/digits@3.0.0', 3);
  await world.start(rolloutFile('digits-3', { release: 'acme/digits@3.0.0', as: 'digits' }));
  assert.equal(await two.follow(), 'assignment-replayed');
  await world.settle();
  await goOn(holders);
  for (const holder of holders)
    assert.deepEqual(
      (await world.view(holder.device)).models.map(({ active }) => active),
      ['acme/digits@3.0.0', 'beta/voice@1.0.0'],
    );
});

test('only a timestamp was lost: the next one is above it', async (t) => {
  const folder = temporaryFolder(t);
  const backup = temporaryFolder(t);
  const first = await openWorld(t, { folder, chance: 'first' });
  const [holder] = await holdersOf(first, 1);
  assert.ok(holder);
  await first.close();
  cpSync(folder, backup, { recursive: true });
  const second = await openWorld(t, { folder, chance: 'second', clock: first.clock });
  holder.moveTo(second);
  for (let index = 0; index < 3; index += 1) {
    await second.repository.withFiles('test', (db, files) => files.signTimestamp(db, second.clock.wall()));
  }
  await holder.refresh([]);
  await second.close();
  const third = await openWorld(t, { folder: backup, chance: 'third', clock: first.clock });
  holder.moveTo(third);
  const { refusal, behind } = await holder.refresh([]);
  assert.deepEqual([refusal, behind], ['metadata-rollback', ['timestamp']]);
  holder.giveBack(behind);
  await third.settle();
  await third.pass(5_000);
  assert.deepEqual(await holder.refresh([]), { refusal: null, behind: [] });
});

test('a healing that was cut off after the proof goes on at the next start', async (t) => {
  const { world, holders } = await restored(t, 1);
  const [one] = holders;
  assert.ok(one);
  one.giveBack(['timestamp', 'snapshot']);
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal((await world.events('restore-adopted')).length, 2);
  await world.restart();
  one.moveTo(world);
  one.device.online();
  one.giveBack(['targets', 'ns/acme', 'ns/beta']);
  await world.pass(5_000);
  assert.deepEqual(await one.refresh(namespaces), { refusal: null, behind: [] });
});

test('publishers that were named since the restore are kept beside those from before', async (t) => {
  const { world, holders } = await restored(t, 1);
  const [one] = holders;
  assert.ok(one);
  // The same number as the targets that devices hold, and another content.
  unwrap(await world.repository.delegate('gamma', [hexOf(publisherKey('gamma'))], 1));
  const { behind } = await one.refresh(namespaces);
  assert.deepEqual(behind, ['timestamp', 'snapshot', 'targets', 'ns/acme', 'ns/beta']);
  one.giveBack(behind);
  await world.settle();
  assert.deepEqual(await one.refresh(namespaces), { refusal: null, behind: [] });
  assert.deepEqual(
    (await world.repository.publishers()).map(({ namespace }) => namespace),
    ['acme', 'beta', 'gamma'],
  );
});

test('a release that was pushed after the restore and that devices’ catalogue does not name is not offered', async (t) => {
  const { world, holders } = await restored(t, 1);
  const [one] = holders;
  assert.ok(one);
  // Devices hold version 2 of acme with digits@2.0.0; here version 2 names another release, and devices go further.
  const before = await restoredNamespace(world, one);
  await world.push('acme/faces@1.0.0', 1);
  giveBack(world, one.device, 'ns/acme', before);
  one.giveBack(['timestamp', 'snapshot', 'targets', 'ns/beta']);
  await world.settle();
  const release = await world.store.tx((db) =>
    db.first(world.store.qb.selectFrom('releases').selectAll().where('release_id', '=', 'acme/faces@1.0.0')),
  );
  assert.equal(release?.admitted, 0);
  assert.ok(
    (await world.events('lost-in-restore')).some(({ detail }) => detail.includes('acme/faces@1.0.0')),
  );
});

/** The namespace as devices would hold it after one more release that this registry never saw. */
async function restoredNamespace(world: World, holder: Holder): Promise<Uint8Array> {
  const current = holder.trust.delegated['acme'] ?? null;
  const { metadata } = preparePush({
    releaseId: 'acme/digits@2.5.0',
    model: identityModel('acme/digits@2.5.0'),
    current,
    counter: 3,
    signers: [publisherKey('acme')],
    expiresAtMs: world.clock.wall() + 300 * dayMs,
  });
  return metadata;
}

test('a device of a registry that ran twice holds the other assignment of the same epoch: the next is above it', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const ours = (await device.assignment()) ?? assert.fail();
  const director = world.keyring.signer('director');
  const other = signAssignment({ ...ours, labels: { signed: 'by-the-other' } }, director);
  const give = async (envelope: Envelope) => {
    giveBack(world, device, 'assignment', encodeMessage(envelope));
    await world.settle();
    return (await device.assignment())?.epoch;
  };
  assert.equal(await give(signAssignment(ours, director)), ours.epoch, 'its own changes nothing');
  assert.equal(await give(other), ours.epoch + 1);
  assert.equal(await give(other), ours.epoch + 1, 'and only once');
});

test('an assignment that the broker lost is published again when the device still reports the one before', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await device.obey();
  await world.settle();
  unwrap(await world.fleet.devices.label(device.id, { moved: 'yes' }));
  await world.settle();
  const topic = deviceTopic(region, device.id, 'desired');
  world.bus.retained.delete(topic);
  device.report();
  await world.settle();
  assert.ok(!world.bus.retained.has(topic), 'it may be on its way');
  await world.pass(world.core.limits.republishAfterMs + 1_000);
  device.report();
  await world.settle();
  assert.ok(world.bus.retained.has(topic));
});
