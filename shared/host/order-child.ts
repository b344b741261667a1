// Why: a throw-away process that is given one order and answers with one line, under a limit of memory and of time.
// Trusts: nothing the process says; its caller checks it. Must never: leave the process behind, wait for it without a
// deadline, or end because it did.

import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../kernel/ports.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import { cpuSecondsFor, spawnLimited } from './limited-process.ts';
import { residentMemory } from './model-child.ts';

export interface OrderTerms {
  entry: URL;
  /** What it reads from its standard input, as JSON. */
  order: unknown;
  memoryBytesMax: number;
  timeoutMs: number;
  /** Between two looks at its memory and the time. */
  lookMs: number;
  signal: AbortSignal;
  flags?: readonly string[];
}

export interface OrderEnd {
  /** All that it wrote to descriptor 3. */
  said: string;
  /** How it ended, with the last line that it wrote to stderr. */
  exit: string;
  /** Why we ended it. */
  ending: 'memory' | 'time' | 'stopped' | null;
}

const replyBytesMax = 4_096;
const stderrKeptBytes = 2_048;

export async function runOrder(clock: Clock, terms: OrderTerms): Promise<OrderEnd> {
  const { memoryBytesMax, timeoutMs, lookMs, signal } = terms;
  const child = spawnLimited(fileURLToPath(terms.entry), {
    name: 'order',
    flags: terms.flags ?? [],
    cpuSeconds: cpuSecondsFor(timeoutMs),
  });
  const course: OrderEnd & { stderr: string } = { said: '', stderr: '', exit: '', ending: null };
  let gone = false;
  const end = (why: OrderEnd['ending']): void => {
    if (gone || course.ending !== null) return;
    course.ending = why;
    child.kill('SIGKILL');
  };
  const watch = async (): Promise<void> => {
    const endMs = clock.mono() + timeoutMs;
    while (!gone && child.pid !== undefined && course.ending === null) {
      if ((residentMemory(child.pid)?.peakBytes ?? 0) > memoryBytesMax) end('memory');
      else if (clock.mono() >= endMs) end('time');
      else await clock.timer(lookMs).done;
    }
  };
  const onAbort = (): void => end('stopped');
  signal.addEventListener('abort', onAbort, { once: true });
  const [stdin, , stderr, pipe] = child.stdio;
  (pipe as Readable | null)?.setEncoding('utf8').on('data', (text: string) => {
    course.said = (course.said + text).slice(0, replyBytesMax);
  });
  stderr?.setEncoding('utf8').on('data', (text: string) => {
    course.stderr = (course.stderr + text).slice(-stderrKeptBytes);
  });
  // EPIPE of one that ended before it read its order: its end says why.
  stdin?.on('error', (error) => {
    course.stderr += error.message;
  });
  stdin?.end(JSON.stringify(terms.order));
  const watching = watch();
  const exit = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, by) => resolve(by ?? `exit ${code}`));
  });
  gone = true;
  signal.removeEventListener('abort', onAbort);
  await watching;
  const lastLine = oneLine(course.stderr.trim().split('\n').at(-1) ?? '');
  return {
    said: course.said,
    exit: lastLine === '' ? exit : `${exit}: ${lastLine}`,
    ending: course.ending,
  };
}

/** What it said as JSON; undefined where it is none. */
export function saidJson(said: string): unknown {
  try {
    return JSON.parse(said) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
