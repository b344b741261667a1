// Why: a clock moved by hand, chance by counting, and a log that says nothing, for tests of single parts.
// Trusts: nothing. Must never: let real time pass.

import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';

export const silent: Log = { emit: () => undefined };

export interface HandClock extends Clock {
  /** Moves time and lets what waited for it run. */
  advance(ms: number): Promise<void>;
}

/** Lets every promise that can go on go on. */
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function handClock(): HandClock {
  let nowMs = 1_000;
  let timers: { atMs: number; fire: () => void }[] = [];
  return {
    wall: () => nowMs,
    mono: () => nowMs,
    timer: (ms) => {
      let fire = (): void => undefined;
      const done = new Promise<void>((resolve) => {
        fire = resolve;
      });
      const entry = { atMs: nowMs + ms, fire };
      timers.push(entry);
      return {
        done,
        cancel: () => {
          timers = timers.filter((timer) => timer !== entry);
        },
      };
    },
    advance: async (ms) => {
      nowMs += ms;
      const due = timers.filter((timer) => timer.atMs <= nowMs);
      timers = timers.filter((timer) => timer.atMs > nowMs);
      for (const timer of due) timer.fire();
      await settle();
    },
  };
}

export function countingEntropy(): Entropy {
  let next = 0;
  const step = (by: number): number => {
    next = (next + by) >>> 0;
    return next;
  };
  return { u32: () => step(0x10000001), bytes: (n) => Uint8Array.from({ length: n }, () => step(37) & 0xff) };
}

/** The real clock, whose wall shows another year. */
export function wallAt(base: Clock, wallMs: number): Clock {
  const offsetMs = wallMs - base.wall();
  return { ...base, wall: () => base.wall() + offsetMs };
}
