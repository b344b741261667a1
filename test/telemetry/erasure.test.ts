// Why: what was erased opens nowhere: not in the database, not in a backup, not when it comes late; and others' records do.
// Trusts: ingest-world.ts. Must never: look for what was erased only where the code itself would look.

import assert from 'node:assert/strict';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { registryMigrations, registryStore } from '../../registry/store/open.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { checkErasure } from '../../shared/trust/erasure.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { temporaryFolder } from '../registry-core/support.ts';
import { recordsOf } from './batch-maker.ts';
import { type IngestWorld, openIngestWorld, type Sender } from './ingest-world.ts';

const by = { untilMs: null, requestedBy: 'alice', reason: 'asked for by the person' };

async function twoSenders(world: IngestWorld): Promise<[Sender, Sender]> {
  const [one, other] = [await world.sender(), await world.sender()];
  for (const sender of [one, other])
    await sender.exchange(
      (await sender.maker.make(recordsOf(3, 0, 'acme/digits@1.0.0'))).message,
      (await sender.maker.make(recordsOf(2, 3))).message,
    );
  return [one, other];
}

async function countOf(world: IngestWorld, sender: Sender): Promise<number> {
  return (await world.records({ device: sender.id })).length;
}

test('one device is erased, the other stays; the region signs for it', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = await twoSenders(world);
  assert.deepEqual([await countOf(world, one), await countOf(world, other)], [5, 5]);

  const erasure = unwrap(await world.fleet.erasures.erase(one.id, by));
  assert.deepEqual([await countOf(world, one), await countOf(world, other)], [0, 5]);
  const regionRoot = unwrap(parseRegionRoot(await world.repository.regionRoot()));
  const statement = unwrap(checkErasure(erasure.certificate, regionRoot));
  assert.deepEqual(statement, erasure.statement);
  assert.deepEqual(
    [statement.deviceId, statement.batches, statement.records, statement.keys.length, statement.requestedBy],
    [one.id, 2, 5, 1, 'alice'],
  );
  assert.deepEqual(await world.fleet.erasures.list(), [erasure]);

  // Changed in one letter it proves nothing.
  const forged = { ...erasure.certificate, payload: erasure.certificate.payload.replace(/.$/, 'A') };
  assert.equal(checkErasure(forged, regionRoot).ok, false);
  const missing = await world.fleet.erasures.erase('0'.repeat(32), by);
  assert.equal(missing.ok ? 'ok' : missing.refusal.code, 'not-found');
});

test('what was sealed to the key and comes late is taken, counted and opens nowhere; the device gets another key', async (t) => {
  const world = await openIngestWorld(t);
  const [one] = await twoSenders(world);
  const late = await one.maker.make(recordsOf(4, 5));
  unwrap(await world.fleet.erasures.erase(one.id, by));
  await world.settle();
  assert.deepEqual(await one.exchange(late.message), [{ status: 'stored', records: 0 }]);
  assert.equal(await countOf(world, one), 0);
  const key = (await one.device.assignment())?.telemetry;
  assert.ok(key && key.keyId !== one.maker.key.keyId);
  const [counts] = await createTelemetryRecords(world.core).counts(one.id);
  assert.deepEqual([counts?.records, counts?.erased], [5, 9]);
});

test('a batch that was opened while its key was being deleted leaves nothing', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = await twoSenders(world);
  const { telemetryKeys } = world.core;
  const { open } = telemetryKeys;
  t.after(() => {
    telemetryKeys.open = open;
  });
  telemetryKeys.open = async (deviceId, epoch, keyId) => {
    const pair = await open(deviceId, epoch, keyId);
    if (deviceId === one.id) unwrap(await world.fleet.erasures.erase(one.id, by));
    return pair;
  };
  const late = await one.maker.make(recordsOf(4, 5));
  assert.deepEqual(await one.exchange(late.message), [{ status: 'stored', records: 0 }]);
  const left = await world.store.tx(({ sql }) =>
    sql.all<{ device: string }>(
      `SELECT device_id AS device FROM telemetry_sealed JOIN telemetry_batches USING (batch_id)
       UNION ALL SELECT device_id FROM prediction_places UNION ALL SELECT device_id FROM rollup_requests`,
    ),
  );
  assert.deepEqual([...new Set(left.map(({ device }) => device))], [other.id]);
  const [counts] = await createTelemetryRecords(world.core).counts(one.id);
  assert.deepEqual([counts?.records, counts?.erased], [5, 9]);
});

