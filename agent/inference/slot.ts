// Why: one loaded release: its child, the queue before it, its restarts and what they add up to.
// Trusts: the release was verified and admitted (host.ts). Must never: let one request wait without a
// deadline, blame a request for what another one did, or restart a child that was told to end.

import type { Clock, Log, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { createCounters, type ReleaseCounters } from './counters.ts';
import type { ChildMemory, ChildRequest } from './pipe.ts';
import { type ChildExit, type ModelProcess, neverBegun } from './process.ts';

/** Starts a child and brings it to the point where it answers. */
export type OpenChild = () => Promise<Result<ModelProcess>>;

export interface RunAnswer {
  outputs: Tensor[];
  /** Time inside the runtime, without queue and pipe. */
  runMs: number;
}

export interface SlotHealth {
  requests: number;
  errors: number;
  latencyP95Ms: number | null;
}

export interface Slot {
  /** Brings the first child up; a refusal leaves nothing running. */
  start(): Promise<Result<void>>;
  /**
   * Runs one request, in order of arrival. `client` requests are counted and, where the child dies
   * under them, tried once more; a `probe` is not. Refusals: `infer-not-ready`, `infer-queue-full`,
   * `infer-deadline`, `infer-invalid`, `infer-failed`, `infer-unsupported`, `model-crashed`.
   */
  run(inputs: Tensor[], outputs: string[], from: 'client' | 'probe'): Promise<Result<RunAnswer>>;
  memory(): Promise<Result<ChildMemory>>;
  ready(): boolean;
  /** Why it is not ready. */
  trouble(): Refusal | null;
  /** Client requests since `beginService`. */
  health(): SlotHealth;
  /** Starts counting anew: from here on it answers clients. */
  beginService(): void;
  pid(): number | null;
  counters: ReleaseCounters;
  waiting(): number;
  restarts(): { crashed: number; recycled: number; stuck: number; overMemory: number };
  /** Resolves when nobody waits and nothing runs. */
  idle(): Promise<void>;
  /** Ends the child; whoever still waits is refused. Idempotent. */
  close(): Promise<void>;
}

export interface SlotOptions {
  clock: Clock;
  log: Log;
  /** Ids for the log. */
  names: { as: string; release: string };
  open: OpenChild;
  deadlineMs: number;
  queueMax: number;
}

interface Job {
  request: ChildRequest & { kind: 'run' | 'memory' };
  inputs: Tensor[];
  from: 'client' | 'probe';
  attempts: number;
  settled: boolean;
  arrivedAtMs: number;
  startedAtMs: number;
  timer: Timer;
  settle: (answer: Result<RunAnswer & { memory: ChildMemory | null }>) => void;
}

/** Runs remembered for the latency: enough for a 95th percentile, 4 KiB. */
const latenciesKept = 512;
/** Restart delays: at once after a first death, then doubled; forgotten after a minute of life. */
const restartBaseMs = 500;
const restartMaxMs = 30_000;
const stableMs = 60_000;
/**
 * Requests in a child's pipe, where its last run was fast: such a model would wait for the agent's wake-up longer
 * than it runs. Behind a slow one they wait here, where they can still be dropped. The pipe is filled again when half
 * of them are answered, so that one write carries several.
 */
const pipelinedMax = 8;
const pipelinedRunMsMax = 1;

/** Nearest-rank percentile of what was measured, null where nothing was. */
export function percentile(values: readonly number[], fraction: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)] ?? null;
}

