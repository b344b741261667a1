// Why: the real clock behind the Clock port; with entropy.ts and disk.ts the only place of its kind.
// Trusts: the operating system's clocks. Must never: be imported by a core; cores get a Clock.

import { performance } from 'node:perf_hooks';
import type { Clock, Timer } from '../kernel/ports.ts';

/** Longest delay of one setTimeout; a longer one would fire at once, so it is waited for in parts. */
const delayMsMax = 0x7fffffff;

function startTimer(ms: number): Timer {
  let handle: NodeJS.Timeout | undefined;
  const done = new Promise<void>((resolve) => {
    const wait = (leftMs: number): void => {
      const partMs = Math.min(leftMs, delayMsMax);
      handle = setTimeout(() => (leftMs > partMs ? wait(leftMs - partMs) : resolve()), partMs);
    };
    wait(Math.max(0, ms));
  });
  return { done, cancel: () => clearTimeout(handle) };
}

/** Wall time may jump, monotonic time starts at process start. A running timer keeps the process alive. */
export const systemClock: Clock = {
  wall: () => Date.now(),
  mono: () => performance.now(),
  timer: startTimer,
};
