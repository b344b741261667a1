// Why: what one model's parts (journal loop, effects, serving) share in memory; none of it is durable.
// Trusts: updater.ts, the one writer of `state`. Must never: be read after `closed`.

import type { Timer } from '../../shared/kernel/ports.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import type { MachineState } from './machine.ts';
import type { Serving } from './serving.ts';
import type { Waits } from './waits.ts';

/** One model as this process knows it. */
export interface Lane {
  as: string;
  state: MachineState;
  /** Grows whenever effects begin; a result of an older generation is dropped. */
  generation: number;
  closed: boolean;
  deadline: Timer | null;
  serving: Serving;
  waits: Waits;
  progress: { doneBytes: number; totalBytes: number } | null;
  /** Why the running effect waits. */
  problem: Reason | null;
}

/** One run of one effect. `current` turns false when the machine has gone on without it. */
export interface Act {
  lane: Lane;
  /** When it was asked for; it begins once the active releases were brought up. */
  sinceMs: number;
  current: () => boolean;
}
