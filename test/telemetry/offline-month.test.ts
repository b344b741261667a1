// Why: a month offline at a record a second, scaled down with its cap: the file stays within it, what had to go is
// counted, and everything else is at the region once. Trusts: outbox-scene.ts for a region that checks everything.
// Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { startSender } from '../../agent/telemetry/sender.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { device, deviceId, trusted } from '../trust/region-fixture.ts';
import { offlineMonth } from './offline-month.ts';
import { hex, Region, record, region, until } from './outbox-scene.ts';

const scale = 32;
const outboxBytesMax = limits.outboxBytesMax / scale;
const records = Math.floor((30 * 86_400) / scale);

/** Mostly the application's; an event and a window of statistics a minute, logs of a chatty part. */
function classOf(second: number): TelemetryClass {
  if (second % 60 === 0) return 'event';
  if (second % 60 === 30) return 'stats';
  return second % 3 === 0 ? 'log' : 'app';
}

test('30 days offline at a record a second: within the cap, counted, and the rest stored once', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'lepton-month-'));
  const file = join(folder, 'outbox.sqlite');
  const store = await openStore(file, { synchronous: 'FULL', reclaim: true, migrations: outboxMigrations });
  const host = new Region();
  t.after(async () => {
    await store.close();
    await rm(folder, { recursive: true, force: true });
  });
  const owner = { deviceId, region, key: { epoch: 1, keyId: 'k1', publicKey: hex(host.keys.publicKey) } };
  const month = await offlineMonth({
    store,
    file,
    owner,
    records,
    limits: { outboxBytesMax },
    startMs: Date.UTC(2026, 0, 1),
    recordsPerAppend: 60,
    // Some that compress well, and some that do not, so that the cap is reached.
    make: (second) => ({
      className: classOf(second),
      record: record(second, hex(systemEntropy.bytes(20))),
    }),
  });
  const { counters } = month;
  assert.ok(month.fileBytesMax <= outboxBytesMax, `${month.fileBytesMax} of ${outboxBytesMax} bytes`);
  // Told to whoever made them: logs, where only what outranks them is held.
  assert.ok(month.refused < records / 100, `${month.refused} refused`);
  assert.equal(counters.producedRecords + month.refused, records);
  assert.ok(counters.droppedRecords > 0, 'the cap was reached');
  const ofClass = (name: TelemetryClass) => counters.dropped.filter((one) => one.class === name);
  assert.ok(ofClass('log').length > 0, 'logs go first');
  assert.deepEqual(ofClass('event'), [], 'events stay');
  // As after a restart: what is open is closed.
  await month.outbox.close();
  const outbox = await openOutbox({
    ...{ store, clock: systemClock, entropy: systemEntropy, deflate: systemDeflate },
    log: { emit: () => undefined },
    limits: { outboxBytesMax },
  });
  t.after(() => outbox.close());
  unwrap(await outbox.useKey(owner));
  const sender = startSender({
    outbox,
    bus: host.bus,
    signer: device,
    deviceId,
    region,
    regionRoot: () => trusted(),
    onRefused: ({ code, detail }) => assert.fail(`${code}: ${detail}`),
    clock: systemClock,
    entropy: systemEntropy,
    log: { emit: () => undefined },
    // One at a time: this region loses what comes while it opens another.
    window: 1,
  });
  t.after(() => sender.stop());
  host.receive = sender.receive;
  sender.connected();
  await until('the outbox is empty', () => outbox.counters().pendingBatches === 0);
  await sender.stop();
  const after = outbox.counters();
  assert.equal(after.droppedRecords, counters.droppedRecords, 'nothing more was dropped');
  const numbers = host.numbers();
  assert.equal(new Set(numbers).size, numbers.length, 'none twice');
  assert.equal(numbers.length, counters.producedRecords - after.droppedRecords, 'none lost');
  assert.equal(after.acknowledgedRecords, numbers.length);
  await store.flushLog();
  const { size } = await stat(file);
  assert.ok(size < outboxBytesMax / 4, `${size} of ${month.fileBytesMax} bytes are left`);
});
