// Why: the DeltaEncoder port over a process for each encoding, one at a time, under a limit of memory and of time.
// Trusts: nothing the process says beyond what is checked here; devices check what they make of the file by its digest.
// Must never: leave the process or its file behind, wait for it without a deadline, or end because it did.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { limits } from '../kernel/limits.ts';
import type { Clock, DeltaEncoder } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { mebibytes } from '../onnx/memory-bounds.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import { endWithUs, modelChildEnvironment, residentMemory } from './model-child.ts';

type EncodeJob = Parameters<DeltaEncoder['encode']>[0];

export interface EncodeOrder extends EncodeJob {
  outPath: string;
}

export type EncodeReply =
  | { kind: 'made'; bytes: number }
  | { kind: 'no-smaller' }
  | { kind: 'failed'; detail: string };

const replySchema: z.ZodType<EncodeReply> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('made'), bytes: z.number().int().positive() }),
  z.object({ kind: z.literal('no-smaller') }),
  z.object({ kind: z.literal('failed'), detail: z.string() }),
]);

export interface DeltaEncoderOptions {
  /** Absolute; made where it is missing. */
  workFolder: string;
  memoryBytesMax?: number;
  timeoutMs?: number;
  /** Another program in the child's place. */
  entry?: URL;
}

type Ending = 'memory' | 'time' | 'stopped';

const replyBytesMax = 4_096;
const stderrKeptBytes = 2_048;

export function createDeltaEncoder(clock: Clock, options: DeltaEncoderOptions): DeltaEncoder {
  const { workFolder, memoryBytesMax = limits.encodeMemoryBytesMax, timeoutMs = limits.encodeMs } = options;
  const entry = options.entry ?? new URL(`./delta-encode-child${extname(import.meta.url)}`, import.meta.url);
  const outPath = join(workFolder, 'encoding');
  const stopping = new AbortController();
  let tail: Promise<unknown> = Promise.resolve();

  /** What it said and how it ended, or why it was ended. */
  async function runChild(
    order: EncodeOrder,
  ): Promise<{ said: string; exit: string; ending: Ending | null }> {
    const child = spawn(process.execPath, [fileURLToPath(entry)], {
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
    stopping.signal.addEventListener('abort', onAbort, { once: true });
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
    stopping.signal.removeEventListener('abort', onAbort);
    await watching;
    const lastLine = oneLine(course.stderr.trim().split('\n').at(-1) ?? '');
    return {
      said: course.said,
      exit: lastLine === '' ? exit : `${exit}: ${lastLine}`,
      ending: course.ending,
    };
  }

  function replyOf(said: string): EncodeReply | null {
    try {
      const parsed = replySchema.safeParse(JSON.parse(said));
      return parsed.success ? parsed.data : null;
    } catch (error) {
      if (error instanceof SyntaxError) return null;
      throw error;
    }
  }

  async function one(job: EncodeJob): Promise<Result<Uint8Array | null>> {
    if (stopping.signal.aborted) return refuse('interrupted', 'this program stops');
    mkdirSync(workFolder, { recursive: true });
    try {
      const { said, exit, ending } = await runChild({ ...job, outPath });
      if (ending === 'stopped') return refuse('interrupted', 'this program stops');
      if (ending === 'memory')
        return refuse('delta-encode-failed', `it wanted more than ${mebibytes(memoryBytesMax)}`);
      if (ending === 'time') return refuse('delta-encode-failed', `it was not done within ${timeoutMs} ms`);
      const reply = replyOf(said);
      if (reply === null) return refuse('delta-encode-failed', `its process ended without a word (${exit})`);
      if (reply.kind === 'failed') return refuse('delta-encode-failed', oneLine(reply.detail));
      if (reply.kind === 'no-smaller') return ok(null);
      const there = existsSync(outPath) ? statSync(outPath).size : 0;
      if (there !== reply.bytes || there > job.bytesMax)
        return refuse('delta-encode-failed', `${there} bytes, it said ${reply.bytes}`);
      return ok(new Uint8Array(readFileSync(outPath)));
    } finally {
      rmSync(outPath, { force: true });
    }
  }

  return {
    encode(job) {
      const turn = tail.then(() => one(job));
      tail = turn.catch(() => undefined);
      return turn;
    },
    stop: () => stopping.abort(),
  };
}
