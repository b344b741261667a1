// Why: loops that sleep until something happens or time is up; many rings are one wake-up.
// Trusts: the Clock port. Must never: lose a ring that came while its loop was busy.

import type { Clock, Timer } from '../../shared/kernel/ports.ts';

export interface Doorbell {
  ring(): void;
  /** Resolves true at the next ring (at once where one came since the last wait), false after `ms`. */
  wait(ms: number): Promise<boolean>;
}

/** For one waiting loop. */
export function createDoorbell(clock: Clock): Doorbell {
  let rung = false;
  let wake: ((byRing: boolean) => void) | null = null;
  return {
    ring: () => {
      rung = true;
      wake?.(true);
    },
    wait: async (ms) => {
      if (!rung) {
        const timer: Timer = clock.timer(ms);
        const ringing = new Promise<boolean>((resolve) => {
          wake = resolve;
        });
        await Promise.race([ringing, timer.done.then(() => false)]);
        wake = null;
        timer.cancel();
      }
      const byRing = rung;
      rung = false;
      return byRing;
    },
  };
}
