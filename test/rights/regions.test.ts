// Why: an erasure reaches every region and each signs for itself; a region that lost one gets it back from the others.
// Trusts: test/regions/support.ts for real registries on real doors. Must never: hand a certificate over by itself.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { restoreBackup } from '../../registry/cli/restore-backup.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { checkErasure } from '../../shared/trust/erasure.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { ErasureRegions } from '../../shared/wire/erasure.ts';
import { joinRegion, type Region, startRegion, until } from '../regions/support.ts';

const by = { untilMs: null, requestedBy: 'alice', reason: null };

/** A device as an enrolment leaves it, with a telemetry key. */
async function enrolled(region: Region, deviceId: string): Promise<void> {
  const { store, telemetryKeys } = region.registry.parts;
  await store.tx(({ sql }) =>
    sql.run(
      `INSERT INTO devices (device_id, public_key, status, claim_id, labels, timezone, presence, presence_at_ms, agent,
         telemetry_epoch, report_counter, reported_epoch, verified_time_ms, refusal_id_last, enrolled_at_ms,
         certificate_expires_at_ms)
       VALUES (?, x'00', 'active', 'c', '{}', 'UTC', 'unknown', 0, '{}', 0, 0, 0, 0, 0, 0, 0)`,
      deviceId,
    ),
  );
  await telemetryKeys.ensure([{ deviceId, epoch: 0 }]);
}

async function acrossOf(region: Region, deviceId: string): Promise<ErasureRegions['regions'][number]> {
  const found = await region.registry.parts.fleet.erasures.acrossRegions();
  const [first] = found.find((one) => one.deviceId === deviceId)?.regions ?? [];
  return first ?? assert.fail('it was not asked of any region');
}

async function isReadable(region: Region): Promise<boolean> {
  const records = createTelemetryRecords(region.registry.parts);
  return (await records.read({}, { cursor: null, limit: null })).ok;
}

test('asked of every region: what is another’s is erased and signed for, what is one’s own waits for its people', async (t) => {
  const home = await startRegion(t, 'south');
  const peer = await joinRegion(t, home, 'north');
  const [gone, shared, moved] = ['a'.repeat(32), 'b'.repeat(32), 'd'.repeat(32)];
  await enrolled(home, gone);
  // It lived there before: its region is the one that asks.
  await enrolled(home, moved);
  await enrolled(peer, moved);
  await peer.registry.parts.store.tx(({ sql }) =>
    sql.run("UPDATE devices SET moved_to = 'south' WHERE device_id = ?", moved),
  );
  await enrolled(home, shared);
  await enrolled(peer, shared);
  const { fleet } = home.registry.parts;
  for (const device of [shared, moved])
    unwrap(await fleet.erasures.erase(device, { ...by, allRegions: true }));
  // Cut off while it is asked: it catches up.
  await peer.stop();
  const erasure = unwrap(await fleet.erasures.erase(gone, { ...by, allRegions: true }));
  assert.equal((await acrossOf(home, gone)).state, 'asked');
  await peer.start();
  await until('the other region signed', async () => (await acrossOf(home, gone)).state === 'done');

  const [theirs] = (await peer.registry.parts.fleet.erasures.list()).filter(
    ({ statement }) => statement.deviceId === gone,
  );
  assert.ok(theirs);
  const { erasureId, requestedBy, region } = theirs.statement;
  assert.deepEqual(
    [erasureId, requestedBy, region],
    [erasure.statement.erasureId, 'region:south/alice', 'north'],
  );
  const root = unwrap(parseRegionRoot(await peer.registry.parts.repository.regionRoot()));
  assert.equal(checkErasure(theirs.certificate, root).ok, true);

  await until('it is left to people', async () => (await acrossOf(home, shared)).state === 'declined');
  assert.equal((await peer.registry.parts.telemetryKeys.ofDevice(shared))[0]?.erasureId, null);
  unwrap(await peer.registry.parts.fleet.erasures.erase(shared, { ...by, requestedBy: 'bob' }));
  await until('their own decision counts', async () => (await acrossOf(home, shared)).state === 'done');
  assert.equal((await acrossOf(home, moved)).state, 'done');
  const keys = await peer.registry.parts.telemetryKeys.ofDevice(moved);
  assert.ok(keys.every(({ publicKey }) => publicKey === null));
  // Lists that are read anew bring nothing twice.
  const kept = await home.registry.parts.store.tx(({ sql }) => sql.all('SELECT * FROM peer_erasures'));
  assert.equal(kept.length, 3);
});

test('a region restored from before an erasure gets it back from its peer, and stays closed until then', async (t) => {
  const home = await startRegion(t, 'south');
  const peer = await joinRegion(t, home, 'north');
  const device = 'c'.repeat(32);
  await enrolled(peer, device);
  const { backups } = peer.registry.parts;
  assert.ok(backups);
  const wish = { withTelemetryKeys: true, passphrase: null, user: 'alice' };
  const { id } = unwrap(await backups.start(wish));
  const again = await backups.start(wish);
  assert.equal(again.ok ? 'ok' : again.refusal.code, 'conflict', 'one at a time');
  await backups.idle();
  const taken = unwrap(await backups.status(id));
  assert.equal(taken.state, 'done', taken.failure ?? '');
  const before = peer.registry.parts.incarnation;

  const erasure = unwrap(await peer.registry.parts.fleet.erasures.erase(device, by));
  const heldIn = (): Promise<unknown[]> =>
    home.registry.parts.store.tx(({ sql }) =>
      sql.all('SELECT 1 FROM peer_erasures WHERE erasure_id = ?', erasure.statement.erasureId),
    );
  await until('the peer keeps the certificate', async () => (await heldIn()).length === 1);
  await peer.stop();
  await home.stop();

  const data = join(peer.folder, 'restored');
  const restored = await restoreBackup({
    ...{ from: taken.path, data, erasures: null, noPeerErasures: false, withoutTelemetryKeys: false },
    ...{ nowMs: systemClock.wall(), passphrase: () => '', onTotal: () => undefined, onRead: () => undefined },
  });
  assert.deepEqual([restored.waitsFor, restored.telemetryKeys], ['peers', 'usable']);
  await peer.start({ dataFolder: data });
  const { telemetryKeys, fleet, incarnation } = peer.registry.parts;
  assert.notEqual(incarnation, before);
  assert.equal((await telemetryKeys.ofDevice(device))[0]?.erasureId, null, 'nobody has told it yet');
  assert.equal(await isReadable(peer), false);
  await home.start();
  await until('it was told and opened', () => isReadable(peer));
  assert.deepEqual(await fleet.erasures.list(), [erasure]);
  await until('the keys are gone again', async () => {
    const keys = await telemetryKeys.ofDevice(device);
    return keys.every(
      ({ keyId, erasureId }) =>
        erasureId !== null || !erasure.statement.keys.some((one) => one.keyId === keyId),
    );
  });
  assert.equal(peer.registry.parts.withholding.view()?.settled?.by, 'peers');
});
