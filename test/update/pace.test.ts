// Why: how far ahead a download asks, on links of every kind. Trusts: a model of a link: a rate, a delay, one queue.
// Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createPace } from '../../agent/update/pace.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

interface Range {
  left: number;
  askedAtMs: number;
  isFirst: boolean;
}

/** A download over a link that carries so many bytes a second with so much delay, in pieces of a frame at most. */
function over(link: { bytesPerSecond: number; tripMs: number }, totalBytes: number) {
  const pace = createPace({ fetchRangeBytesMax: MiB, atOnceMax: 3 });
  const frames: { atMs: number; bytes: number; range: Range }[] = [];
  const ranges = new Set<Range>();
  let nowMs = 0;
  let freeAtMs = 0;
  let asked = 0;
  let done = 0;
  let aheadMost = 0;
  let rangeMost = 0;
  while (done < totalBytes) {
    for (;;) {
      const ahead = asked - done;
      if (asked >= totalBytes || !pace.wantsMore({ ranges: ranges.size, bytes: ahead })) break;
      const bytes = Math.min(pace.rangeBytes(), totalBytes - asked);
      if (ranges.size === 0) pace.begins();
      const range = { left: bytes, askedAtMs: nowMs, isFirst: true };
      ranges.add(range);
      for (let left = bytes; left > 0; left -= Math.min(left, 64 * KiB)) {
        const frame = Math.min(left, 64 * KiB);
        freeAtMs = Math.max(freeAtMs, nowMs + link.tripMs) + (frame / link.bytesPerSecond) * 1_000;
        frames.push({ atMs: freeAtMs, bytes: frame, range });
      }
      asked += bytes;
      if (done > totalBytes / 2) {
        aheadMost = Math.max(aheadMost, asked - done);
        rangeMost = Math.max(rangeMost, bytes);
      }
    }
    const frame = frames.shift();
    assert.ok(frame);
    nowMs = frame.atMs;
    done += frame.bytes;
    frame.range.left -= frame.bytes;
    if (frame.range.left === 0) ranges.delete(frame.range);
    pace.arrived(frame.bytes, nowMs, frame.range.isFirst ? nowMs - frame.range.askedAtMs : null);
    frame.range.isFirst = false;
  }
  return { seconds: nowMs / 1_000, aheadMost, rangeMost };
}

test('a link of 256 kbit/s and 300 ms is kept full, and a cut costs little', () => {
  const link = { bytesPerSecond: 32_000, tripMs: 300 };
  const { seconds, aheadMost, rangeMost } = over(link, MiB);
  assert.ok(seconds < (MiB / link.bytesPerSecond) * 1.1, `${seconds} s`);
  assert.ok(rangeMost >= 8 * KiB && rangeMost <= 16 * KiB, `${rangeMost} in a range`);
  assert.ok(aheadMost < 40 * KiB, `${aheadMost} ahead`);
});

test('a fast link gets the longest ranges after a few small ones', () => {
  const { seconds, rangeMost } = over({ bytesPerSecond: 100 * MiB, tripMs: 1 }, 32 * MiB);
  assert.equal(rangeMost, MiB);
  assert.ok(seconds < 0.32 * 1.2, `${seconds} s`);
});

test('no link stands still, and none is asked for more than it carries in a while', () => {
  const links = fc.record({
    bytesPerSecond: fc.integer({ min: 1_000, max: 50 * MiB }),
    tripMs: fc.integer({ min: 1, max: 700 }),
  });
  fc.assert(
    fc.property(links, (link) => {
      const totalBytes = Math.max(256 * KiB, Math.min(link.bytesPerSecond * 30, 64 * MiB));
      const { seconds, aheadMost } = over(link, totalBytes);
      // Three ranges of 1 MiB are the most that may be under way.
      const carried = Math.min(
        link.bytesPerSecond,
        (3 * MiB) / (link.tripMs / 1_000 + MiB / link.bytesPerSecond),
      );
      assert.ok(seconds < (totalBytes / carried) * 1.5 + 20 * (link.tripMs / 1_000), `${seconds} s`);
      const trip = (link.bytesPerSecond * link.tripMs) / 1_000;
      assert.ok(aheadMost <= Math.max(2 * (trip + link.bytesPerSecond), 24 * KiB), `${aheadMost} ahead`);
    }),
    { seed: 7, numRuns: 200 },
  );
});

test('what was learned of one link is not held against the next', () => {
  const pace = createPace({ fetchRangeBytesMax: MiB, atOnceMax: 3 });
  let nowMs = 0;
  for (let pieces = 0; pieces < 50; pieces += 1) {
    nowMs += 5;
    pace.arrived(MiB, nowMs, 1);
  }
  assert.equal(pace.rangeBytes(), MiB);
  pace.ended(false);
  assert.equal(pace.rangeBytes(), 8 * KiB);
});

test('bytes that waited for a pause to end are no sign of a fast link', () => {
  const pace = createPace({ fetchRangeBytesMax: MiB, atOnceMax: 3 });
  let nowMs = 0;
  const range = (ms: number): void => {
    nowMs += ms;
    pace.arrived(8 * KiB, nowMs, null);
  };
  for (let ranges = 0; ranges < 20; ranges += 1) range(250);
  const before = pace.rangeBytes();
  range(500);
  range(5);
  range(245);
  assert.ok(pace.rangeBytes() <= before * 1.5, `${before} before, ${pace.rangeBytes()} after`);
});

test('a link that does not answer is asked for less, and never for nothing', () => {
  const pace = createPace({ fetchRangeBytesMax: MiB, atOnceMax: 3 });
  const before = pace.rangeBytes();
  for (let failures = 0; failures < 40; failures += 1) pace.ended(true);
  assert.ok(pace.rangeBytes() < before);
  assert.equal(pace.rangeBytes(), 4 * KiB);
  assert.ok(pace.wantsMore({ ranges: 0, bytes: 0 }));
});

test('ranges stay below a limit that is smaller than the least range', () => {
  const pace = createPace({ fetchRangeBytesMax: 100, atOnceMax: 3 });
  assert.equal(pace.rangeBytes(), 100);
});
