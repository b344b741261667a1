// Why: one loaded release: the queue before its process, its deadlines, what runs next, and what it adds up to.
// Trusts: the release was verified and admitted (host.ts). Must never: let one request wait without a deadline, or
// answer it twice.

import { Bag } from '../../shared/kernel/bag.ts';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { createBatchTrial } from './batch-trial.ts';
import { type BatchTerms, batchPart, planBatch } from './batching.ts';
import type { CountersWriter, ReleaseCounters } from './counters.ts';
import { type Executed, execute, type Ran, type Runnable } from './execution.ts';
import { createKeeper, type KeeperOptions, type Restarts, type Seat, unloading } from './keeper.ts';
import type { ChildMemory } from './pipe.ts';
import type { InputAhead } from './process.ts';
import { createPace, createQueue } from './queue.ts';
import type { Cancellation } from './served.ts';
import type { Player, Turns } from './turns.ts';

export type RunAnswer = Ran;

export interface SlotHealth {
  requests: number;
  errors: number;
  latencyP95Ms: number | null;
}

export interface RunLimits {
  /** Shorter than the slot's own. Its end costs the request its answer, not the process its life. */
  deadlineMs?: number | undefined;
  /** Aborted: a request that waits is dropped, one that runs is finished and thrown away. */
  signal?: Cancellation | undefined;
  /** What `ahead` gave for its input. */
  ahead?: InputAhead | undefined;
}

export interface Slot {
  /** Brings the first child up; a refusal leaves nothing running. */
  start(): Promise<Result<void>>;
  /**
   * Runs one request, in order of arrival. `client` requests are counted and, where the child dies
   * under them, tried once more; a `probe` is not. Refusals: `infer-not-ready`, `infer-queue-full`,
   * `infer-deadline`, `infer-invalid`, `infer-failed`, `infer-unsupported`, `model-crashed`,
   * `model-memory-exceeded`, `model-crash-loop`, `interrupted` (the client went away).
   */
  run(
    inputs: Tensor[],
    outputs: string[],
    from: 'client' | 'probe',
    terms?: RunLimits,
  ): Promise<Result<RunAnswer>>;
  /** Where nothing waits and nothing runs: takes a large input while it still comes (`ModelProcess.ahead`). */
  ahead(whole: Uint8Array): InputAhead | null;
  memory(): Promise<Result<ChildMemory>>;
  ready(): boolean;
  /** Why it is not ready. */
  trouble(): Refusal | null;
  /** Client requests since `beginService`. */
  health(): SlotHealth;
  /** Starts counting anew: from here on it answers clients. */
  beginService(): void;
  pid(): number | null;
  /** Resident bytes of the process when last looked at. */
  rssBytes(): number | null;
  /** Of the process that is there, or was there last. */
  provider(): string | null;
  counters: ReleaseCounters;
  /** Counts a request that was refused before it came here. */
  refused(refusal: Refusal): void;
  waiting(): number;
  restarts(): Restarts;
  /** Resolves when nobody waits and nothing runs. */
  idle(): Promise<void>;
  /** Ends the child; whoever still waits is refused. Idempotent. */
  close(): Promise<void>;
}

export interface SlotOptions extends Omit<KeeperOptions, 'onReady' | 'onPause'> {
  clock: Clock;
  counters: CountersWriter;
  turns: Turns;
  /** Threads that a run keeps busy. */
  threads: () => number;
  batch: BatchTerms | null;
  deadlineMs: number;
  queueMax: number;
}

interface Job extends Runnable {
  from: 'client' | 'probe';
  settled: boolean;
  arrivedAtMs: number;
  startedAtMs: number;
  dueAtMs: number;
  rows: number;
  settle: (answer: Result<RunAnswer>) => void;
}

/** Runs remembered for the latency: enough for a 95th percentile, 4 KiB. */
const latenciesKept = 512;
/**
 * Requests in a child's pipe, where its last run was fast: such a model would wait for the agent's wake-up longer
 * than it runs. Behind a slow one they wait here, where they can still be dropped. The pipe is filled again when half
 * of them are answered, so that one write carries several.
 */
const pipelinedMax = 8;
const pipelinedRunMsMax = 1;
/** Deaths that end a client's request: the first may be somebody else's doing. A probe's first one is evidence. */
const clientDeaths = 2;
/** What the caller did says nothing about the release, a full queue little. */
const noErrors: ReadonlySet<string> = new Set(['infer-invalid', 'infer-queue-full', 'interrupted']);

/** Nearest-rank percentile of what was measured, null where nothing was. */
export function percentile(values: readonly number[], fraction: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)] ?? null;
}

