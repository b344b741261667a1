// Why: windows in a device's zone across daylight saving, beside a scan of every minute by another way.
// Trusts: the engine's time zone data. Must never: compute the expected with the code it tests.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  isOpen,
  isTimeZone,
  localText,
  longestWaitMs,
  type TimeWindow,
  type Weekday,
  weekdays,
  windowsAt,
  windowsText,
} from '../../shared/kernel/windows.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const utc = (text: string): number => Date.parse(text);

/** Around changes of the clock, both ways, and a zone with an odd offset. */
const places: [zone: string, aroundMs: number][] = [
  ['Pacific/Auckland', utc('2026-04-04T14:00Z')],
  ['Pacific/Auckland', utc('2026-09-26T14:00Z')],
  ['Europe/Berlin', utc('2026-03-29T01:00Z')],
  ['Europe/Berlin', utc('2026-10-25T01:00Z')],
  ['America/Denver', utc('2026-03-08T09:00Z')],
  ['America/Denver', utc('2026-11-01T08:00Z')],
  // Half an hour only.
  ['Australia/Lord_Howe', utc('2026-04-04T15:00Z')],
  // Midnight itself is left out.
  ['America/Santiago', utc('2026-09-06T04:00Z')],
  ['Asia/Kathmandu', utc('2026-05-01T00:00Z')],
  ['UTC', utc('2026-12-31T00:00Z')],
];

