// Why: keeps a process of one release alive: starts it, starts it again when it died, replaces it when it has grown.
// Trusts: `open` to hand over a process that answers. Must never: end a process that has not answered what it was
// given, but for its deadline and its memory, or restart one that was told to end.

import type { Clock, Log, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { CrashHistory } from './crash-loop.ts';
import type { MemoryJudge } from './memory-budget.ts';
import type { MemoryWatch } from './memory-watch.ts';
import type { ChildExit, ModelProcess } from './process.ts';

export interface OpenedChild {
  process: ModelProcess;
  provider: string;
}

/** Starts a child, says which, and brings it to the point where it answers. */
export type OpenChild = (started: (child: ModelProcess) => void) => Promise<Result<OpenedChild>>;

export interface Restarts {
  crashed: number;
  recycled: number;
  stuck: number;
  overMemory: number;
}

/** A process at work. */
export interface Seat {
  readonly process: ModelProcess;
  readonly provider: string;
  /** Runs it was given and has not answered. */
  inFlight: number;
  answered: number;
  rssBytes: number | null;
  /** It gets no more requests and ends when it has answered those it has. */
  retired: boolean;
  /** Why it was ended before it had answered; null: it was not. */
  endedFor: Refusal | null;
  /** Ends the watch of its memory; more than once is as good as once. */
  unwatch: () => void;
}

export interface Keeper {
  /** Brings the first process up; a refusal leaves nothing running. */
  start(): Promise<Result<void>>;
  /** The process that takes requests now. */
  seat(): Seat | null;
  /** Why there is none; also while one is on its way. */
  trouble(): Refusal | null;
  /** Whether it pauses before the next start: nobody should wait for that. */
  pausing(): boolean;
  /** It answered, or will never answer. Call after each run. */
  settled(seat: Seat): void;
  /** A run came back with the death of its process. */
  lost(seat: Seat): void;
  restarts(): Restarts;
  close(): Promise<void>;
}

export interface KeeperOptions {
  clock: Clock;
  log: Log;
  /** Ids for the log. */
  names: { as: string; release: string };
  open: OpenChild;
  crashes: CrashHistory;
  memory: { watch: MemoryWatch; judge: MemoryJudge; limitBytes: () => number };
  /** A process takes requests. */
  onReady: () => void;
  /** It died again, after a short life. */
  onTrouble: (refusal: Refusal) => void;
  /** It pauses before it tries again: nobody should wait for that. */
  onPause: (refusal: Refusal) => void;
}

export const unloading: Refusal = { code: 'infer-not-ready', detail: 'the model is being unloaded' };

export function createKeeper(options: KeeperOptions): Keeper {
  const { clock, log, names, open, crashes, memory } = options;
  const restarts: Restarts = { crashed: 0, recycled: 0, stuck: 0, overMemory: 0 };
  /** All that were not seen to end. */
  const seats = new Set<Seat>();
  let current: Seat | null = null;
  let trouble: Refusal | null = { code: 'infer-not-ready', detail: 'the model is loading' };
  let pause: Timer | null = null;
  /** A process on its way: the first, one in the place of one that died, or one that will replace another. */
  let successor: Promise<Result<OpenedChild>> | null = null;
  let starting: ModelProcess | null = null;
  let closed = false;

  const openNext = (): Promise<Result<OpenedChild>> => {
    successor = open((child) => {
      starting = child;
      if (closed) child.kill();
    });
    return successor;
  };

  const adopt = (opened: OpenedChild): void => {
    const seat: Seat = {
      ...opened,
      inFlight: 0,
      answered: 0,
      rssBytes: null,
      retired: false,
      endedFor: null,
      unwatch: () => undefined,
    };
    seats.add(seat);
    current = seat;
    trouble = null;
    memory.judge.renewed(clock.mono());
    seat.unwatch = memory.watch.add(seat.process, (rssBytes) => look(seat, rssBytes));
    log.emit('info', 'inference.child.started', { ...names, pid: seat.process.pid });
    void seat.process.exited.then((exit) => {
      seat.unwatch();
      onExit(seat, exit);
    });
    options.onReady();
  };

  /** Whoever watches looks once more while there is something to see. */
  const end = (seat: Seat): void => {
    seat.unwatch();
    seat.process.kill();
  };

  const retire = (seat: Seat): void => {
    seat.retired = true;
    if (seat.inFlight === 0) end(seat);
  };

  const look = (seat: Seat, rssBytes: number): void => {
    seat.rssBytes = rssBytes;
    const limitBytes = memory.limitBytes();
    const seen = { rssBytes, limitBytes, answered: seat.answered, nowMs: clock.mono() };
    // What is on its way out is replaced already; its limit holds all the same.
    const verdict = seat !== current && rssBytes <= limitBytes ? 'fine' : memory.judge.look(seen);
    if (verdict === 'recycle') void recycle(seat);
    if (verdict !== 'kill' || seat.endedFor !== null) return;
    seat.endedFor = overMemory(rssBytes, limitBytes);
    log.emit('error', 'inference.child.over-memory', {
      ...names,
      pid: seat.process.pid,
      rssBytes,
      limitBytes,
    });
    end(seat);
  };

  const recycle = async (seat: Seat): Promise<void> => {
    if (successor !== null || closed) return;
    const { pid } = seat.process;
    log.emit('info', 'inference.child.recycling', { ...names, pid, rssBytes: seat.rssBytes });
    const opening = openNext();
    const opened = await opening;
    // Died meanwhile: `restart` waits for the same successor.
    if (successor !== opening || current !== seat || closed) return;
    successor = null;
    if (!opened.ok) {
      memory.judge.renewed(clock.mono());
      log.emit('warn', 'inference.child.exited', { ...names, code: opened.refusal.code, cause: 'recycled' });
      return;
    }
    restarts.recycled += 1;
    adopt(opened.value);
    retire(seat);
  };

  const onExit = (seat: Seat, exit: ChildExit): void => {
    seats.delete(seat);
    if (current === seat) current = null;
    const cause = seat.retired ? 'recycled' : causeOf(seat, exit);
    log.emit(closed || seat.retired ? 'info' : 'error', 'inference.child.exited', {
      ...names,
      pid: seat.process.pid,
      cause,
      reason: exit.reason,
      livedMs: Math.round(exit.livedMs),
    });
    if (closed || seat.retired) return;
    restarts[causeOf(seat, exit)] += 1;
    crashes.died(clock.mono(), exit.livedMs);
    void restart(seat.endedFor?.detail ?? exit.reason);
  };

  const restart = async (reason: string): Promise<void> => {
    for (let why = reason; !closed; crashes.died(clock.mono(), 0)) {
      const looping = crashes.looping(clock.mono());
      const delayMs = successor === null ? crashes.delayMs(clock.mono()) : 0;
      const detail = `the model's process ended (${why}) and is started again`;
      trouble = { code: looping ? 'model-crash-loop' : 'infer-not-ready', detail, retryAfterMs: delayMs };
      if (crashes.again()) options.onTrouble(trouble);
      if (delayMs > 0) {
        pause = clock.timer(delayMs);
        const { done } = pause;
        options.onPause(trouble);
        await done;
        pause = null;
      }
      if (closed) return;
      const opened = await (successor ?? openNext());
      successor = null;
      if (opened.ok && !closed) return adopt(opened.value);
      if (opened.ok) return opened.value.process.kill();
      why = opened.refusal.detail;
      log.emit('error', 'inference.child.exited', { ...names, code: opened.refusal.code });
    }
  };

  return {
    start: async () => {
      const opened = await openNext();
      successor = null;
      if (closed) {
        if (opened.ok) opened.value.process.kill();
        return refuse('update-superseded', 'unloaded while it was loading');
      }
      if (!opened.ok) {
        closed = true;
        trouble = opened.refusal;
        return opened;
      }
      adopt(opened.value);
      return ok();
    },
    seat: () => current,
    trouble: () => (current !== null && !closed ? null : trouble),
    pausing: () => pause !== null,
    settled: (seat) => {
      if (seat.retired && seat.inFlight === 0) end(seat);
    },
    lost: (seat) => {
      if (current !== seat) return;
      current = null;
      trouble = { code: 'infer-not-ready', detail: 'the model is loading again' };
    },
    restarts: () => ({ ...restarts }),
    close: async () => {
      closed = true;
      trouble = unloading;
      pause?.cancel();
      for (const seat of seats) seat.unwatch();
      const ending = [...seats].map(({ process }) => process);
      if (successor !== null && starting !== null) ending.push(starting);
      for (const child of ending) child.kill();
      await Promise.all(ending.map(({ exited }) => exited));
    },
  };
}

function causeOf(seat: Seat, exit: ChildExit): 'overMemory' | 'stuck' | 'crashed' {
  if (seat.endedFor !== null) return 'overMemory';
  return exit.timedOut ? 'stuck' : 'crashed';
}

export function overMemory(rssBytes: number, limitBytes: number): Refusal {
  const mib = (bytes: number) => Math.round(bytes / 1024 / 1024);
  const detail = `the model's process took ${mib(rssBytes)} MiB, ${mib(limitBytes)} MiB are allowed`;
  return { code: 'model-memory-exceeded', detail };
}
