// Why: seeds run in as many child processes as there are cores, and a child that dies or never ends tells which seed
// it was on. Trusts: `seed-child.ts`. Must never: leave a child behind, or end a process it did not start.

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import { brokenRun, type Runner, stopped } from './runner.ts';
import type { SeedOptions, SeedResult } from './seed-run.ts';

export interface PoolOptions {
  /** URL of a module that exports `runSeed`. */
  world: string;
  jobs: number;
  /** Real time after which a seed counts as one that does not end. */
  seedLimitMs: number;
  clock: Clock;
}

/** From a child: the result, or why the world could not even be loaded. */
export type Reply = { result: SeedResult } | { failed: string };

interface Job {
  options: SeedOptions;
  resolve: (result: SeedResult) => void;
  reject: (error: Error) => void;
}

interface Worker {
  child: ChildProcess;
  job: Job | null;
  timer: Timer | null;
  /** The end of what it wrote to stderr. */
  words: string;
  runs: number;
}

/** A world leaves memory behind in its process, a little with each seed; a fresh one costs a second. */
const runsMax = 250;

const wordsCharsMax = 2_000;
const program = fileURLToPath(new URL('./seed-child.js', import.meta.url));

export function createPool({ world, jobs, seedLimitMs, clock }: PoolOptions): Runner {
  const workers = new Set<Worker>();
  const waiting: Job[] = [];
  let closed = false;

  const free = (): Worker | undefined => {
    for (const worker of workers) if (worker.job === null) return worker;
    return workers.size < jobs ? start() : undefined;
  };
  const next = () => {
    while (!closed && waiting.length > 0) {
      const worker = free();
      if (worker === undefined) return;
      const job = waiting.shift();
      if (job !== undefined) give(worker, job);
    }
  };
  const done = (worker: Worker): Job | null => {
    const { job } = worker;
    worker.timer?.cancel();
    worker.timer = null;
    worker.job = null;
    return job;
  };

  function start(): Worker {
    // Its stdout is nobody's: results come as messages.
    const child = fork(program, [world], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    const worker: Worker = { child, job: null, timer: null, words: '', runs: 0 };
    workers.add(worker);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      worker.words = (worker.words + text).slice(-wordsCharsMax);
    });
    child.on('message', (reply: Reply) => {
      const job = done(worker);
      if (job === null) return;
      worker.runs += 1;
      if (worker.runs >= runsMax) {
        workers.delete(worker);
        // It ends when nobody asks any more.
        child.disconnect();
      }
      job.resolve('result' in reply ? reply.result : brokenRun(job.options.seed, reply.failed));
      next();
    });
    const ended = (how: string) => {
      workers.delete(worker);
      const job = done(worker);
      const words = worker.words.trim();
      job?.resolve(
        brokenRun(job.options.seed, `its process ended: ${how}${words === '' ? '' : `; ${words}`}`),
      );
      next();
    };
    // `close` comes when its stderr was read to the end, `error` where it never started.
    child.on('close', (code, signal) => ended(signal ?? `code ${code}`));
    child.on('error', (error) => ended(error.message));
    return worker;
  }

  function give(worker: Worker, job: Job): void {
    worker.job = job;
    const timer = clock.timer(seedLimitMs);
    worker.timer = timer;
    void timer.done.then(() => {
      if (worker.job !== job) return;
      done(worker);
      workers.delete(worker);
      worker.child.kill('SIGKILL');
      const seconds = Math.round(seedLimitMs / 1_000);
      job.resolve(brokenRun(job.options.seed, `it took longer than ${seconds} s of real time`));
      next();
    });
    // A channel that is gone shows as `close` too.
    worker.child.send(job.options, () => undefined);
  }

  return {
    run: (options) =>
      new Promise((resolve, reject) => {
        if (closed) return reject(stopped());
        waiting.push({ options, resolve, reject });
        next();
      }),
    close: () => {
      closed = true;
      for (const worker of workers) {
        const job = done(worker);
        worker.child.kill('SIGKILL');
        job?.reject(stopped());
      }
      for (const job of waiting.splice(0)) job.reject(stopped());
    },
  };
}