const wallOf = new Map<string, Intl.DateTimeFormat>();
/** What a clock on the wall shows: `Sun 02:30`, by the engine's own words. */
function wall(zone: string, atMs: number): { day: number; minute: number } {
  let format = wallOf.get(zone);
  if (format === undefined) {
    const options = { weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
    format = new Intl.DateTimeFormat('en-GB', { timeZone: zone, ...options });
    wallOf.set(zone, format);
  }
  const [, name = '', hour = '', minute = ''] = /^(\w+),? (\d\d):(\d\d)$/.exec(format.format(atMs)) ?? [];
  return { day: weekdays.indexOf(name.toLowerCase() as Weekday), minute: Number(hour) * 60 + Number(minute) };
}

/** The words of the rollout file, minute by minute. */
function expected(windows: readonly TimeWindow[], zone: string, atMs: number): boolean {
  const { day, minute } = wall(zone, atMs);
  const at = `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
  return windows.some(({ days = weekdays, from, to }) => {
    const today = days.includes(weekdays[day] ?? 'sun');
    const yesterday = days.includes(weekdays[(day + 6) % 7] ?? 'sun');
    if (from === to) return today;
    if (from < to) return today && from <= at && at < to;
    return (today && at >= from) || (yesterday && at < to);
  });
}

const clock = fc
  .integer({ min: 0, max: 287 })
  .map(
    (five) => `${String(Math.floor(five / 12)).padStart(2, '0')}:${String((five % 12) * 5).padStart(2, '0')}`,
  );
const window = fc.record(
  { days: fc.subarray([...weekdays], { minLength: 1 }), from: clock, to: clock },
  { requiredKeys: ['from', 'to'] },
);
const windowLists = fc.array(window, { minLength: 1, maxLength: 3 });

test('open or closed, and the next change, as a scan of every minute finds them', () => {
  let changes = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...places),
      windowLists,
      fc.integer({ min: -30, max: 30 }),
      (place, windows, off) => {
        const [zone, aroundMs] = place;
        const atMs = aroundMs + off * hourMs + 12_345;
        const { open, changesAtMs } = windowsAt(windows, zone, atMs);
        assert.equal(open, expected(windows, zone, atMs));
        assert.equal(isOpen(windows, zone, atMs), open);
        const firstMs = Math.floor(atMs / minuteMs) * minuteMs + minuteMs;
        let scanned: number | null = null;
        for (let ms = firstMs; ms <= atMs + 8 * dayMs && scanned === null; ms += minuteMs)
          if (expected(windows, zone, ms) !== open) scanned = ms;
        assert.equal(
          changesAtMs,
          scanned,
          `${zone} ${windowsText(windows)} at ${new Date(atMs).toISOString()}`,
        );
        if (changesAtMs !== null) changes += 1;
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(changes > 200, `only ${changes} changes were seen`);
});

const next = (windows: TimeWindow[], zone: string, at: string): string | null => {
  const { changesAtMs } = windowsAt(windows, zone, utc(at));
  return changesAtMs === null ? null : new Date(changesAtMs).toISOString().slice(0, 16);
};

test('where an hour is left out, a window opens with the first instant after it', () => {
  const night = [{ from: '02:00', to: '05:00' }];
  assert.equal(next(night, 'Europe/Berlin', '2026-03-28T12:00Z'), '2026-03-29T01:00');
  assert.equal(localText('Europe/Berlin', utc('2026-03-29T01:00Z')), 'sun 2026-03-29 03:00');
  assert.equal(
    next(night, 'Europe/Berlin', '2026-03-29T01:00Z'),
    '2026-03-29T03:00',
    'it is open for two hours',
  );
  const gone = [{ days: ['sun' as const], from: '02:10', to: '02:50' }];
  assert.equal(next(gone, 'Europe/Berlin', '2026-03-27T12:00Z'), null, 'nothing of it is left');
  assert.equal(next(gone, 'Europe/Berlin', '2026-03-29T12:00Z'), '2026-04-05T00:10');
});

test('where an hour is repeated, both passages are inside', () => {
  const early = [{ from: '01:00', to: '02:30' }];
  const changes: (string | null)[] = [];
  for (let at = '2026-10-24T20:00'; changes.length < 4; ) {
    const found = next(early, 'Europe/Berlin', `${at}Z`);
    changes.push(found);
    at = found ?? '';
  }
  assert.deepEqual(changes, ['2026-10-24T23:00', '2026-10-25T00:30', '2026-10-25T01:00', '2026-10-25T01:30']);
});

test('a window over midnight is of the day on which it begins; equal ends are the whole day', () => {
  const friday = [{ days: ['fri' as const], from: '22:00', to: '05:00' }];
  const at = (text: string): boolean => isOpen(friday, 'UTC', utc(text));
  // 2 January 2026 is a Friday.
  assert.deepEqual(
    [
      '2026-01-02T04:59Z',
      '2026-01-02T22:00Z',
      '2026-01-03T04:59Z',
      '2026-01-03T05:00Z',
      '2026-01-03T23:00Z',
    ].map(at),
    [false, true, true, false, false],
  );
  const whole = [{ days: ['sat' as const], from: '06:00', to: '06:00' }];
  assert.equal(next(whole, 'UTC', '2026-01-02T10:00Z'), '2026-01-03T00:00');
  assert.equal(next(whole, 'UTC', '2026-01-03T10:00Z'), '2026-01-04T00:00');
  assert.equal(next([{ from: '00:00', to: '00:00' }], 'UTC', '2026-01-03T10:00Z'), null, 'always open');
});

test('the longest wait is what no start of a week exceeds', () => {
  assert.equal(longestWaitMs([{ from: '02:00', to: '05:00' }], 0), 21 * hourMs);
  assert.equal(longestWaitMs([{ from: '02:00', to: '05:00' }], 3 * hourMs + 1), 42 * hourMs);
  assert.equal(longestWaitMs([{ days: ['sun'], from: '02:00', to: '03:00' }], hourMs), 167 * hourMs);
  assert.equal(longestWaitMs([{ days: ['sun'], from: '02:00', to: '03:00' }], 3 * hourMs), 3 * 167 * hourMs);
  assert.equal(longestWaitMs([{ from: '00:00', to: '00:00' }], dayMs), 0);
  fc.assert(
    fc.property(
      windowLists,
      fc.integer({ min: 1, max: 400 }),
      fc.integer({ min: 0, max: 2_015 }),
      (windows, wanted, start) => {
        let closed = 0;
        let opened = 0;
        for (let minute = start * 5; opened < wanted; minute += 1)
          if (expected(windows, 'UTC', minute * minuteMs)) opened += 1;
          else closed += 1;
        assert.ok(closed * minuteMs <= longestWaitMs(windows, wanted * minuteMs));
      },
    ),
    { numRuns: 60 },
  );
});

test('names of zones are known or not, and windows have words', () => {
  assert.ok(isTimeZone('Asia/Kathmandu') && isTimeZone('UTC'));
  assert.ok(!isTimeZone('Mars/Olympus') && !isTimeZone(''));
  assert.equal(
    windowsText([
      { days: ['sat', 'sun'], from: '22:00', to: '05:00' },
      { days: ['mon'], from: '01:00', to: '01:00' },
    ]),
    'sat,sun 22:00–05:00; mon all day',
  );
});
