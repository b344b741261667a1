// Why: a region that is behind makes its devices slower, not poorer, and a device that answers requests sends in pieces.
// Trusts: outbox-scene.ts for devices, a queue of ingest's own for the region. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  answered,
  askedToPause,
  gapMaxMs,
  type Pace,
  paced,
  reconnected,
  startPace,
  unanswered,
  windowOf,
} from '../../agent/telemetry/pace.ts';
import { telemetryLimits } from '../../registry/telemetry/limits.ts';
import { pauseFor, rateAfter } from '../../registry/telemetry/pressure.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { handClock, settle } from '../agent/hand-clock.ts';
import { record, scene, until } from './outbox-scene.ts';

const ask = (pace: Pace, nowMs: number, pauseMs = 1_000): Pace =>
  askedToPause(pace, { pauseMs, nowMs, chance: 0 });

test('the window is halved once for each pause, never below one, and grows by one for each window stored', () => {
  let pace = startPace(8);
  pace = ask(pace, 0);
  assert.deepEqual([windowOf(pace), pace.notBeforeMs], [4, 1_000]);
  pace = ask(pace, 500);
  assert.deepEqual(
    [windowOf(pace), pace.notBeforeMs],
    [4, 1_000],
    'the rest of the same window says it again',
  );
  for (let nowMs = 1_000; nowMs < 10_000; nowMs += 1_000) pace = ask(pace, nowMs);
  assert.equal(windowOf(pace), 1);
  for (let more = 0; more < 4; more += 1) pace = answered(pace, 8);
  assert.equal(windowOf(pace), 3);
  for (let more = 0; more < 100; more += 1) pace = answered(pace, 8);
  assert.equal(windowOf(pace), 8, 'and not above what it was');
  assert.equal(windowOf(unanswered(pace)), 4);
  assert.equal(reconnected(ask(pace, 0)).notBeforeMs, Number.NEGATIVE_INFINITY);
});

test('a pause is spread over devices, and no region can silence one', () => {
  const notBefore = [0, 0.5, 0.999].map(
    (chance) => askedToPause(startPace(4), { pauseMs: 1_000, nowMs: 0, chance }).notBeforeMs,
  );
  assert.deepEqual(notBefore, [1_000, 1_500, 1_999]);
  const forever = askedToPause(startPace(4), { pauseMs: 1e15, nowMs: 0, chance: 0.5 });
  assert.ok(forever.notBeforeMs <= 2 * limits.telemetryPauseMsMax);
});

test('while requests are answered batches go one by one; a backlog that grows all the same goes faster', () => {
  let pace = startPace(4);
  const idle = paced(pace, { busy: false, bytes: 100, nowMs: 0 });
  assert.equal(idle.gapMs, 0);
  const gaps: number[] = [];
  const step = (bytes: number, nowMs: number): void => {
    const next = paced(pace, { busy: true, bytes, nowMs });
    pace = next.pace;
    gaps.push(next.gapMs);
  };
  for (let at = 0; at < 12; at += 1) step(1_000 + at, at * 5_000);
  assert.equal(gaps[0], gapMaxMs);
  assert.ok((gaps.at(-1) ?? 0) <= 4 && (gaps.at(-1) ?? 0) > 0, `${gaps}`);
  for (let at = 12; at < 60; at += 1) step(1_000 - at, at * 5_000);
  assert.equal(gaps.at(-1), gapMaxMs, 'it shrinks again');
});

test('a region asks for the time that its queue needs, and for nothing while that is short', () => {
  const full = 1_000_000;
  assert.equal(pauseFor(0.1 * full, full, 100), null);
  assert.equal(pauseFor(full, full, null), telemetryLimits.pauseMsMin);
  assert.equal(pauseFor(full, full, 100), 8_750);
  assert.equal(pauseFor(full, full, 0.001), telemetryLimits.pauseMsMax);
  let rate = rateAfter(null, { bytes: 1_000, ms: 10 });
  assert.equal(rate, 100);
  for (let more = 0; more < 50; more += 1) rate = rateAfter(rate, { bytes: 500, ms: 10 });
  assert.ok(rate !== null && Math.abs(rate - 50) < 1);
});

test('a device that is asked to pause drops nothing and sends what waits afterwards', async (t) => {
  // One at a time: this region loses what comes while it opens another.
  const one = await scene(t, { limits: { batchRecordsMax: 10 }, sender: { window: 1 } });
  one.region.deliver = (answer) =>
    one.region.send(answer.sequence % 4 === 0 ? { ...answer, pauseMs: 20 } : answer);
  one.region.online = false;
  for (let at = 0; at < 40; at += 1) {
    unwrap(
      await one.outbox.append(
        'app',
        Array.from({ length: 10 }, (_, index) => record(at * 10 + index)),
      ),
    );
  }
  one.region.online = true;
  one.sender.connected();
  await until('empty', () => one.outbox.counters().pendingBatches === 0);
  assert.ok(one.events.includes('telemetry.paused'));
  const { acknowledgedRecords, droppedRecords } = one.outbox.counters();
  assert.deepEqual([acknowledgedRecords, droppedRecords], [400, 0]);
  assert.deepEqual(
    one.region.numbers(),
    Array.from({ length: 400 }, (_, index) => index),
  );
});

test('what a region asks for is kept to: nothing new before its time', async (t) => {
  const clock = handClock();
  const one = await scene(t, { limits: { batchRecordsMax: 10 }, sender: { window: 1, clock } });
  one.region.deliver = (answer) => one.region.send({ ...answer, pauseMs: 5_000 });
  for (let at = 0; at < 3; at += 1)
    unwrap(
      await one.outbox.append(
        'app',
        Array.from({ length: 10 }, (_, index) => record(at * 10 + index)),
      ),
    );
  const acknowledged = (batches: number) => (): boolean =>
    one.outbox.counters().acknowledgedRecords === 10 * batches;
  await until('the first batch is stored', acknowledged(1));
  for (let turn = 0; turn < 200; turn += 1) await settle();
  assert.deepEqual(one.region.heard, [1]);
  await clock.advance(4_999);
  for (let turn = 0; turn < 200; turn += 1) await settle();
  assert.deepEqual(one.region.heard, [1], 'not before it');
  // Up to twice as long, drawn by the device.
  await clock.advance(5_001);
  await until('the second batch is stored', acknowledged(2));
  await clock.advance(10_000);
  await until('the third batch is stored', acknowledged(3));
});
