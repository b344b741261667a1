// Why: the Rebuilder port over a process for each file, under a limit of memory and of time.
// Trusts: nothing the process says beyond its words; the caller digests what was made.
// Must never: leave the process behind, wait for it without a deadline, or end because it did.

import { statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { z } from 'zod';
import { codes, type ErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';
import { limits } from '../kernel/limits.ts';
import type { Clock, Rebuilder } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { mebibytes } from '../onnx/memory-bounds.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import { runOrder } from './delta-order.ts';

type RebuildJob = Parameters<Rebuilder['rebuild']>[0];

/** With absolute paths. */
export type RebuildOrder = Pick<RebuildJob, 'encodedPath' | 'basePaths' | 'targetPath'>;

const codeSchema = z.custom<ErrorCode>((value) => typeof value === 'string' && Object.hasOwn(codes, value));
const replySchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('made') }),
  z.object({ kind: z.literal('refused'), code: codeSchema, detail: z.string() }),
  z.object({ kind: z.literal('fault'), code: codeSchema, detail: z.string() }),
]);
export type RebuildReply = z.infer<typeof replySchema>;

export interface HostRebuilder extends Rebuilder {
  /** Ends what is under way and refuses what is to come, with `interrupted`. */
  stop(): void;
}

export interface RebuilderOptions {
  /** Absolute folder of the state disk. */
  stateFolder: string;
  timeoutMs?: number;
  /** Another program in the child's place. */
  entry?: URL;
}

/** Of a process that holds nothing yet, and of what the codec keeps beside its files. */
const ownBytes = 160 * 1024 * 1024;
/** It handles a few large arrays and lives for seconds: neither a young generation nor an optimizer pays. */
const flags = ['--max-semi-space-size=1', '--no-expose-wasm'];

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

export function createRebuilder(clock: Clock, options: RebuilderOptions): HostRebuilder {
  const { stateFolder, timeoutMs = limits.rebuildMs } = options;
  const entry = options.entry ?? new URL(`./delta-rebuild-child${extname(import.meta.url)}`, import.meta.url);
  const stopping = new AbortController();
  const placed = (path: string): string => join(stateFolder, path);

  function replyOf(said: string): RebuildReply | null {
    try {
      const parsed = replySchema.safeParse(JSON.parse(said));
      return parsed.success ? parsed.data : null;
    } catch (error) {
      if (error instanceof SyntaxError) return null;
      throw error;
    }
  }

  return {
    async rebuild(job): Promise<Result<void>> {
      if (stopping.signal.aborted) return refuse('interrupted', 'this program stops');
      const order: RebuildOrder = {
        encodedPath: placed(job.encodedPath),
        basePaths: job.basePaths.map(placed),
        targetPath: placed(job.targetPath),
      };
      const held = [order.encodedPath, ...order.basePaths].reduce((sum, path) => sum + sizeOf(path), 0);
      const memoryBytesMax = ownBytes + 2 * held + job.targetBytes;
      const terms = { clock, entry, flags, memoryBytesMax, timeoutMs, stopping: stopping.signal };
      const { said, exit, ending } = await runOrder(order, terms);
      if (ending === 'stopped') return refuse('interrupted', 'this program stops');
      if (ending === 'memory')
        return refuse('delta-too-large', `it wanted more than ${mebibytes(memoryBytesMax)}`);
      if (ending === 'time') return refuse('delta-too-large', `it was not done within ${timeoutMs} ms`);
      const reply = replyOf(said);
      if (reply === null)
        return refuse('delta-malformed', `the process that rebuilt it ended without a word (${exit})`);
      if (reply.kind === 'fault') throw new FleetError(reply.code, oneLine(reply.detail));
      return reply.kind === 'made' ? ok() : refuse(reply.code, oneLine(reply.detail));
    },
    stop: () => stopping.abort(),
  };
}
