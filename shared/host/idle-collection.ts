// Why: after a burst of work V8 keeps what it grew to; a device wants it back. One collection once it is quiet.
// Trusts: V8's own collector. Must never: run while there is work, nor again before there was more.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock, Timer } from '../kernel/ports.ts';

export interface IdleCollection {
  /** A piece of work was done. */
  worked(): void;
  stop(): void;
}

/** Quiet for this long. */
const quietMs = 5_000;
/** Less work than this leaves too little behind. */
const workMin = 500;

export function collectWhenIdle(clock: Clock): IdleCollection {
  let work = 0;
  let lastMs = 0;
  let timer: Timer | null = null;
  let stopped = false;

  const wait = async (): Promise<void> => {
    while (!stopped) {
      timer = clock.timer(Math.max(1, lastMs + quietMs - clock.mono()));
      await timer.done;
      if (clock.mono() - lastMs >= quietMs) break;
    }
    timer = null;
    const enough = work >= workMin;
    work = 0;
    if (stopped || !enough) return;
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    setFlagsFromString('--no-expose-gc');
    // Twice: what the first one frees is given back by the second.
    collect();
    collect();
  };

  return {
    worked: () => {
      work += 1;
      lastMs = clock.mono();
      if (timer === null && !stopped) void wait();
    },
    stop: () => {
      stopped = true;
      timer?.cancel();
    },
  };
}
