// Why: how fast a device sends what waits: fewer batches at a time where its region is behind, slower where it has
// requests of its own to answer. Trusts: nothing; pure, so that every rule is a line. Must never: stop for good.

import { limits } from '../../shared/kernel/limits.ts';

export interface Pace {
  /** Batches that may be on their way; a fraction is on its way to the next whole one. */
  window: number;
  /** Nothing new is sent before this, on the monotonic clock. */
  notBeforeMs: number;
  /** Between two batches while the device answers requests. */
  gapMs: number;
  /** What waited when the gap was judged last, and when. */
  judged: { atMs: number; bytes: number } | null;
}

/**
 * Longest and shortest gap. A batch costs the requests beside it some milliseconds: at one in two seconds those are fewer than
 * one of a hundred, and a month’s records are at the region within an hour and a half of requests without end.
 */
export const gapMaxMs = 2_000;
const gapMinMs = 4;
/** Between two judgements of the gap: less would see the noise of single batches. */
const judgeEveryMs = 5_000;

export const startPace = (window: number): Pace => ({
  window,
  notBeforeMs: Number.NEGATIVE_INFINITY,
  gapMs: gapMaxMs,
  judged: null,
});

/** How many batches may be on their way now; one at least. */
export function windowOf(pace: Pace): number {
  return Math.max(1, Math.floor(pace.window));
}

/** The region stored one and has room: the window grows by about one for each whole window that was stored. */
export function answered(pace: Pace, windowMax: number): Pace {
  return { ...pace, window: Math.min(windowMax, pace.window + 1 / Math.max(1, pace.window)) };
}

/**
 * The region is behind. Half the window from now on, and nothing new for a while: up to twice what it asked for, drawn
 * by each device for itself, or all would come back at once. The answers of one window say it several times; it
 * counts once for each pause.
 */
export function askedToPause(pace: Pace, asked: { pauseMs: number; nowMs: number; chance: number }): Pace {
  const { pauseMs, nowMs, chance } = asked;
  if (nowMs < pace.notBeforeMs) return pace;
  const waitMs = Math.min(pauseMs, limits.telemetryPauseMsMax) * (1 + chance);
  return { ...pace, window: Math.max(1, pace.window / 2), notBeforeMs: nowMs + waitMs };
}

/** No answer came: the message or its answer was lost, perhaps because the region had no room. */
export function unanswered(pace: Pace): Pace {
  return { ...pace, window: Math.max(1, pace.window / 2) };
}

/** A new line: what was asked for on the one before may be long over. The window stays narrow. */
export function reconnected(pace: Pace): Pace {
  return { ...pace, notBeforeMs: Number.NEGATIVE_INFINITY };
}

/**
 * The gap after this batch: none where nobody waits for an answer of the device. Where the outbox grows in spite of the
 * sending, the gap is halved, for a record that is dropped is worse than a late answer; where it shrinks, it widens.
 */
export function paced(
  pace: Pace,
  seen: { busy: boolean; bytes: number; nowMs: number },
): { pace: Pace; gapMs: number } {
  const { busy, bytes, nowMs } = seen;
  if (!busy) return { pace: { ...pace, judged: null }, gapMs: 0 };
  if (pace.judged === null) return { pace: { ...pace, judged: { atMs: nowMs, bytes } }, gapMs: pace.gapMs };
  if (nowMs - pace.judged.atMs < judgeEveryMs) return { pace, gapMs: pace.gapMs };
  const gapMs =
    bytes > pace.judged.bytes ? Math.max(gapMinMs, pace.gapMs / 2) : Math.min(gapMaxMs, pace.gapMs * 1.25);
  return { pace: { ...pace, gapMs, judged: { atMs: nowMs, bytes } }, gapMs };
}
