// Why: windows of wall-clock time ("02:00 to 05:00 on weekdays") against instants, in a device's own time zone.
// Trusts: the time zone data of the JavaScript engine. Must never: read a clock; the instant is an argument.
//
// An instant is inside where the local clock shows a time of the window. So where an hour is left out, a window that
// begins in it opens with the first instant after the gap, and one that lies in it altogether does not open that day;
// where an hour is repeated, both passages count.

export const weekdays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
export type Weekday = (typeof weekdays)[number];

/** `HH:MM` each. `to` before `from`: over midnight, and of the day on which it begins. Equal: the whole day. */
export interface TimeWindow {
  /** Absent: every day. */
  days?: readonly Weekday[] | undefined;
  from: string;
  to: string;
}

export interface WindowState {
  open: boolean;
  /** First minute at which that changes, Unix milliseconds; null where it does not within `lookAheadMs`. */
  changesAtMs: number | null;
}

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMinutes = 24 * 60;
const weekMinutes = 7 * dayMinutes;
/** A week, and a day for what daylight saving moves. */
export const lookAheadMs = 8 * 24 * hourMs;
/** No zone changes its offset twice within this. */
const offsetStepMs = 6 * hourMs;
/** 1 January 1970 was a Thursday. */
const epochWeekday = 4;

const formats = new Map<string, Intl.DateTimeFormat>();

/** Fault: `RangeError` where the engine knows no such zone; ask `isTimeZone` first. */
function formatOf(timezone: string): Intl.DateTimeFormat {
  let format = formats.get(timezone);
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: timezone,
      calendar: 'iso8601',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formats.set(timezone, format);
  }
  return format;
}

