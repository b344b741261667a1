// Why: how much a download asks for at once and ahead, from what the link showed: a thin one loses little when it is
// cut, a fast one is never idle. Pure. Trusts: the times it is told, of one monotonic clock.
// Must never: ask for so little that a link stands still, or let one lucky moment set the pace.

/** A range costs a message each way: below this the messages outweigh the bytes. */
const rangeBytesMin = 4 * 1024;
/** First ranges of a link nobody knows: two of them cost a slow one a second. */
const rangeBytesFirst = 8 * 1024;
/** A range takes the link about this long: half of it is lost at a cut, and each costs a question of 350 bytes. */
const rangeSeconds = 0.45;
/** Bytes that arrive within this belong together: a link delivers in bursts. */
const sampleMs = 4;
/** One sample raises the rate by this factor at most, and lowers it by a quarter of the difference. */
const growthMax = 4;
const fallShare = 0.25;
/** Where no queue stands the link may carry more: the rate is raised by so much, beyond what was seen by as much. */
const probeFactor = 1.5;
/** A range that came this much later than the fastest one had to queue. */
const queueFactor = 1.25;
const queueMs = 2;
/** So many ranges are under way at least, so that the link does not wait for the next question. */
const atOnceMin = 2;

export interface Pace {
  /** Length of the next range. */
  rangeBytes(): number;
  /** Whether another range may be asked for, with so many ranges and bytes asked for that have not arrived. */
  wantsMore(underWay: { ranges: number; bytes: number }): boolean;
  /** A range is asked for while nothing else is under way. */
  begins(): void;
  /** `afterMs`: these are the first bytes of their range, so long after it was asked for; else null. */
  arrived(bytes: number, nowMs: number, afterMs: number | null): void;
  /** Nothing is under way any more; `failed`: because the link did not answer. */
  ended(failed: boolean): void;
  bytesPerSecond(): number;
}

export interface PaceLimits {
  fetchRangeBytesMax: number;
  /** Ranges under way at once. */
  atOnceMax: number;
}

export function createPace({ fetchRangeBytesMax, atOnceMax }: PaceLimits): Pace {
  const least = Math.min(rangeBytesMin, fetchRangeBytesMax);
  const first = rangeBytesFirst / rangeSeconds;
  let rate = first;
  /** What was seen in the last two samples: one alone may be a pause, or what had waited for its end. */
  let seen: [number, number] = [rate, rate];
  /** The fastest way there and back on this connection, with the bytes that came by it: they took their time as well. */
  let trip: { ms: number; bytes: number } | null = null;
  /** Since the last arrival that a sample began with; null while the link is idle. */
  let sample: { fromMs: number; bytes: number } | null = null;

  const netMs = (one: { ms: number; bytes: number }): number =>
    Math.max(0, one.ms - (one.bytes / rate) * 1_000);

  function sawTrip(now: { ms: number; bytes: number }): void {
    const isFirst = trip === null;
    if (trip === null || netMs(now) < netMs(trip)) trip = now;
    // Until two were seen nothing tells a long way from a slow link.
    if (!isFirst && netMs(now) <= netMs(trip) * queueFactor + queueMs)
      rate = Math.max(rate, Math.min(rate, Math.max(...seen)) * probeFactor);
  }

  const rangeBytes = (): number => {
    const wanted = Math.min(fetchRangeBytesMax, rate * rangeSeconds);
    return Math.max(least, Math.floor(wanted / least) * least);
  };

  return {
    rangeBytes,
    bytesPerSecond: () => rate,
    wantsMore: ({ ranges, bytes }) => {
      if (ranges < Math.min(atOnceMin, atOnceMax)) return true;
      return ranges < atOnceMax && bytes < (rate * (trip === null ? 0 : netMs(trip))) / 1_000;
    },
    begins: () => {
      sample = null;
    },
    arrived: (bytes, nowMs, afterMs) => {
      if (afterMs !== null) sawTrip({ ms: afterMs, bytes });
      // The time before the first arrival is the way there and back, not the link's rate.
      if (sample === null) {
        sample = { fromMs: nowMs, bytes: 0 };
        return;
      }
      sample.bytes += bytes;
      const ms = nowMs - sample.fromMs;
      if (ms < sampleMs) return;
      const now = (sample.bytes / ms) * 1_000;
      seen = [seen[1], now];
      const [less, more] = [Math.min(...seen), Math.max(...seen)];
      if (less > rate) rate = Math.min(less, rate * growthMax);
      // Another link than it was.
      else if (more < rate / 2) rate = more;
      else if (now < rate) rate += (now - rate) * fallShare;
      sample = { fromMs: nowMs, bytes: 0 };
    },
    ended: (failed) => {
      sample = null;
      trip = null;
      // The next time it may be another link; finding out costs a fast one a few milliseconds.
      rate = failed ? Math.max(least, Math.min(first, rate / 2)) : first;
      seen = [rate, rate];
    },
  };
}
