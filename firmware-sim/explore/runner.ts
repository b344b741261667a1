// Why: one way to have a seed run, whether in this process or in a child, so that explorer and shrinker do not care.
// Trusts: a world to be deterministic. Must never: let a run that itself failed count as one that held.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { RunSeed, SeedOptions, SeedResult } from './seed-run.ts';

export interface Runner {
  /** Never throws for what a seed does: a run that fails is a violation. Fault: `interrupted` after `close`. */
  run(options: SeedOptions): Promise<SeedResult>;
  /** Ends what runs; idempotent. */
  close(): void;
}

/** What is told of a seed whose run gave no result. */
export function brokenRun(seed: number, violation: string): SeedResult {
  return {
    seed,
    violation,
    endedAtMs: 0,
    faults: [],
    operations: 0,
    devices: 0,
    traceSha256: '',
    trace: [],
    marks: [],
    coverage: {},
  };
}

export function failedRun(seed: number, thrown: unknown): SeedResult {
  const what = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  return brokenRun(seed, `the run itself failed: ${what}`);
}

export const stopped = () => new FleetError('interrupted', 'the seeds that were under way were given up');

/** One seed after the other, here: what a debugger wants. A seed that never ends is not noticed. */
export function inThisProcess(runSeed: RunSeed): Runner {
  let stop: (error: FleetError) => void = () => undefined;
  const whenStopped = new Promise<never>((_, reject) => {
    stop = reject;
  });
  // Whoever waits for a run hears of it; without one there is nobody to tell.
  whenStopped.catch(() => undefined);
  let turn: Promise<unknown> = Promise.resolve();
  const one = (options: SeedOptions): Promise<SeedResult> =>
    runSeed(options).catch((thrown: unknown) => failedRun(options.seed, thrown));
  return {
    run: (options) => {
      // The guard around a world shuts globals: two worlds at once would open them too early.
      const mine = turn.then(() => one(options));
      turn = mine;
      return Promise.race([mine, whenStopped]);
    },
    close: () => stop(stopped()),
  };
}
