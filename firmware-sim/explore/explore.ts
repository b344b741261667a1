// Why: runs seeds in order whatever order they end in, shrinks what fails and says what was seen.
// Trusts: a runner's verdicts. Must never: call a run good in which one seed broke an invariant.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { FaultId } from '../faults.ts';
import type { Runner } from './runner.ts';
import type { SeedOptions, SeedResult } from './seed-run.ts';
import { type Shrunk, shrink } from './shrink.ts';

/** Lines of a failing seed's trace that are shown without `--json`. */
const tailLines = 40;
/** And with it, the last ones, where there are more seeds: a livelock has millions of lines. */
const traceLinesMax = 20_000;
/** A wrong world fails everywhere; the first few tell as much as all would. */
const shrunkMax = 3;
const dayMs = 86_400_000;

export interface ExplorePlan {
  from: number;
  seeds: number;
  jobs: number;
  json: boolean;
  shrink: boolean;
  shrinkRunsMax: number;
  /** Exactly these faults and steps, with a single seed. */
  only?: readonly FaultId[];
  /** Ends at the first seed that fails. */
  untilFailure: boolean;
}

export interface ExploreParts {
  runner: Runner;
  /** One line of stdout, without its line feed. */
  write: (line: string) => void;
  /** One line about what goes on; nothing where nobody watches. */
  tell: (line: string) => void;
  advance: () => void;
  monoMs: () => number;
  /** Keeps a shrunk list; the path it has then. */
  keep: (shrunk: Shrunk) => string;
  /** The run to be drawn, with its marks: the first that failed, else the first. */
  draw: ((result: SeedResult) => void) | null;
}

export interface Tally {
  seeds: number;
  failed: number;
  operations: number;
  deviceDays: number;
  faults: Map<string, number>;
}

/** Takes results in the order of seeds; `ahead` are under way at once. Ends early where `take` says false. */
export async function inOrder(
  plan: { from: number; seeds: number; ahead: number },
  run: (seed: number) => Promise<SeedResult>,
  take: (result: SeedResult) => Promise<boolean> | boolean,
): Promise<void> {
  const pending: Promise<SeedResult>[] = [];
  let next = plan.from;
  for (;;) {
    while (pending.length < plan.ahead && next < plan.from + plan.seeds) {
      const one = run(next);
      // It may fail long before its turn comes; it is told then.
      one.catch(() => undefined);
      pending.push(one);
      next += 1;
    }
    const first = pending.shift();
    if (first === undefined || !(await take(await first))) return;
  }
}

function count(tally: Tally, result: SeedResult): void {
  tally.seeds += 1;
  if (result.violation !== null) tally.failed += 1;
  tally.operations += result.operations;
  tally.deviceDays += (result.devices * result.endedAtMs) / dayMs;
  for (const id of result.faults) {
    const kind = id.split(' ')[0] ?? id;
    tally.faults.set(kind, (tally.faults.get(kind) ?? 0) + 1);
  }
}

const round = (value: number) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(2)));

/** What was done, for a person. */
export function summaryLines(tally: Tally, elapsedMs: number, asked: number): string[] {
  const { seeds, failed, faults } = tally;
  const verdict = failed === 0 ? 'every invariant held' : `${failed} broke an invariant`;
  const speed = elapsedMs <= 0 ? '' : ` (${round((seeds * 60_000) / elapsedMs)} a minute)`;
  const kinds = [...faults].filter(([kind]) => kind !== 'step').sort(([a], [b]) => (a < b ? -1 : 1));
  const told = kinds.map(([kind, times]) => `${kind} ${times}`).join(', ');
  return [
    `faults: ${told === '' ? 'none' : told}`,
    `${seeds === asked ? '' : `stopped after ${seeds} of ${asked}: `}${seeds} ${seeds === 1 ? 'seed' : 'seeds'}${speed}, ${round(tally.deviceDays)} devices × virtual days, ${tally.operations} operations, ${faults.get('step') ?? 0} steps: ${verdict}`,
  ];
}

