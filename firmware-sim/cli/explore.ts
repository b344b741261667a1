// Why: what `lepton-sim explore` does and prints, apart from the process around it.
// Trusts: the harness's verdicts. Must never: call a run good in which one seed broke an invariant.

import type { RunResult } from '../harness.ts';

/** Lines of a failing seed's trace that are shown without `--json`. */
const tailLines = 40;

export interface ExploreOptions {
  seed: number;
  seeds: number;
  json: boolean;
}

export interface ExploreParts {
  run: (seed: number) => Promise<RunResult>;
  /** One line of stdout, without its line feed. */
  write: (line: string) => void;
  advance: () => void;
}

/** Runs the seeds one after the other; one JSON line a seed with `json`. True: every one held. */
export async function explore(options: ExploreOptions, parts: ExploreParts): Promise<boolean> {
  const { write } = parts;
  let failures = 0;
  let operations = 0;
  let cuts = 0;
  for (let seed = options.seed; seed < options.seed + options.seeds; seed += 1) {
    const result = await parts.run(seed);
    operations += result.operations;
    cuts += result.cuts;
    if (result.violation !== null) failures += 1;
    if (options.json) {
      const { trace, ...summary } = result;
      // A trace is worth its size where one seed is looked at, or where it tells what broke.
      const shown = options.seeds === 1 || result.violation !== null;
      write(JSON.stringify(shown ? { ...summary, trace } : summary));
    } else if (result.violation !== null) {
      write(`seed ${seed}: ${result.violation}`);
      for (const line of result.trace.slice(-tailLines)) write(`  ${line}`);
      write(`again: lepton-sim explore --seed ${seed}`);
    }
    parts.advance();
  }
  if (!options.json) {
    const verdict = failures === 0 ? 'every invariant held' : `${failures} broke an invariant`;
    write(`${options.seeds} seeds, ${cuts} power cuts, ${operations} operations: ${verdict}`);
  }
  return failures === 0;
}