test('no file of a registry holds a record in clear, and after an erasure no key of it', async (t) => {
  const folder = temporaryFolder(t);
  const world = await openIngestWorld(t, { folder });
  const [one, other] = await twoSenders(world);
  const filesWith = (bytes: Uint8Array): string[] =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((file) => readFileSync(file).includes(Buffer.from(bytes)));
  const marker = Buffer.from('"number"');
  assert.match(JSON.stringify(await world.records()), /"number"/);
  assert.deepEqual(filesWith(marker), []);

  const keyId = (await one.device.assignment())?.telemetry?.keyId ?? '';
  const pair = await world.core.telemetryKeys.open(one.id, 0, keyId);
  assert.ok(pair && filesWith(pair.secretKey).length > 0, 'it can be found');
  const backup = join(folder, 'backup.sqlite');
  await world.store.flushLog();
  copyFileSync(join(folder, 'registry.sqlite'), backup);

  unwrap(await world.fleet.erasures.erase(one.id, by));
  assert.deepEqual(filesWith(pair.secretKey), []);

  // The backup knows of no erasure; beside the keys as they are it opens what is left to open.
  const old = registryStore(
    await openStore(backup, { synchronous: 'FULL', migrations: registryMigrations() }),
  );
  t.after(() => old.close());
  const lines = unwrap(
    await createTelemetryRecords({ ...world.core, store: old }).read({}, { cursor: null, limit: null }),
  );
  const opened = await text(lines);
  assert.equal(opened.includes(one.id), false);
  assert.equal(opened.split('\n').filter((line) => line.includes(other.id)).length, 5);
});

test('an erasure that was cut off is finished at the next start', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = await twoSenders(world);
  const { tx } = world.store;
  let left = 1;
  world.store.tx = (work) => {
    left -= 1;
    return left < 0 ? Promise.reject(new Error('the power failed')) : tx(work);
  };
  await assert.rejects(world.fleet.erasures.erase(one.id, by), /the power failed/);
  world.store.tx = tx;
  await world.restart();
  assert.deepEqual([await countOf(world, one), await countOf(world, other)], [0, 5]);
  const [erasure] = await world.fleet.erasures.list();
  assert.deepEqual([erasure?.statement.records, erasure?.statement.keys.length], [5, 1]);
});

test('records from before a day go, those sealed to a later key stay', async (t) => {
  const world = await openIngestWorld(t);
  const [one] = await twoSenders(world);
  const dayMs = 86_400_000;
  world.clock.advance(29 * dayMs);
  await world.settle();
  world.clock.advance(2 * dayMs);
  await world.settle();
  const key = (await one.device.assignment())?.telemetry;
  assert.ok(key && key.keyId !== one.maker.key.keyId, 'its period is over');
  one.maker.key = key;
  await one.exchange((await one.maker.make(recordsOf(1, 5))).message);
  unwrap(await world.fleet.erasures.erase(one.id, { ...by, untilMs: world.clock.wall() - dayMs }));
  assert.equal(await countOf(world, one), 1);
});

test('a stored batch that rotted is a fault, and no empty answer', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = await twoSenders(world);
  await world.store.tx((db) =>
    db.sql.run(
      `UPDATE telemetry_sealed SET sealed = zeroblob(60) WHERE batch_id =
         (SELECT min(batch_id) FROM telemetry_batches WHERE device_id = ?)`,
      one.id,
    ),
  );
  await assert.rejects(countOf(world, one), { code: 'state-corrupt' });
  assert.equal(await countOf(world, other), 5);
});