export function createSlot(options: SlotOptions): Slot {
  const { clock, log, names, counters, batch } = options;
  const queue = createQueue<Job>(options.queueMax);
  const pace = createPace();
  const idleWaiters: (() => void)[] = [];
  const latenciesMs: number[] = [];
  /** In a process, settled or not. */
  const underWay = new Bag<Job>();
  let runs = 0;
  let lastRunMs = Number.POSITIVE_INFINITY;
  let closed = false;
  let requests = 0;
  let errors = 0;
  let ranInTurn = false;
  let provider: string | null = null;
  let batchTimer: Timer | null = null;
  let deadline: { timer: Timer; dueAtMs: number } | null = null;

  const trial = createBatchTrial(batch !== null, (reason) =>
    log.emit('warn', 'inference.batching.off', { ...names, reason }),
  );
  const keeper = createKeeper({
    ...options,
    onReady: () => pump(),
    onPause: (refusal) => refuseQueue(refusal),
  });
  const turn: Player = options.turns.join(options.threads, () => pump());

  const count = (job: Job, answer: Result<RunAnswer>): void => {
    requests++;
    const totalMs = clock.mono() - job.arrivedAtMs;
    if (answer.ok) {
      const { runMs } = answer.value;
      const queueMs = job.startedAtMs - job.arrivedAtMs;
      const rest = Math.max(0, totalMs - queueMs - runMs);
      // Both ways over the pipe together; halves until the child says which was which.
      const parts = { queueMs, inputMs: rest / 2, runMs, outputMs: rest / 2, totalMs, rows: job.rows };
      counters.answer(parts, clock.wall());
      latenciesMs.push(runMs);
      if (latenciesMs.length > latenciesKept) latenciesMs.shift();
      return;
    }
    const { code } = answer.refusal;
    if (code === 'interrupted') counters.cancel(totalMs);
    else counters.fail(code, totalMs);
    if (!noErrors.has(code)) errors++;
  };

  const settle = (job: Job, answer: Result<RunAnswer>): void => {
    if (job.settled) return;
    job.settled = true;
    job.ahead?.cancel();
    if (job.from === 'client') count(job, answer);
    job.settle(answer);
  };

  const wakeIdle = (): void => {
    if (runs === 0 && queue.jobs.length === 0) for (const wake of idleWaiters.splice(0)) wake();
  };

  /** One timer for all: it is moved only where a request is due before it, and looks again when it fires. */
  const watchDeadlines = (dueAtMs: number): void => {
    if (deadline !== null && deadline.dueAtMs <= dueAtMs) return;
    deadline?.timer.cancel();
    const timer = clock.timer(Math.max(0, dueAtMs - clock.mono()));
    deadline = { timer, dueAtMs };
    void timer.done.then(() => {
      deadline = null;
      const nowMs = clock.mono();
      let nextMs = Number.POSITIVE_INFINITY;
      for (const job of [...queue.jobs, ...underWay.items]) {
        if (job.settled) continue;
        if (job.dueAtMs > nowMs) nextMs = Math.min(nextMs, job.dueAtMs);
        else
          drop(job, refuse('infer-deadline', `no answer within ${Math.round(nowMs - job.arrivedAtMs)} ms`));
      }
      if (nextMs < Number.POSITIVE_INFINITY) watchDeadlines(nextMs);
      wakeIdle();
    });
  };

  /** Lets go of its tensors and its place where it waits; where it runs, of its answer. */
  const drop = (job: Job, answer: Result<RunAnswer>): void => {
    queue.remove(job);
    settle(job, answer);
  };

  const refuseQueue = (refusal: Refusal): void => {
    for (const job of queue.clear()) settle(job, { ok: false, refusal });
    endTurn();
    wakeIdle();
  };

  const endTurn = (): void => {
    if (runs > 0) return;
    ranInTurn = false;
    turn.end();
  };

  /** Whether a run may begin now. While others wait, what is in the process is answered and the turn is over. */
  const hasTurn = (): boolean => {
    if (turn.holds() && ranInTurn && turn.wanted()) {
      if (runs > 0) return false;
      endTurn();
    }
    return turn.take();
  };

  const waitForMore = (untilMs: number): void => {
    if (batchTimer !== null) return;
    const timer = clock.timer(Math.max(0, untilMs - clock.mono()));
    batchTimer = timer;
    void timer.done.then(() => {
      batchTimer = null;
      pump();
    });
  };

  const begin = (jobs: Job[], seat: Seat): void => {
    const nowMs = clock.mono();
    pace.begun(nowMs);
    for (const job of jobs) {
      queue.remove(job);
      underWay.add(job);
      job.startedAtMs = nowMs;
    }
    seat.inFlight++;
    runs++;
    ranInTurn = true;
    void execute(jobs, seat, { deadlineMs: options.deadlineMs, trial }).then((done) =>
      finish(jobs, seat, done),
    );
  };

  const finish = (jobs: Job[], seat: Seat, done: Executed<Job>): void => {
    seat.inFlight--;
    runs--;
    if (done.lost) keeper.lost(seat);
    if (done.runMs !== null) {
      lastRunMs = done.runMs;
      seat.answered += jobs.length;
      pace.answered(jobs.length, clock.mono());
      if (jobs[0]?.from === 'client')
        counters.execution(
          jobs.reduce((rows, job) => rows + job.rows, 0),
          done.runMs,
        );
    }
    for (const job of jobs) {
      underWay.delete(job);
      job.startedAtMs += done.waitedMs;
    }
    for (const { job, answer } of done.outcomes) settle(job, answer);
    queue.giveBack(done.again.filter(mayRunAgain));
    keeper.settled(seat);
    pump();
  };

  const mayRunAgain = (job: Job): boolean => {
    // Nobody should wait for a process that keeps dying.
    if (closed || keeper.pausing()) settle(job, { ok: false, refusal: keeper.trouble() ?? unloading });
    return !job.settled;
  };

  const pump = (): void => {
    const seat = keeper.seat();
    const batching = trial.on();
    // Behind a batch others wait here, where they make the next one larger.
    const room = !batching && lastRunMs < pipelinedRunMsMax ? pipelinedMax : 1;
    if (seat !== null && seat.inFlight <= room / 2) {
      while (seat.inFlight < room) {
        const plan = planBatch(queue.jobs, batching ? batch : null, clock.mono());
        if (plan === null) break;
        if ('waitUntilMs' in plan) {
          waitForMore(plan.waitUntilMs);
          break;
        }
        if (!hasTurn()) break;
        begin(plan.run, seat);
      }
    }
    if (runs === 0 && (queue.jobs.length === 0 || turn.holds())) endTurn();
    wakeIdle();
  };

  const submit: Slot['run'] = (inputs, outputs, from, terms = {}) =>
    new Promise((resolve) => {
      const nowMs = clock.mono();
      const deadlineMs = Math.min(options.deadlineMs, terms.deadlineMs ?? Number.POSITIVE_INFINITY);
      const part = !trial.on() ? null : batchPart(inputs);
      const { signal } = terms;
      const job: Job = {
        inputs,
        outputs,
        from,
        ahead: terms.ahead,
        part: part !== null && from === 'client' ? part : null,
        rows: batch === null ? 1 : (part?.rows ?? 1),
        deathsLeft: from === 'client' ? clientDeaths : 1,
        trial: null,
        settled: false,
        arrivedAtMs: nowMs,
        startedAtMs: nowMs,
        dueAtMs: nowMs + deadlineMs,
        settle: (answer) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(answer);
        },
      };
      const onAbort = (): void => {
        drop(job, refuse('interrupted', 'the client went away'));
        pump();
      };
      const refusal = refusalNow(signal);
      if (refusal !== null) return settle(job, { ok: false, refusal });
      queue.add(job);
      signal?.addEventListener('abort', onAbort);
      watchDeadlines(job.dueAtMs);
      pump();
    });

  const refusalNow = (signal: Cancellation | undefined): Refusal | null => {
    if (closed) return unloading;
    if (signal?.aborted === true) return { code: 'interrupted', detail: 'the client went away' };
    if (keeper.pausing()) return keeper.trouble();
    if (queue.jobs.length < options.queueMax) return null;
    const retryAfterMs = pace.waitMs(queue.jobs.length);
    return {
      code: 'infer-queue-full',
      detail: `${queue.jobs.length} requests wait for this model`,
      retryAfterMs,
    };
  };

  return {
    start: keeper.start,
    run: submit,
    ahead: (whole) => {
      const seat = keeper.seat();
      // Behind others it would only take room that their inputs need.
      const idle = queue.jobs.length === 0 && seat?.inFlight === 0 && !closed && !trial.on();
      return idle ? seat.process.ahead(whole) : null;
    },
    memory: async () => {
      const seat = keeper.seat();
      if (seat === null) return { ok: false, refusal: keeper.trouble() ?? unloading };
      const told = await seat.process.ask({ kind: 'memory' }, [], options.deadlineMs);
      if (!told.ok) return told;
      const { rssBytes, peakBytes } = told.value.reply;
      return ok({ rssBytes, peakBytes });
    },
    ready: () => keeper.seat() !== null && !closed,
    trouble: keeper.trouble,
    health: () => ({ requests, errors, latencyP95Ms: percentile(latenciesMs, 0.95) }),
    beginService: () => {
      requests = 0;
      errors = 0;
      latenciesMs.length = 0;
    },
    pid: () => keeper.seat()?.process.pid ?? null,
    rssBytes: () => keeper.seat()?.rssBytes ?? null,
    provider: () => {
      provider = keeper.seat()?.provider ?? provider;
      return provider;
    },
    counters,
    refused: ({ code }) => counters.fail(code, 0),
    waiting: () => queue.jobs.length,
    restarts: keeper.restarts,
    idle: () =>
      new Promise((resolve) => {
        idleWaiters.push(resolve);
        wakeIdle();
      }),
    close: async () => {
      closed = true;
      batchTimer?.cancel();
      deadline?.timer.cancel();
      refuseQueue(unloading);
      await keeper.close();
      turn.end();
    },
  };
}
