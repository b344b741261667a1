// Why: a device that is off for hours and awake for seconds must still be seen awake: on the axis of time, long
// stretches in which nothing happened are drawn short, and shown as such.
// Trusts: its arguments. Must never: put two times in another order than they have.

import { textWidth, timeText, timeTicks } from './timeline-layout.ts';

export interface Tick {
  x: number;
  text: string;
}

export interface Scale {
  x: (atMs: number) => number;
  ticks: Tick[];
  /** Stretches that are drawn shorter than they are. */
  breaks: { fromX: number; toX: number; ms: number }[];
}

/** How many times longer than usual a stretch without a mark is before it is shortened. */
const longTimes = 20;
/** Where long stretches take less of the time than this, the axis stays even. */
const longShareMin = 0.5;
/** What all of them together take of the picture then. */
const breaksShare = 0.3;

function linear(spanMs: number, fromX: number, width: number): Scale {
  const x = (atMs: number) => fromX + (atMs / spanMs) * width;
  return { x, ticks: timeTicks(spanMs).map(({ atMs, text }) => ({ x: x(atMs), text })), breaks: [] };
}

export function timeScale(timesMs: readonly number[], spanMs: number, fromX: number, width: number): Scale {
  const times = [...new Set([0, ...timesMs, spanMs])].sort((a, b) => a - b);
  const gaps = times
    .slice(1)
    .map((to, index) => ({ from: times[index] ?? 0, to, ms: to - (times[index] ?? 0) }));
  const sizes = gaps.map(({ ms }) => ms).sort((a, b) => a - b);
  const usualMs = sizes[Math.floor(sizes.length * 0.7)] ?? spanMs;
  const isLong = (ms: number) => ms > longTimes * usualMs;
  const long = gaps.filter(({ ms }) => isLong(ms));
  const longMs = long.reduce((sum, { ms }) => sum + ms, 0);
  if (longMs < longShareMin * spanMs || longMs === spanMs) return linear(spanMs, fromX, width);

  const weightOf = (ms: number) => 1 + Math.log10(ms / (longTimes * usualMs));
  const weights = long.reduce((sum, { ms }) => sum + weightOf(ms), 0);
  const widthOf = (ms: number) =>
    isLong(ms)
      ? (weightOf(ms) / weights) * width * breaksShare
      : (ms / (spanMs - longMs)) * width * (1 - breaksShare);
  let at = fromX;
  const pieces = gaps.map((gap) => {
    const piece = { ...gap, fromX: at, toX: at + widthOf(gap.ms) };
    at = piece.toX;
    return piece;
  });
  const x = (atMs: number): number => {
    const piece = pieces.find(({ to }) => atMs <= to);
    if (piece === undefined) return fromX + width;
    return piece.fromX + ((atMs - piece.from) / piece.ms) * (piece.toX - piece.fromX);
  };
  const breaks = pieces.filter(({ ms }) => isLong(ms));
  return { x, ticks: ticksAt([0, spanMs, ...breaks.map(({ to }) => to)], x), breaks };
}

/** As many of these times as fit beside each other; those named first go first. */
function ticksAt(timesMs: readonly number[], x: (atMs: number) => number): Tick[] {
  const ticks: (Tick & { half: number })[] = [];
  for (const atMs of timesMs) {
    const text = atMs === 0 ? '0' : timeText(atMs);
    const tick = { x: x(atMs), text, half: textWidth(text, 11) / 2 + 5 };
    if (ticks.every((one) => Math.abs(one.x - tick.x) >= one.half + tick.half)) ticks.push(tick);
  }
  return ticks.map(({ x: atX, text }) => ({ x: atX, text }));
}
