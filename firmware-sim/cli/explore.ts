// Why: what surrounds the explorer in a shell: flags, files, children, a terminal and Ctrl-C.
// Trusts: nothing in its flags. Must never: leave a child behind, or be silent about seeds that were not run.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { systemClock } from '../../shared/host/clock.ts';
import { speaker } from '../../shared/host/speech.ts';
import { isTerminal, progress } from '../../shared/host/terminal.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { addCoverage, coverageLines, judgeCoverage } from '../explore/coverage.ts';
import { explore, inOrder } from '../explore/explore.ts';
import { faultIds } from '../explore/kept-seeds.ts';
import { inThisProcess, type Runner } from '../explore/runner.ts';
import type { Coverage, RunSeed } from '../explore/seed-run.ts';
import type { Shrunk } from '../explore/shrink.ts';
import { timelineSvg } from '../explore/timeline.ts';
import { createPool } from '../explore/workers.ts';
import type { FaultId } from '../faults.ts';

/** A seed takes a second or less; on a machine that does ten other things, perhaps a hundred times that. */
const seedLimitMs = 180_000;
const shrinkRunsMax = 600;

export interface RunFlags {
  seed?: number;
  from?: number;
  seeds?: number;
  jobs?: number;
  json: boolean;
  world?: string;
}

export interface ExploreFlags extends RunFlags {
  shrink: boolean;
  svg?: string;
  only?: string;
  untilFailure: boolean;
}

const wrongFlags = (detail: string) => new FleetError('config-invalid', detail);

/** The first seed and how many; without any of the three flags there is nothing to do. */
export function seedsOf({ seed, from, seeds }: RunFlags): { from: number; seeds: number } {
  if (seed !== undefined && from !== undefined)
    throw wrongFlags('--seed and --from name the first seed both; give one of them');
  const first = seed ?? from;
  if (first === undefined && seeds === undefined)
    throw wrongFlags('give --seed N, or --seeds M with or without --from K');
  return { from: first ?? 1, seeds: seeds ?? 1 };
}

/** A file that the shrinker wrote: `{"seed": 7, "only": ["disk.full device-1 3", "step 0"]}`. */
export function readOnly(file: string): { seed: number; only: FaultId[] } {
  let parsed: { seed?: unknown; only?: unknown } | null;
  try {
    parsed = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new FleetError('config-invalid', `--only ${file}: ${String(cause)}`, { cause });
  }
  const seed = parsed?.seed;
  if (typeof seed !== 'number' || !Number.isSafeInteger(seed) || seed < 0)
    throw wrongFlags(`--only ${file}: it names no seed`);
  return { seed, only: faultIds(parsed?.only, file) };
}

function worldUrl(file: string | undefined): string {
  const url =
    file === undefined
      ? new URL('../fleet-world/run-seed.js', import.meta.url)
      : pathToFileURL(resolve(file));
  if (!existsSync(url)) throw wrongFlags(`no world at ${url.pathname}`);
  return url.href;
}

interface Room {
  runner: Runner;
  jobs: number;
  /** Lines for stdout, put where the bar was. */
  write: (line: string) => void;
  tell: (line: string) => void;
  advance: () => void;
  /** True after Ctrl-C. */
  wasStopped: () => boolean;
  leave: () => void;
}

