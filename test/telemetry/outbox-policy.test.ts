// Why: what leaves a device before the region has it leaves by the policy, and is counted by class and reason.
// Trusts: outbox-scene.ts for a region that checks everything. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { tooOld } from '../../agent/telemetry/policy.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { TelemetryClass, TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { deviceId } from '../trust/region-fixture.ts';
import { hex, record, region, type Scene, scene, until } from './outbox-scene.ts';

const dayMs = 86_400_000;

/** About a kilobyte that no compression makes less. */
const bulky = (number: number): TelemetryRecord => record(number, randomBytes(500).toString('hex'));

async function fill(one: Scene, className: TelemetryClass, from: number, count: number): Promise<void> {
  for (let at = 0; at < count; at += 4) {
    const records = Array.from({ length: Math.min(4, count - at) }, (_, index) => bulky(from + at + index));
    unwrap(await one.outbox.append(className, records));
  }
}

/** The real clock, moved ahead by hand. */
function movedClock(): Clock & { ahead(ms: number): void } {
  let aheadMs = 0;
  return {
    wall: () => systemClock.wall() + aheadMs,
    mono: () => systemClock.mono() + aheadMs,
    timer: (ms) => systemClock.timer(ms),
    ahead: (ms) => {
      aheadMs += ms;
    },
  };
}

async function drained(one: Scene): Promise<void> {
  one.region.online = true;
  one.sender.connected();
  await until('the outbox is empty', () => one.outbox.counters().pendingBatches === 0);
}

test('a class over its share loses its own oldest, and costs no other class a record', async (t) => {
  const one = await scene(t, { online: false, limits: { batchRecordsMax: 10, outboxBytesMax: 200_000 } });
  await fill(one, 'app', 0, 40);
  await fill(one, 'log', 1_000, 100);
  const { dropped, droppedRecords, bytes } = one.outbox.counters();
  assert.deepEqual(
    dropped.map(({ class: name, reason }) => [name, reason]),
    [['log', 'share']],
  );
  assert.equal(dropped[0]?.records, droppedRecords);
  assert.ok(droppedRecords >= 70 && droppedRecords < 100, `${droppedRecords} of 100 logs`);
  assert.ok(bytes < 200_000);
  await drained(one);
  const numbers = one.region.numbers();
  assert.equal(numbers.filter((number) => number < 1_000).length, 40, 'every app record');
  const logs = numbers.filter((number) => number >= 1_000);
  assert.equal(logs.length, 100 - droppedRecords);
  assert.equal(logs.at(-1), 1_099, 'the newest stayed');
});

test('a flood of events leaves the application at least half of the outbox', async (t) => {
  const one = await scene(t, { online: false, limits: { batchRecordsMax: 10, outboxBytesMax: 200_000 } });
  await fill(one, 'app', 0, 80);
  await fill(one, 'event', 1_000, 300);
  await drained(one);
  const apps = one.region.numbers().filter((number) => number < 1_000);
  // What is left of dropped batches takes some of its half.
  assert.ok(apps.length >= 50, `${apps.length} of 80`);
  const lost = one.outbox.counters().dropped.filter(({ class: name }) => name === 'event');
  assert.deepEqual(
    lost.map(({ reason }) => reason),
    ['share'],
  );
});

test('what waited longer than the retention is dropped and counted, and its heads keep the chain', async (t) => {
  const clock = movedClock();
  const one = await scene(t, {
    online: false,
    clock,
    limits: { batchRecordsMax: 10, retentionMs: 30 * dayMs },
  });
  await fill(one, 'app', 0, 30);
  await one.close();
  await one.again();
  clock.ahead(29 * dayMs);
  await fill(one, 'app', 100, 20);
  assert.equal(one.outbox.counters().droppedRecords, 0, 'after 29 days');
  clock.ahead(2 * dayMs);
  await fill(one, 'app', 200, 5);
  const expected = [{ class: 'app', reason: 'age', records: 30 }];
  assert.deepEqual(one.outbox.counters().dropped, expected);
  await one.close();
  await one.again();
  assert.deepEqual(one.outbox.counters().dropped, expected, 'after a restart');
  await drained(one);
  assert.equal(one.outbox.counters().acknowledgedRecords, 25);
  const numbers = one.region.numbers();
  assert.deepEqual([numbers[0], numbers.at(-1), numbers.length], [100, 204, 25]);
});

test('a backlog that grew too old is not sent when the line comes back', async (t) => {
  const clock = movedClock();
  const one = await scene(t, {
    online: false,
    clock,
    limits: { batchRecordsMax: 10, retentionMs: 30 * dayMs },
  });
  await fill(one, 'app', 0, 10);
  await one.close();
  clock.ahead(31 * dayMs);
  await one.again();
  await drained(one);
  assert.deepEqual(one.region.numbers(), []);
  assert.equal(one.region.stored[0]?.statement.format, 'tombstone');
});

test('a clock that was never set makes nothing too old', () => {
  const nowMs = Date.UTC(2026, 5, 1);
  const bounds = tooOld(nowMs, 30 * dayMs);
  assert.ok(bounds !== null && bounds.fromMs > Date.UTC(2000, 0, 1));
  assert.equal(bounds.beforeMs, nowMs - 30 * dayMs);
  assert.equal(tooOld(5 * dayMs, dayMs), null, 'a device that thinks it is 1970');
});

test('what the region had stored before it was dropped is counted as acknowledged after all', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 10, outboxBytesMax: 80_000 } });
  // The region stores, and every answer is lost.
  one.region.deliver = () => undefined;
  await fill(one, 'app', 0, 40);
  await until('something is stored', () => one.region.stored.length > 0);
  one.region.online = false;
  one.sender.connected();
  await fill(one, 'app', 100, 80);
  const before = one.outbox.counters();
  assert.ok(before.droppedRecords > 0);
  one.region.deliver = (answer) => one.region.send(answer);
  await drained(one);
  const { acknowledgedRecords, droppedRecords, dropped } = one.outbox.counters();
  assert.equal(acknowledgedRecords, one.region.numbers().length);
  assert.equal(acknowledgedRecords + droppedRecords, 120);
  assert.ok(droppedRecords < before.droppedRecords, 'some had been stored');
  assert.equal(
    dropped.reduce((sum, { records }) => sum + records, 0),
    droppedRecords,
  );
});

test('a new enrolment counts what the one before could not send, by class', async (t) => {
  const one = await scene(t, { online: false });
  await fill(one, 'app', 0, 3);
  await fill(one, 'log', 0, 2);
  const key = { epoch: 2, keyId: 'k2', publicKey: hex(one.region.keys.publicKey) };
  unwrap(await one.outbox.useKey({ deviceId, region, key }));
  const byClass = one.outbox
    .counters()
    .dropped.map((dropped) => [dropped.class, dropped.reason, dropped.records]);
  assert.deepEqual(byClass.sort(), [
    ['app', 'reset', 3],
    ['log', 'reset', 2],
  ]);
});
