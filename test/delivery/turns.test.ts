// Why: holds the promise that downloads are shared fairly: so many at a time, first come first served, no device more
// for asking more often, none kept from its turn by one that takes nothing. Trusts: a clock that the test turns.
// Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tokenBucket } from '../../registry/delivery/token-bucket.ts';
import { createTurns, type Lease, type Turns } from '../../registry/delivery/turns.ts';
import { type FleetLimits, fleetLimits } from '../../registry/fleet/limits.ts';
import { type TurnedClock, turnedClock } from '../registry-core/support.ts';

const KiB = 1024;

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** Time passes in small steps, as timers come due. */
async function pass(clock: TurnedClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 50) {
    clock.advance(Math.min(50, left));
    await settle();
  }
}

function opened(limits: Partial<FleetLimits>): { clock: TurnedClock; turns: Turns } {
  const clock = turnedClock();
  return { clock, turns: createTurns(clock, { ...fleetLimits, ...limits }) };
}

/** What became of asking: the lease, null where told to ask again, undefined while it waits. */
function ask(turns: Turns, deviceId: string): { lease: Lease | null | undefined } {
  const state: { lease: Lease | null | undefined } = { lease: undefined };
  void turns.enter(deviceId).then((lease) => {
    state.lease = lease;
  });
  return state;
}

/** Takes so many bytes as fast as it may; what it got when the time was over. */
async function take(lease: Lease, pieces: number): Promise<void> {
  for (let piece = 0; piece < pieces; piece += 1) {
    await lease.go(64 * KiB);
    lease.landed(64 * KiB, true);
  }
}

test('a bucket lets a burst go and then the rate, in the order of taking', () => {
  assert.equal(tokenBucket(0, 1_000), null);
  const bucket = tokenBucket(1_000, 500);
  assert.ok(bucket);
  assert.equal(bucket.take(500, 0), 0);
  assert.equal(bucket.take(100, 0), 100);
  assert.equal(bucket.take(100, 0), 200, 'behind the one before it');
  assert.equal(bucket.take(100, 200), 100);
  assert.equal(bucket.take(500, 10_000), 0, 'a long pause fills it to the burst, not beyond');
  assert.equal(bucket.take(500, 10_000), 500);
});

test('so many at a time; the others come in the order in which they asked, whoever asks most', async () => {
  const { turns, clock } = opened({ downloadsMax: 2 });
  const first = ask(turns, 'a');
  const second = ask(turns, 'b');
  const greedy = [ask(turns, 'c'), ask(turns, 'c'), ask(turns, 'c')];
  const last = ask(turns, 'd');
  await settle();
  assert.ok(first.lease && second.lease);
  assert.ok([...greedy, last].every((one) => one.lease === undefined));
  assert.deepEqual([turns.downloading(), turns.waiting()], [2, 2]);
  // The device goes on after a short pause, and another is let in only when nothing was asked for a while.
  first.lease.leave();
  await pass(clock, 500);
  const again = ask(turns, 'a');
  await settle();
  assert.ok(again.lease);
  assert.equal(greedy[0]?.lease, undefined);
  again.lease.leave();
  await pass(clock, 1_500);
  assert.ok(greedy.every((one) => one.lease));
  assert.equal(last.lease, undefined);
  second.lease.leave();
  await pass(clock, 1_500);
  assert.ok(last.lease);
});

test('whoever waits in vain keeps its place for a while', async () => {
  const { turns, clock } = opened({
    downloadsMax: 1,
    downloadTurnMs: 3_600_000,
    downloadBytesPerSecondMin: 0,
  });
  const holder = ask(turns, 'a');
  const early = ask(turns, 'early');
  await pass(clock, 4_000);
  const late = ask(turns, 'late');
  await pass(clock, 5_000);
  assert.equal(early.lease, null, 'told to ask again');
  assert.equal(late.lease, undefined);
  assert.equal(turns.counters().inVain, 1);
  const back = ask(turns, 'early');
  await settle();
  holder.lease?.leave();
  await pass(clock, 1_500);
  assert.ok(back.lease, 'before the one that came after it');
  assert.equal(late.lease, undefined);
  // Told to ask again and gone: it does not hold up anybody.
  await pass(clock, 5_000);
  assert.equal(late.lease, null);
  back.lease.leave();
  await pass(clock, 20_000);
  assert.equal(turns.waiting(), 0);
});