async function enter(flags: RunFlags, seeds: number): Promise<Room> {
  const jobs = flags.jobs ?? Math.min(availableParallelism(), seeds);
  const world = worldUrl(flags.world);
  const inChildren = jobs > 1;
  const runner = inChildren
    ? createPool({ world, jobs, seedLimitMs, clock: systemClock })
    : inThisProcess(((await import(world)) as { runSeed: RunSeed }).runSeed);
  // A bar has a timer, and inside a world that runs in this process timers throw.
  const bar = inChildren ? progress('seeds', seeds) : null;
  const clear = () => {
    if (isTerminal()) process.stderr.write('\r\u001b[K');
  };
  let done = 0;
  let stopped = false;
  const onInterrupt = () => {
    stopped = true;
    runner.close();
  };
  process.once('SIGINT', onInterrupt);
  return {
    runner,
    jobs,
    write: (line) => {
      clear();
      process.stdout.write(`${flags.json ? line : speaker().lines(line)}\n`);
    },
    tell: (line) => {
      if (!isTerminal()) return;
      clear();
      process.stderr.write(`${speaker().lines(line)}\n`);
    },
    advance: () => {
      done += 1;
      bar?.advance(1);
      // What follows is the summary: no bar may be drawn over it.
      if (done === seeds) bar?.stop();
      else if (bar === null && isTerminal())
        process.stderr.write(`\r${speaker().lines(`${done} of ${seeds} seeds`)}`);
    },
    wasStopped: () => stopped,
    leave: () => {
      process.off('SIGINT', onInterrupt);
      bar?.stop();
      runner.close();
    },
  };
}

/** Of real time, also while a world has shut the clocks of this process. */
const monoMs = () => Number(process.hrtime.bigint() / 1_000_000n);

function keep(shrunk: Shrunk): string {
  const { seed, violation, only } = shrunk;
  const file = `seed-${seed}.only.json`;
  writeFileSync(file, `${JSON.stringify({ seed, violation, only }, null, 2)}\n`);
  return file;
}

/** Runs seeds; false where one failed or was not run. */
export async function exploreCommand(flags: ExploreFlags): Promise<boolean> {
  const replayed = flags.only === undefined ? null : readOnly(flags.only);
  const plan = replayed === null ? seedsOf(flags) : { from: replayed.seed, seeds: 1 };
  if (replayed !== null && (flags.seed ?? flags.from ?? replayed.seed) !== replayed.seed)
    throw wrongFlags(`${flags.only} is about seed ${replayed.seed}`);
  if (replayed !== null && (flags.seeds ?? 1) !== 1) throw wrongFlags('--only is about a single seed');
  const room = await enter(flags, plan.seeds);
  const { svg } = flags;
  try {
    const held = await explore(
      {
        ...plan,
        jobs: room.jobs,
        json: flags.json,
        shrink: flags.shrink,
        shrinkRunsMax,
        untilFailure: flags.untilFailure,
        ...(replayed === null ? {} : { only: replayed.only }),
      },
      {
        ...room,
        monoMs,
        keep,
        draw: svg === undefined ? null : (result) => writeFileSync(svg, timelineSvg(result)),
      },
    );
    // A world in this process that was given up would go on to its end.
    if (room.wasStopped()) process.exit(1);
    return held;
  } finally {
    room.leave();
  }
}

/** Runs seeds and says what they never reached; false where that is not explained, or a seed failed. */
export async function coverageCommand(flags: RunFlags): Promise<boolean> {
  const plan = seedsOf(flags);
  const room = await enter(flags, plan.seeds);
  const counts: Coverage = {};
  const failed: number[] = [];
  let done = 0;
  try {
    await inOrder(
      { ...plan, ahead: room.jobs === 1 ? 1 : room.jobs * 3 },
      (seed) => room.runner.run({ seed }),
      (result) => {
        done += 1;
        addCoverage(counts, result.coverage);
        if (result.violation !== null) failed.push(result.seed);
        room.advance();
        return true;
      },
    );
  } catch (thrown) {
    if (!room.wasStopped()) throw thrown;
  } finally {
    room.leave();
  }
  const report = judgeCoverage(counts, done);
  if (flags.json) room.write(JSON.stringify({ ...report, failed }));
  else {
    for (const line of coverageLines(report)) room.write(line);
    for (const seed of failed)
      room.write(`seed ${seed} broke an invariant: lepton-sim explore --seed ${seed}`);
  }
  if (room.wasStopped()) process.exit(1);
  return report.missed.length + report.stale.length + failed.length === 0;
}
