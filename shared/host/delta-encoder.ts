// Why: the DeltaEncoder port over a process for each encoding, one at a time, under a limit of memory and of time.
// Trusts: nothing the process says beyond what is checked here; devices check what they make of the file by its digest.
// Must never: leave the process or its file behind, wait for it without a deadline, or end because it did.

import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { z } from 'zod';
import { limits } from '../kernel/limits.ts';
import type { Clock, DeltaEncoder } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { mebibytes } from '../onnx/memory-bounds.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import { runOrder, saidJson } from './order-child.ts';

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

export function createDeltaEncoder(clock: Clock, options: DeltaEncoderOptions): DeltaEncoder {
  const { workFolder, memoryBytesMax = limits.encodeMemoryBytesMax, timeoutMs = limits.encodeMs } = options;
  const entry = options.entry ?? new URL(`./delta-encode-child${extname(import.meta.url)}`, import.meta.url);
  const outPath = join(workFolder, 'encoding');
  const stopping = new AbortController();
  let tail: Promise<unknown> = Promise.resolve();

  function replyOf(said: string): EncodeReply | null {
    const parsed = replySchema.safeParse(saidJson(said));
    return parsed.success ? parsed.data : null;
  }

  async function one(job: EncodeJob): Promise<Result<Uint8Array | null>> {
    if (stopping.signal.aborted) return refuse('interrupted', 'this program stops');
    mkdirSync(workFolder, { recursive: true });
    try {
      const { said, exit, ending } = await runOrder(clock, {
        ...{ entry, order: { ...job, outPath } satisfies EncodeOrder, memoryBytesMax, timeoutMs },
        ...{ lookMs: limits.encodeLookMs, signal: stopping.signal },
      });
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