/** Whether the engine knows this IANA time zone. */
export function isTimeZone(timezone: string): boolean {
  try {
    formatOf(timezone);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** What the local clock is ahead of UTC at this instant, milliseconds. */
function offsetAt(timezone: string, atMs: number): number {
  const fields = { year: 0, month: 1, day: 1, hour: 0, minute: 0, second: 0 };
  for (const { type, value } of formatOf(timezone).formatToParts(atMs))
    if (type in fields) fields[type as keyof typeof fields] = Number(value);
  const { year, month, day, hour, minute, second } = fields;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(atMs / 1_000) * 1_000;
}

const minuteOfDay = (clock: string): number => Number(clock.slice(0, 2)) * 60 + Number(clock.slice(3, 5));

function isInside({ days, from, to }: TimeWindow, day: number, minute: number): boolean {
  const begins = (on: number): boolean => {
    const name = weekdays[(((on + epochWeekday) % 7) + 7) % 7];
    return days === undefined || (name !== undefined && days.includes(name));
  };
  const opens = minuteOfDay(from);
  const closes = minuteOfDay(to);
  if (opens === closes) return begins(day);
  if (opens < closes) return minute >= opens && minute < closes && begins(day);
  return (minute >= opens && begins(day)) || (minute < closes && begins(day - 1));
}

/** Minutes since 1970 as the local clock shows them. */
function isOpenAtLocal(windows: readonly TimeWindow[], localMinute: number): boolean {
  const day = Math.floor(localMinute / dayMinutes);
  return windows.some((window) => isInside(window, day, localMinute - day * dayMinutes));
}

/** Whether one of the windows is open at this instant (Unix milliseconds). No window: never. */
export function isOpen(windows: readonly TimeWindow[], timezone: string, atMs: number): boolean {
  return isOpenAtLocal(windows, Math.floor((atMs + offsetAt(timezone, atMs)) / minuteMs));
}

/** Minutes of a day at which a window may begin or end. */
function edgesOf(windows: readonly TimeWindow[]): number[] {
  const edges = new Set([0, ...windows.flatMap(({ from, to }) => [minuteOfDay(from), minuteOfDay(to)])]);
  return [...edges].sort((a, b) => a - b);
}

/** Stretches of one offset from the minute of `fromMs` to `lookAheadMs` later. */
function stretches(timezone: string, fromMs: number): { fromMs: number; offsetMs: number }[] {
  const found = [{ fromMs, offsetMs: offsetAt(timezone, fromMs) }];
  let known = offsetAt(timezone, fromMs);
  for (let before = fromMs; before < fromMs + lookAheadMs; before += offsetStepMs) {
    const after = before + offsetStepMs;
    const offsetMs = offsetAt(timezone, after);
    if (offsetMs === known) continue;
    let low = before;
    let high = after;
    while (high - low > minuteMs) {
      const middle = low + Math.floor((high - low) / minuteMs / 2) * minuteMs;
      if (offsetAt(timezone, middle) === known) low = middle;
      else high = middle;
    }
    found.push({ fromMs: high, offsetMs });
    known = offsetMs;
  }
  return found;
}

/** The windows at an instant (Unix milliseconds) and their next change, exact to the minute. */
export function windowsAt(windows: readonly TimeWindow[], timezone: string, atMs: number): WindowState {
  const startMs = Math.floor(atMs / minuteMs) * minuteMs;
  const open = isOpen(windows, timezone, startMs);
  const edges = edgesOf(windows);
  const all = stretches(timezone, startMs);
  for (const [at, stretch] of all.entries()) {
    const endMs = all[at + 1]?.fromMs ?? startMs + lookAheadMs + 1;
    const local = (ms: number): number => Math.floor((ms + stretch.offsetMs) / minuteMs);
    const firstMinute = local(stretch.fromMs);
    const firstDay = Math.floor(firstMinute / dayMinutes);
    const lastDay = Math.floor(local(endMs) / dayMinutes);
    const candidates = [firstMinute];
    for (let day = firstDay; day <= lastDay; day += 1)
      for (const edge of edges) candidates.push(day * dayMinutes + edge);
    for (const minute of candidates) {
      const ms = minute * minuteMs - stretch.offsetMs;
      if (ms <= startMs || ms < stretch.fromMs || ms >= endMs) continue;
      if (isOpenAtLocal(windows, minute) !== open) return { open, changesAtMs: ms };
    }
  }
  return { open, changesAtMs: null };
}

/**
 * The longest that somebody may have to stand before closed windows until they were open for `openMs` together: for
 * deadlines of whoever does not know the zone. Daylight saving is not counted. Infinite where they never open.
 */
export function longestWaitMs(windows: readonly TimeWindow[], openMs: number): number {
  const edges = edgesOf(windows);
  const cuts = Array.from({ length: 7 }, (_, day) => edges.map((edge) => day * dayMinutes + edge)).flat();
  const pieces = cuts.map((from, at) => ({
    open: isOpenAtLocal(windows, from),
    minutes: (cuts[at + 1] ?? weekMinutes) - from,
  }));
  const openMinutes = pieces.reduce((sum, { open, minutes }) => sum + (open ? minutes : 0), 0);
  if (openMinutes === weekMinutes) return 0;
  if (openMinutes === 0) return Number.POSITIVE_INFINITY;
  const wanted = Math.max(1, Math.ceil(openMs / minuteMs));
  const wholeWeeks = Math.ceil(wanted / openMinutes) - 1;
  const rest = wanted - wholeWeeks * openMinutes;
  let longest = 0;
  for (const [begin, { open }] of pieces.entries()) {
    if (open) continue;
    let left = rest;
    let closed = 0;
    for (let at = begin; left > 0; at += 1) {
      const piece = pieces[at % pieces.length];
      if (piece?.open === true) left -= piece.minutes;
      else closed += piece?.minutes ?? 0;
    }
    longest = Math.max(longest, closed);
  }
  return (longest + wholeWeeks * (weekMinutes - openMinutes)) * minuteMs;
}

/** `sat,sun 22:00–05:00; 12:00–13:00`. */
export function windowsText(windows: readonly TimeWindow[]): string {
  return windows
    .map(({ days, from, to }) => {
      const hours = from === to ? 'all day' : `${from}–${to}`;
      return days === undefined ? hours : `${days.join(',')} ${hours}`;
    })
    .join('; ');
}

/** `sun 2026-03-29 03:00` as the local clock shows it. */
export function localText(timezone: string, atMs: number): string {
  const local = new Date(atMs + offsetAt(timezone, atMs));
  const [date, time] = local.toISOString().split('T');
  return `${weekdays[local.getUTCDay()]} ${date} ${time?.slice(0, 5)}`;
}
