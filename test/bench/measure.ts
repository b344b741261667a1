// Why: what every measurement of inference needs: percentiles, tasks taken in turn, memory of a process.
// Trusts: /proc for memory. Must never: compare numbers of two different runs.

import { readFileSync } from 'node:fs';
import { systemClock } from '../../shared/host/clock.ts';

export interface Percentiles {
  p50Ms: number;
  p99Ms: number;
}

export const round = (value: number): number => Math.round(value * 1_000) / 1_000;

export function percentiles(timesMs: readonly number[]): Percentiles {
  const sorted = [...timesMs].sort((a, b) => a - b);
  const at = (fraction: number): number =>
    round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? Number.NaN);
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

const warmUpRounds = 10;

/** Tells how long it took; where it cannot be timed from outside it times itself. */
export type Task = () => Promise<number>;

export const timed =
  (work: () => Promise<unknown>): Task =>
  async () => {
    const start = systemClock.mono();
    await work();
    return systemClock.mono() - start;
  };

/** In turn, so that a slower minute of the machine hits all of them. */
export async function measure<Name extends string>(
  rounds: number,
  tasks: Record<Name, Task>,
): Promise<Record<Name, Percentiles>> {
  const entries = Object.entries(tasks) as [Name, Task][];
  const times = new Map<Name, number[]>(entries.map(([name]) => [name, []]));
  for (let index = 0; index < rounds + warmUpRounds; index++) {
    for (const [name, task] of entries) {
      const tookMs = await task();
      if (index >= warmUpRounds) times.get(name)?.push(tookMs);
    }
  }
  const results = entries.map(([name]) => [name, percentiles(times.get(name) ?? [])]);
  return Object.fromEntries(results) as Record<Name, Percentiles>;
}

/** Both as quotients, p50 beside p50 and p99 beside p99. */
export function ratioOf(one: Percentiles, base: Percentiles): { p50: number; p99: number } {
  return { p50: round(one.p50Ms / base.p50Ms), p99: round(one.p99Ms / base.p99Ms) };
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Decimal megabytes of one field of a process, null where there is no /proc. */
export function memoryMB(pid: number | null | undefined, field: 'VmRSS' | 'VmHWM' = 'VmRSS'): number | null {
  if (pid === null || pid === undefined || process.platform !== 'linux') return null;
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return match === null ? null : round((Number(match[1]) * 1024) / 1e6);
}
