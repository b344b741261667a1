// Why: how often a release's processes died, so that it is restarted ever more slowly and given up in time.
// Trusts: the times it is told. Must never: forget deaths because the release was loaded anew.

export interface CrashHistory {
  /** A process that nobody ended died, or did not come up. `livedMs`: how long it served. */
  died(nowMs: number, livedMs: number): void;
  /** Whether it died before and did not live long since. */
  again(): boolean;
  /** Pause before the next start; never none in a loop. */
  delayMs(nowMs: number): number;
  /** Whether it keeps dying. */
  looping(nowMs: number): boolean;
}

export interface CrashTerms {
  /** So many deaths within the window are a loop. */
  deaths: number;
  windowMs: number;
}

/**
 * At once after two deaths, which is what one bad input costs: nobody else should pay for it. Then doubled; forgotten
 * after a minute of life.
 */
const deathsAtOnce = 2;
const delayBaseMs = 250;
/** In a loop at least this: the release that takes over is loaded meanwhile, and wants the processor for itself. */
const loopDelayMs = 1_000;
const delayMaxMs = 30_000;
const stableMs = 60_000;

export function createCrashHistory({ deaths, windowMs }: CrashTerms): CrashHistory {
  /** Times of the last deaths, as many as make a loop. */
  const times: number[] = [];
  let inRow = 0;
  const looping = (nowMs: number): boolean => times.length >= deaths && nowMs - (times[0] ?? 0) <= windowMs;
  return {
    died: (nowMs, livedMs) => {
      times.push(nowMs);
      if (times.length > deaths) times.shift();
      inRow = livedMs > stableMs ? 1 : inRow + 1;
    },
    again: () => inRow > 1,
    delayMs: (nowMs) => {
      const least = looping(nowMs) ? loopDelayMs : 0;
      if (inRow <= deathsAtOnce) return least;
      const doubled = delayBaseMs * 2 ** Math.min(inRow - deathsAtOnce - 1, 16);
      return Math.min(delayMaxMs, Math.max(least, doubled));
    },
    looping,
  };
}