/** One JSON line a seed with `json`. True: every seed was run and held. */
export async function explore(plan: ExplorePlan, parts: ExploreParts): Promise<boolean> {
  const { write, runner } = parts;
  const startedMs = parts.monoMs();
  const tally: Tally = { seeds: 0, failed: 0, operations: 0, deviceDays: 0, faults: new Map() };
  const run = (options: SeedOptions) =>
    runner.run(plan.only === undefined ? options : { ...options, only: plan.only });
  const drawn: { result: SeedResult | null } = { result: null };
  let isWhole = false;

  const take = async (result: SeedResult): Promise<boolean> => {
    count(tally, result);
    // A trace is worth its size where one seed is looked at, or where it tells what broke.
    const shown =
      plan.seeds > 1 && result.violation !== null
        ? await again(result, run({ seed: result.seed, trace: true }))
        : result;
    const mayShrink = plan.shrink && plan.only === undefined && tally.failed <= shrunkMax;
    const shrunk = result.violation !== null && mayShrink ? await shrunkOf(shown, plan, parts) : null;
    if (plan.json) write(documentOf(shown, shrunk, plan.seeds === 1));
    else if (shown.violation !== null) for (const line of failureLines(shown, shrunk, parts)) write(line);
    const known = drawn.result;
    if (parts.draw !== null && (known === null || (known.violation === null && shown.violation !== null)))
      drawn.result = await toDraw(shown, shrunk, parts);
    parts.advance();
    return !(plan.untilFailure && result.violation !== null);
  };
  try {
    const ahead = plan.jobs === 1 ? 1 : plan.jobs * 3;
    await inOrder({ ...plan, ahead }, (seed) => run({ seed, trace: plan.seeds === 1 }), take);
    isWhole = true;
  } catch (thrown) {
    if (!(thrown instanceof FleetError) || thrown.code !== 'interrupted') throw thrown;
  }
  if (drawn.result !== null) parts.draw?.(drawn.result);
  if (!plan.json) for (const line of summaryLines(tally, parts.monoMs() - startedMs, plan.seeds)) write(line);
  return isWhole && tally.failed === 0;
}

/** The run once more with its trace; one that is not the same run is a worse failure than the first. */
async function again(result: SeedResult, repeated: Promise<SeedResult>): Promise<SeedResult> {
  const traced = await repeated;
  if (traced.traceSha256 === result.traceSha256 && traced.violation === result.violation) return traced;
  const second = traced.violation ?? 'every invariant held';
  return { ...traced, violation: `not the same in two runs: ${result.violation}; then: ${second}` };
}

async function shrunkOf(failed: SeedResult, plan: ExplorePlan, parts: ExploreParts): Promise<Shrunk | null> {
  const { seed } = failed;
  if (failed.faults.length === 0) return null;
  parts.tell(`seed ${seed} failed with ${failed.faults.length} faults and steps; looking for a shorter list`);
  return shrink(failed, {
    run: (only) => parts.runner.run({ seed, only }),
    jobs: plan.jobs,
    runsMax: plan.shrinkRunsMax,
    onProgress: (runs, length) => parts.tell(`seed ${seed}: ${length} left after ${runs} runs`),
  });
}

/** The shrunk run where there is one: it shows what matters. */
async function toDraw(result: SeedResult, shrunk: Shrunk | null, parts: ExploreParts): Promise<SeedResult> {
  const { seed } = result;
  if (shrunk !== null) return parts.runner.run({ seed, only: shrunk.only, trace: true });
  return result.marks.length > 0 ? result : parts.runner.run({ seed, trace: true });
}

function documentOf(result: SeedResult, shrunk: Shrunk | null, isSingle: boolean): string {
  const { trace, marks, ...summary } = result;
  if (!isSingle && result.violation === null) return JSON.stringify(summary);
  const short = shrunk === null ? {} : { shrunk };
  const shown = isSingle ? trace : trace.slice(-traceLinesMax);
  const omitted = trace.length === shown.length ? {} : { traceLinesOmitted: trace.length - shown.length };
  return JSON.stringify({ ...summary, ...short, marks, ...omitted, trace: shown });
}

function failureLines(result: SeedResult, shrunk: Shrunk | null, parts: ExploreParts): string[] {
  const { seed, violation, trace } = result;
  const lines = [`seed ${seed}: ${violation}`, ...trace.slice(-tailLines).map((line) => `  ${line}`)];
  if (shrunk !== null) {
    const bound = shrunk.complete ? 'none of them can be left out' : 'the bound on runs came first';
    const few = shrunk.only.length;
    lines.push(
      few === 0
        ? 'it fails without any fault and without any step'
        : `it still fails with ${few} of ${result.faults.length} faults and steps (${shrunk.runs} runs; ${bound}):`,
      ...shrunk.only.map((id) => `  ${id}`),
      `again: lepton-sim explore --only ${parts.keep(shrunk)}`,
    );
  }
  lines.push(`again: lepton-sim explore --seed ${seed}`);
  return lines;
}