export function createSlot(options: SlotOptions): Slot {
  const { clock, log, names } = options;
  const queue: Job[] = [];
  const idleWaiters: (() => void)[] = [];
  const latenciesMs: number[] = [];
  let child: ModelProcess | null = null;
  /** Requests in the child, the first of which it works on. */
  let inChild = 0;
  let lastRunMs = Number.POSITIVE_INFINITY;
  /** Requests at the head of the queue that came back from a child that died. */
  let returned = 0;
  let closed = false;
  let deaths = 0;
  let backoff: Timer | null = null;
  let trouble: Refusal | null = { code: 'infer-not-ready', detail: 'the model is loading' };
  let requests = 0;
  let errors = 0;
  const counters = createCounters();
  const restarts = { crashed: 0, recycled: 0, stuck: 0, overMemory: 0 };

  const settle = (job: Job, answer: Result<RunAnswer & { memory: ChildMemory | null }>): void => {
    if (job.settled) return;
    job.settled = true;
    job.timer.cancel();
    if (job.from === 'client' && job.request.kind === 'run') {
      requests++;
      // What the caller gave wrong says nothing about the release, a full queue little.
      if (!answer.ok && answer.refusal.code !== 'infer-invalid' && answer.refusal.code !== 'infer-queue-full')
        errors++;
      const totalMs = clock.mono() - job.arrivedAtMs;
      if (!answer.ok) counters.fail(answer.refusal.code, totalMs);
      if (answer.ok) {
        const { runMs } = answer.value;
        const queueMs = job.startedAtMs - job.arrivedAtMs;
        const rest = Math.max(0, totalMs - queueMs - runMs);
        // Both ways over the pipe together; halves until the child says which was which.
        const parts = { queueMs, inputMs: rest / 2, runMs, outputMs: rest / 2, totalMs, rows: 1 };
        counters.answer(parts, clock.wall());
        counters.execution(1, runMs);
        latenciesMs.push(answer.value.runMs);
        if (latenciesMs.length > latenciesKept) latenciesMs.shift();
      }
    }
    job.settle(answer);
  };

  const wakeIdle = (): void => {
    if (inChild === 0 && queue.length === 0) for (const wake of idleWaiters.splice(0)) wake();
  };

  const pump = (): void => {
    const room = lastRunMs < pipelinedRunMsMax ? pipelinedMax : 1;
    const low = inChild <= room / 2;
    while (low && child !== null && inChild < room) {
      const job = queue.shift();
      if (job === undefined) break;
      if (job.settled) continue;
      inChild++;
      void serve(job, child).then(() => {
        inChild--;
        pump();
      });
    }
    wakeIdle();
  };

  const serve = async (job: Job, by: ModelProcess): Promise<void> => {
    job.attempts++;
    job.startedAtMs = clock.mono();
    const answer = await by.ask(job.request, job.inputs, options.deadlineMs);
    if (answer.ok) {
      const { reply, tensors, waitedMs } = answer.value;
      job.startedAtMs += waitedMs;
      const runMs = reply.kind === 'ran' ? reply.runMs : 0;
      if (reply.kind === 'ran') lastRunMs = runMs;
      const memory =
        reply.kind === 'memory' ? { rssBytes: reply.rssBytes, peakBytes: reply.peakBytes } : null;
      return settle(job, ok({ outputs: tensors, runMs, memory }));
    }
    const untouched = answer.refusal === neverBegun;
    if (untouched) job.attempts--;
    // Requests carry all their state, so that a death in mid-run may be somebody else's doing.
    const again = untouched || (answer.refusal.code === 'model-crashed' && job.from === 'client');
    if (again && job.attempts < 2 && !job.settled && !closed) {
      if (child === by) child = null;
      queue.splice(returned++, 0, job);
      return;
    }
    settle(job, answer);
  };

  const adopt = (opened: ModelProcess): void => {
    child = opened;
    returned = 0;
    trouble = null;
    log.emit('info', 'inference.child.started', { ...names, pid: opened.pid });
    void opened.exited.then((exit) => onExit(opened, exit));
    pump();
  };

  const onExit = (gone: ModelProcess, exit: ChildExit): void => {
    if (child === gone) child = null;
    log.emit(closed ? 'info' : 'error', 'inference.child.exited', {
      ...names,
      pid: gone.pid,
      reason: exit.reason,
      livedMs: Math.round(exit.livedMs),
    });
    if (closed) return;
    restarts.crashed += 1;
    if (exit.livedMs > stableMs) deaths = 0;
    void restart(exit.reason);
  };

  const refuseQueue = (refusal: Refusal): void => {
    for (const job of queue.splice(0)) settle(job, { ok: false, refusal });
    wakeIdle();
  };

  const restart = async (reason: string): Promise<void> => {
    for (let why = reason; !closed; ) {
      const delayMs = deaths === 0 ? 0 : Math.min(restartMaxMs, restartBaseMs * 2 ** (deaths - 1));
      deaths++;
      if (delayMs > 0) {
        // Nobody should wait for a child that keeps dying: refuse now, the caller may try again later.
        trouble = {
          code: 'infer-not-ready',
          detail: `the model's process ended (${why}) and is started again`,
        };
        refuseQueue(trouble);
        backoff = clock.timer(delayMs);
        await backoff.done;
        backoff = null;
      } else {
        trouble = { code: 'infer-not-ready', detail: 'the model is loading again' };
      }
      if (closed) return;
      const opened = await options.open();
      if (opened.ok && !closed) return adopt(opened.value);
      if (opened.ok) return opened.value.kill();
      why = opened.refusal.detail;
      trouble = opened.refusal;
      log.emit('error', 'inference.child.exited', { ...names, code: opened.refusal.code });
    }
  };

  const submit = (request: Job['request'], inputs: Tensor[], from: Job['from']) =>
    new Promise<Result<RunAnswer & { memory: ChildMemory | null }>>((resolve) => {
      if (closed) return resolve(refuse('infer-not-ready', 'the model is being unloaded'));
      if (child === null && backoff !== null && trouble !== null)
        return resolve({ ok: false, refusal: trouble });
      if (queue.length >= options.queueMax) {
        return resolve(refuse('infer-queue-full', `${queue.length} requests wait for this model`));
      }
      const timer = clock.timer(options.deadlineMs);
      const nowMs = clock.mono();
      const job: Job = {
        request,
        inputs,
        from,
        attempts: 0,
        settled: false,
        arrivedAtMs: nowMs,
        startedAtMs: nowMs,
        timer,
        settle: resolve,
      };
      void timer.done.then(() => {
        settle(job, refuse('infer-deadline', `no answer within ${options.deadlineMs} ms`));
        // Still queued: let go of its tensors and its place. In the child: the child has its own deadline.
        const at = queue.indexOf(job);
        if (at >= 0) queue.splice(at, 1);
        wakeIdle();
      });
      queue.push(job);
      pump();
    });

  return {
    start: async () => {
      const opened = await options.open();
      if (!opened.ok) {
        closed = true;
        trouble = opened.refusal;
        return opened;
      }
      if (closed) {
        opened.value.kill();
        return refuse('update-superseded', 'unloaded while it was loading');
      }
      adopt(opened.value);
      return ok();
    },
    run: (inputs, outputs, from) => submit({ kind: 'run', outputs }, inputs, from),
    memory: async () => {
      const answer = await submit({ kind: 'memory' }, [], 'probe');
      if (!answer.ok) return answer;
      return answer.value.memory === null
        ? refuse('internal', 'no memory in the answer')
        : ok(answer.value.memory);
    },
    ready: () => child !== null && !closed,
    trouble: () => (child !== null && !closed ? null : trouble),
    health: () => ({ requests, errors, latencyP95Ms: percentile(latenciesMs, 0.95) }),
    beginService: () => {
      requests = 0;
      errors = 0;
      latenciesMs.length = 0;
    },
    pid: () => child?.pid ?? null,
    counters,
    waiting: () => queue.length,
    restarts: () => ({ ...restarts }),
    idle: () =>
      new Promise((resolve) => {
        idleWaiters.push(resolve);
        wakeIdle();
      }),
    close: async () => {
      if (closed && child === null) return;
      closed = true;
      trouble = { code: 'infer-not-ready', detail: 'the model is being unloaded' };
      backoff?.cancel();
      refuseQueue(trouble);
      const ending = child;
      ending?.kill();
      await ending?.exited;
    },
  };
}
