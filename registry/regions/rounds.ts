// Why: work that is woken by news or by time: one round at a time, not more often than once in a while, never forgotten.
// Trusts: the work to find everything it needs in the store. Must never: let one failure end it.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Log, Timer } from '../../shared/kernel/ports.ts';

export interface Rounds {
  /** There is news. */
  wake(): void;
  start(): void;
  /** Ends after the round that is under way. Idempotent. */
  stop(): Promise<void>;
}

/** Rest, in times of the work, so that others get their turn where there is much to be counted. */
const gapShare = 4;

export function createRounds(parts: {
  clock: Clock;
  log: Log;
  /** Between the ends of two rounds, at least. */
  gapMs: number;
  /** After a round that failed. */
  retryMs: number;
  /** Returns when to look again, wall time; null: when there is news. */
  work(): Promise<number | null>;
}): Rounds {
  const { clock, log, gapMs, retryMs } = parts;
  let news = true;
  let started = false;
  let stopped = false;
  let running: Promise<void> | null = null;
  let sleep: Timer | null = null;
  let endGap: () => void = () => undefined;

  async function round(): Promise<number | null> {
    try {
      return await parts.work();
    } catch (thrown) {
      const error = asFleetError(thrown);
      log.emit('error', 'regions.orders.failed', { code: error.code, detail: error.message });
      return clock.wall() + retryMs;
    }
  }

  async function gap(workedMs: number): Promise<void> {
    const pause = clock.timer(Math.max(gapMs, gapShare * workedMs));
    const cut = new Promise<void>((resolve) => {
      endGap = resolve;
    });
    await Promise.race([pause.done, cut]);
    pause.cancel();
  }

  async function rounds(): Promise<void> {
    while (news && !stopped) {
      news = false;
      sleep?.cancel();
      const beganMs = clock.mono();
      const atMs = await round();
      if (stopped) return;
      if (atMs !== null) sleepUntil(atMs);
      await gap(clock.mono() - beganMs);
    }
  }

  function sleepUntil(atMs: number): void {
    const timer = clock.timer(Math.max(gapMs, atMs - clock.wall()));
    sleep = timer;
    void timer.done.then(() => {
      // One that was cancelled is done as well.
      if (sleep === timer) wake();
    });
  }

  function wake(): void {
    news = true;
    if (!started || stopped || running !== null) return;
    running = rounds().finally(() => {
      running = null;
      if (news) wake();
    });
  }

  return {
    wake,
    start() {
      started = true;
      wake();
    },
    async stop() {
      stopped = true;
      sleep?.cancel();
      endGap();
      await running;
    },
  };
}
