// Why: the device has few cores and several models: who may run now is decided in rounds, so that a model with a
// full queue never starves another. Trusts: its players to end their turns. Must never: let a run that does not end
// keep the others from theirs.

import { Bag } from '../../shared/kernel/bag.ts';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';

export interface Player {
  /** True: its turn is now (or was already). False: `wake` is called when it comes. Idempotent. */
  take(): boolean;
  /** Ends its turn, or its wait for one. Idempotent. */
  end(): void;
  /** Whether it has the turn. */
  holds(): boolean;
  /** Whether somebody waits for a turn. */
  wanted(): boolean;
}

export interface Turns {
  /** `threads`: what a run of this player keeps busy; asked at each turn. */
  join(threads: () => number, wake: () => void): Player;
}

export interface TurnsOptions {
  clock: Clock;
  /** Threads that may be busy at once. */
  threads: number;
  /** A turn that lasts longer no longer counts: the system's scheduler shares the cores then. */
  turnMs: number;
}

interface Turn {
  threads: number;
  sinceMs: number;
  /** Still counted against the threads. */
  counted: boolean;
}

/** First come, first served among those who wait; who had a turn and wants another stands at the end again. */
export function createTurns({ clock, threads: threadsMax, turnMs }: TurnsOptions): Turns {
  const waiting: { threads: () => number; grant: (turn: Turn) => void }[] = [];
  const running = new Bag<Turn>();
  let busy = 0;
  let lease: Timer | null = null;

  const leave = (turn: Turn): void => {
    running.delete(turn);
    if (turn.counted) busy -= turn.threads;
  };

  const begin = (wanted: number): Turn => {
    const turn = { threads: Math.min(wanted, threadsMax), sinceMs: clock.mono(), counted: true };
    running.add(turn);
    busy += turn.threads;
    return turn;
  };

  const fits = (wanted: number): boolean => busy + Math.min(wanted, threadsMax) <= threadsMax;

  const grant = (): void => {
    for (let next = waiting[0]; next !== undefined && fits(next.threads()); next = waiting[0]) {
      waiting.shift();
      next.grant(begin(next.threads()));
    }
    watch();
  };

  /** While somebody waits, turns that last too long are given up. */
  const watch = (): void => {
    if (lease !== null || waiting.length === 0) return;
    let firstMs = Number.POSITIVE_INFINITY;
    for (const turn of running.items) if (turn.counted) firstMs = Math.min(firstMs, turn.sinceMs + turnMs);
    if (firstMs === Number.POSITIVE_INFINITY) return;
    const timer = clock.timer(Math.max(1, firstMs - clock.mono()));
    lease = timer;
    void timer.done.then(() => {
      lease = null;
      const nowMs = clock.mono();
      for (const turn of running.items) {
        if (!turn.counted || nowMs < turn.sinceMs + turnMs) continue;
        turn.counted = false;
        busy -= turn.threads;
      }
      grant();
    });
  };

  return {
    join: (threads, wake) => {
      let turn: Turn | null = null;
      const place = {
        threads,
        grant: (granted: Turn): void => {
          turn = granted;
          wake();
        },
      };
      return {
        take: () => {
          if (turn !== null) return true;
          if (waiting.includes(place)) return false;
          if (waiting.length === 0 && fits(threads())) {
            turn = begin(threads());
            return true;
          }
          waiting.push(place);
          watch();
          return false;
        },
        end: () => {
          const at = waiting.indexOf(place);
          if (at >= 0) waiting.splice(at, 1);
          if (turn !== null) leave(turn);
          turn = null;
          if (waiting.length === 0) {
            lease?.cancel();
            lease = null;
          } else grant();
        },
        holds: () => turn !== null,
        wanted: () => waiting.length > 0,
      };
    },
  };
}

/**
 * Threads of one session: what its manifest says, never more than there are cores; else half of the cores, shared by
 * the models that are loaded, at least one. Decided when a process starts.
 */
export function threadsOf(wanted: number | undefined, cores: number, models: () => number): number {
  if (wanted !== undefined) return Math.max(1, Math.min(wanted, cores));
  return Math.max(1, Math.floor(cores / 2 / Math.max(1, models())));
}
