// Why: one slot without a host around it, for tests that hold its process in their hands.
// Trusts: its caller to close it. Must never: watch memory or pause longer than a test waits.

import { createHistories } from '../../agent/inference/history.ts';
import type { ModelProcess } from '../../agent/inference/process.ts';
import { createSlot, type Slot, type SlotOptions } from '../../agent/inference/slot.ts';
import { createTurns } from '../../agent/inference/turns.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { ok } from '../../shared/kernel/result.ts';

export function loneSlot(start: () => ModelProcess, options: Partial<SlotOptions> = {}): Slot {
  const clock = systemClock;
  return createSlot({
    clock,
    log: { emit: () => undefined },
    names: { as: 'm', release: 'm' },
    open: async () => ok({ process: start(), provider: 'cpu' }),
    ...createHistories(clock).of('m'),
    memory: {
      watch: { add: () => () => undefined },
      judge: { renewed: () => undefined, look: () => 'fine' },
      limitBytes: () => Number.POSITIVE_INFINITY,
    },
    turns: createTurns({ clock, threads: 2, turnMs: 1_000 }),
    threads: () => 1,
    batch: null,
    deadlineMs: 20_000,
    queueMax: 64,
    onTrouble: () => undefined,
    ...options,
  });
}
