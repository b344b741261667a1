// Why: one order for a process of its own, under a limit of memory and of time: what makes files of others or the other
// way round takes memory that must go back when it is done.
// Trusts: nothing the process says; its caller checks that. Must never: leave the process behind, wait for it without a
// deadline, or end because it did.

import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { limits } from '../kernel/limits.ts';
import type { Clock } from '../kernel/ports.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import { endWithUs, modelChildEnvironment, residentMemory } from './model-child.ts';

export type Ending = 'memory' | 'time' | 'stopped';

export interface OrderTerms {
  clock: Clock;
  entry: URL;
  /** For Node itself. */
  flags?: readonly string[];
  memoryBytesMax: number;
  timeoutMs: number;
  stopping: AbortSignal;
}

export interface Course {
  /** On its fourth channel, at most a few thousand characters. */
  said: string;
  /** How it ended, in words. */
  exit: string;
  /** Why it was ended, null where it ended by itself. */
  ending: Ending | null;
}

const replyBytesMax = 4_096;
const stderrKeptBytes = 2_048;

/** Hands the order (JSON) to a process and resolves when that has ended. */
export async function runOrder(order: object, terms: OrderTerms): Promise<Course> {
  const { clock, memoryBytesMax, timeoutMs, stopping } = terms;
  const child = spawn(process.execPath, [...(terms.flags ?? []), fileURLToPath(terms.entry)], {
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
    env: modelChildEnvironment(),
    // A Ctrl-C in the terminal is not meant for it.
    detached: true,
    windowsHide: true,
  });
  endWithUs(child);
  const course: { said: string; stderr: string; ending: Ending | null } = {
    said: '',
    stderr: '',
    ending: null,
  };
  let gone = false;
  const end = (why: Ending): void => {
    if (gone || course.ending !== null) return;
    course.ending = why;
    child.kill('SIGKILL');
  };
  const watch = async (): Promise<void> => {
    const endMs = clock.mono() + timeoutMs;
    while (!gone && child.pid !== undefined && course.ending === null) {
      if ((residentMemory(child.pid)?.peakBytes ?? 0) > memoryBytesMax) end('memory');
      else if (clock.mono() >= endMs) end('time');
      else await clock.timer(limits.encodeLookMs).done;
    }
  };
  const onAbort = (): void => end('stopped');
  stopping.addEventListener('abort', onAbort, { once: true });
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
  stdin?.end(JSON.stringify(order));
  const watching = watch();
  const exit = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, by) => resolve(by ?? `exit ${code}`));
  });
  gone = true;
  stopping.removeEventListener('abort', onAbort);
  await watching;
  const lastLine = oneLine(course.stderr.trim().split('\n').at(-1) ?? '');
  return {
    said: course.said,
    exit: lastLine === '' ? exit : `${exit}: ${lastLine}`,
    ending: course.ending,
  };
}