test('where others wait a turn ends after its time, and everybody comes', async () => {
  const { turns, clock } = opened({ downloadsMax: 1, downloadTurnMs: 10_000, downloadWaitMs: 100_000 });
  const turnsOf = new Map<string, number>();
  let running = true;
  const device = async (name: string): Promise<void> => {
    while (running) {
      const lease = await turns.enter(name);
      if (lease === null) continue;
      turnsOf.set(name, (turnsOf.get(name) ?? 0) + 1);
      while (running && lease.ended() === null) {
        await take(lease, 1);
        await clock.timer(100).done;
      }
      lease.leave();
    }
  };
  const devices = ['a', 'b', 'c'].map(device);
  await pass(clock, 95_000);
  running = false;
  turns.stop();
  await pass(clock, 1_000);
  await Promise.all(devices);
  assert.deepEqual([...turnsOf].sort(), [
    ['a', 4],
    ['b', 3],
    ['c', 3],
  ]);
});

test('a device that takes less than the least rate loses its turn to the next', async () => {
  const { turns, clock } = opened({ downloadsMax: 1, downloadTurnMs: 3_600_000, downloadWaitMs: 100_000 });
  const slow = ask(turns, 'slow');
  const next = ask(turns, 'next');
  await settle();
  const { lease } = slow;
  assert.ok(lease);
  await take(lease, 1);
  await pass(clock, 29_000);
  assert.equal(lease.ended(), null);
  await pass(clock, 2_000);
  assert.equal(lease.ended(), null, '64 KiB in 30 s are above 1 KiB/s');
  await pass(clock, 31_000);
  assert.equal(lease.ended(), 'slow', 'nothing in the second window');
  assert.ok(next.lease);
  assert.equal(turns.counters().slow, 1);
  lease.leave();
  const again = ask(turns, 'slow');
  await settle();
  assert.equal(again.lease, undefined, 'at the end of the queue');
});

test('many requests of one device get no more than one of another, under a rate for all', async () => {
  const { turns, clock } = opened({ regionBytesPerSecondMax: 1024 * KiB });
  const got = new Map<string, number>();
  let running = true;
  const request = async (name: string): Promise<void> => {
    const lease = await turns.enter(name);
    assert.ok(lease);
    while (running) {
      await take(lease, 1);
      got.set(name, (got.get(name) ?? 0) + 64 * KiB);
    }
  };
  const all = ['greedy', 'greedy', 'greedy', 'greedy', 'modest'].map(request);
  await pass(clock, 20_000);
  running = false;
  await pass(clock, 2_000);
  await Promise.all(all);
  const [greedy = 0, modest = 0] = ['greedy', 'modest'].map((name) => got.get(name));
  assert.ok(Math.abs(greedy - modest) <= 6 * 64 * KiB, `${greedy} and ${modest}`);
  assert.ok(Math.abs(greedy + modest - 20 * 1024 * KiB) < 1.5 * 1024 * KiB, `${greedy + modest} in 20 s`);
});

test('what is held back by our own rate is no slowness of the device', async () => {
  const limits = {
    downloadsMax: 1,
    deviceBytesPerSecondMax: 512,
    downloadTurnMs: 3_600_000,
    downloadWaitMs: 1e9,
  };
  const { turns, clock } = opened(limits);
  const { lease } = await (async () => {
    const state = ask(turns, 'a');
    ask(turns, 'b');
    await settle();
    return state;
  })();
  assert.ok(lease);
  const taking = take(lease, 4);
  await pass(clock, 120_000);
  assert.equal(lease.ended(), null);
  turns.stop();
  await pass(clock, 200_000);
  await taking;
  assert.equal(lease.ended(), 'stopped');
});

test('of one device so many bytes are on their way, of all its requests together', async () => {
  const { turns } = opened({ fetchWindowBytes: 128 * KiB });
  const one = await turns.enter('a');
  const two = await turns.enter('a');
  assert.ok(one && two);
  assert.equal(one.go(64 * KiB), null);
  assert.equal(two.go(64 * KiB), null);
  let gone = false;
  void two.go(64 * KiB)?.then(() => {
    gone = true;
  });
  await settle();
  assert.equal(gone, false);
  one.landed(64 * KiB, true);
  await settle();
  assert.equal(gone, true);
});
