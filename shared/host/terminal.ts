// Why: progress for a person at a terminal, and silence in a pipe (DESIGN 11).
// Trusts: nothing. Must never: write to stdout, which carries results.

import { Presets, SingleBar } from 'cli-progress';

export interface Progress {
  /** Adds to what is done, in the unit of `total`. */
  advance(n: number): void;
  stop(): void;
}

/** True where a person watches stderr. */
export function isTerminal(): boolean {
  return process.stderr.isTTY === true;
}

const mebibyte = 1024 * 1024;

/**
 * A bar over `total` on stderr where that is a terminal, else nothing at all. `stop` is idempotent.
 * Totals from 1 Mi on are shown as MiB: nothing but bytes is counted that far here.
 */
export function progress(label: string, total: number): Progress {
  if (!isTerminal()) return { advance: () => undefined, stop: () => undefined };
  const bar = new SingleBar(
    {
      format: `${label} {bar} {percentage}% {value} of {total}`,
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      formatValue: (value, _options, type) => {
        const counted = type === 'value' || type === 'total';
        return counted && total >= mebibyte ? `${(value / mebibyte).toFixed(1)} MiB` : String(value);
      },
    },
    Presets.shades_classic,
  );
  bar.start(total, 0);
  let running = true;
  return {
    advance: (n) => bar.increment(n),
    stop: () => {
      if (running) bar.stop();
      running = false;
    },
  };
}
