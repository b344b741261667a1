// Why: what the sources of all scenarios are made of: seasons, wandering levels, gaps in what a sensor sends.
// Trusts: its callers. Must never: read a clock or real randomness; one seed is one life.

import type { Noise } from '../sensors/noise.ts';

export const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** All sources that have a time begin here: a Monday, at midnight UTC. */
export const beginMs = Date.UTC(2024, 0, 1);

/** `2024-01-01T00:00:00Z` */
export function timeText(ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z');
}

/** Hour of the day with its fraction, in [0, 24). */
export function hourOf(ms: number): number {
  return (ms % dayMs) / hourMs;
}

/** 0 Monday to 6 Sunday. */
export function weekdayOf(ms: number): number {
  // 1 January 1970 was a Thursday.
  return (Math.floor(ms / dayMs) + 3) % 7;
}

/** Whole days since `beginMs`. */
export function dayOf(ms: number): number {
  return Math.floor((ms - beginMs) / dayMs);
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

export function round(value: number, decimals: number): number {
  const scale = 10 ** decimals;
  // Adding 0 makes −0 a 0: no table shows a zero with a sign.
  return Math.round(value * scale) / scale + 0;
}

/** 1 at `hour`, falling off to both sides by `widthHours`, around midnight as well. */
export function bump(atHour: number, hour: number, widthHours: number): number {
  const apart = Math.abs(atHour - hour) % 24;
  const distance = Math.min(apart, 24 - apart) / widthHours;
  return Math.exp(-0.5 * distance * distance);
}

/** A wave of 24 hours with its highest point, 1, at `peakHour`. */
export function dayWave(atHour: number, peakHour: number): number {
  return Math.cos((2 * Math.PI * (atHour - peakHour)) / 24);
}

export function logistic(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/**
 * A level that wanders around 0 and comes back (a first-order autoregression): `memory` is what stays of it from
 * one row to the next, `deviation` its standard deviation in the long run.
 */
export function createWander(noise: Noise, memory: number, deviation: number): () => number {
  const step = deviation * Math.sqrt(1 - memory * memory);
  let level = deviation * noise.normal();
  return () => {
    level = memory * level + step * noise.normal();
    return level;
  };
}

/**
 * Whether a sensor's value is missing in the next row. Gaps have a geometric length with `meanRows` as its mean,
 * and all together make up `rate` of the rows.
 */
export function createGaps(noise: Noise, rate: number, meanRows: number): () => boolean {
  const begins = rate / (meanRows * (1 - rate));
  let missing = false;
  return () => {
    missing = missing ? noise.uniform() >= 1 / meanRows : noise.uniform() < begins;
    return missing;
  };
}

/** One of the names, each as likely as its weight. */
export function pick(noise: Noise, weights: Record<string, number>): string {
  const entries = Object.entries(weights);
  let left = noise.uniform() * entries.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [name, weight] of entries) {
    left -= weight;
    if (left < 0) return name;
  }
  return entries.at(-1)?.[0] ?? '';
}

/** Uniform in [low, high). */
export function between(noise: Noise, low: number, high: number): number {
  return low + (high - low) * noise.uniform();
}
