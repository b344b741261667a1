// Why: progress for a person at a terminal, and silence in a pipe (DESIGN 11); passphrases typed without echo.
// Trusts: nothing. Must never: write to stdout, which carries results, or show what is typed in secret.

import { closeSync, openSync, readSync } from 'node:fs';
import { Presets, SingleBar } from 'cli-progress';
import { FleetError } from '../kernel/errors.ts';
import { speaker } from './speech.ts';

export interface Progress {
  /** Adds to what is done, in the unit of `total`; `words` stand behind the bar until others come. */
  advance(n: number, words?: string): void;
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
      format: speaker().say(`${speaker().word(label)} {bar} {percentage}% {value} of {total} {words}`),
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
  bar.start(total, 0, { words: '' });
  let running = true;
  return {
    advance: (n, words) => bar.increment(n, words === undefined ? {} : { words: speaker().say(words) }),
    stop: () => {
      if (running) bar.stop();
      running = false;
    },
  };
}

const secretBytesMax = 1024;
const key = {
  interrupt: 3,
  end: 4,
  backspace: 8,
  newline: 10,
  enter: 13,
  eraseLine: 21,
  delete: 127,
} as const;

/** True where a person can be asked: both what is typed and what is asked are a terminal's. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/**
 * Asks on stderr and reads a line without echo. The caller made sure by `canAsk`. Fault: `interrupted` at
 * Ctrl-C. Blocks: nothing else goes on while somebody types.
 */
export function askSecret(question: string): string {
  // A handle of our own, opened blocking: the process's stdin may be set to return at once.
  const terminal = openSync('/dev/tty', 'r');
  const typed: number[] = [];
  process.stderr.write(speaker().lines(question));
  process.stdin.setRawMode(true);
  try {
    const one = new Uint8Array(1);
    while (typed.length < secretBytesMax) {
      if (readSync(terminal, one) === 0) break;
      const [code = 0] = one;
      if (code === key.enter || code === key.newline || code === key.end) break;
      if (code === key.interrupt) throw new FleetError('interrupted', 'nothing was done');
      if (code === key.backspace || code === key.delete) dropCharacter(typed);
      else if (code === key.eraseLine) typed.length = 0;
      else typed.push(code);
    }
    return Buffer.from(typed).toString('utf8');
  } finally {
    process.stdin.setRawMode(false);
    process.stdin.pause();
    closeSync(terminal);
    process.stderr.write('\n');
  }
}

/** A character in UTF-8 is its first byte and those that follow with the bits 10. */
function dropCharacter(typed: number[]): void {
  for (let last = typed.pop(); last !== undefined && (last & 0xc0) === 0x80; ) last = typed.pop();
}
