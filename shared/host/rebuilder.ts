// Why: the Rebuilder port over a process for each file, one at a time: what a rebuild takes in memory, and whatever a
// file does to the codec, is not the agent's.
// Trusts: nothing the process says or writes: the caller digests it. Must never: rebuild in this process, wait without a
// deadline, or leave a process behind when it stops.

import { totalmem } from 'node:os';
import { extname, join } from 'node:path';
import { z } from 'zod';
import { isErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';
import { limits } from '../kernel/limits.ts';
import type { Clock, Rebuilder } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { mebibytes } from '../onnx/memory-bounds.ts';
import { runOrder, saidJson } from './order-child.ts';

type RebuildJob = Parameters<Rebuilder['rebuild']>[0];

export interface RebuildOrder {
  encodedPath: string;
  basePaths: readonly string[];
  targetPath: string;
  targetBytes: number;
  memoryBytesMax: number;
}

export type RebuildReply =
  | { kind: 'made' }
  | { kind: 'refused'; code: string; detail: string }
  | { kind: 'fault'; code: 'disk-full' | 'disk-io'; detail: string };

const replySchema: z.ZodType<RebuildReply> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('made') }),
  z.object({ kind: z.literal('refused'), code: z.string(), detail: z.string() }),
  z.object({ kind: z.literal('fault'), code: z.enum(['disk-full', 'disk-io']), detail: z.string() }),
]);

export interface ProcessRebuilder extends Rebuilder {
  /** Ends the process under way and refuses what is to come, with `interrupted`. */
  stop(): Promise<void>;
}

export interface RebuilderOptions {
  /** Absolute: the folder that the jobs' paths are relative to. */
  root: string;
  memoryBytesMax?: number;
  timeoutMs?: number;
  /** Another program in the child's place. */
  entry?: URL;
}

/** Node, its code and its heap, beside what the patch announces. */
const ownBytes = 80 * 1024 * 1024;
/** Garbage is small, the buffers lie outside of the heap. */
const childFlags = ['--max-semi-space-size=1', '--no-expose-wasm'];

export function createRebuilder(clock: Clock, options: RebuilderOptions): ProcessRebuilder {
  const { root, timeoutMs = limits.rebuildMs } = options;
  const memoryBytesMax = options.memoryBytesMax ?? Math.floor(totalmem() * limits.childMemoryShare);
  const entry = options.entry ?? new URL(`./rebuild-child${extname(import.meta.url)}`, import.meta.url);
  const stopping = new AbortController();
  let tail: Promise<unknown> = Promise.resolve();

  function judge(reply: RebuildReply | null, exit: string): Result<void> {
    if (reply === null) return refuse('delta-rebuild-failed', `its process ended without a word (${exit})`);
    if (reply.kind === 'fault') throw new FleetError(reply.code, reply.detail);
    if (reply.kind === 'refused')
      return refuse(isErrorCode(reply.code) ? reply.code : 'delta-rebuild-failed', reply.detail);
    return ok();
  }

  async function one(job: RebuildJob): Promise<Result<void>> {
    if (stopping.signal.aborted) return refuse('interrupted', 'this program stops');
    const at = (path: string): string => join(root, path);
    const order: RebuildOrder = {
      encodedPath: at(job.encodedPath),
      basePaths: job.basePaths.map(at),
      targetPath: at(job.targetPath),
      targetBytes: job.targetBytes,
      memoryBytesMax,
    };
    const { said, exit, ending } = await runOrder(clock, {
      ...{ entry, order, timeoutMs, flags: childFlags, signal: stopping.signal },
      ...{ memoryBytesMax: memoryBytesMax + ownBytes, lookMs: limits.loadLookMs },
    });
    if (ending === 'stopped') return refuse('interrupted', 'this program stops');
    if (ending === 'memory')
      return refuse('delta-rebuild-failed', `it wanted more than ${mebibytes(memoryBytesMax)}`);
    if (ending === 'time') return refuse('delta-rebuild-failed', `it was not done within ${timeoutMs} ms`);
    const parsed = replySchema.safeParse(saidJson(said));
    return judge(parsed.success ? parsed.data : null, exit);
  }

  return {
    rebuild(job) {
      const turn = tail.then(() => one(job));
      tail = turn.catch(() => undefined);
      return turn;
    },
    stop: async () => {
      stopping.abort();
      await tail;
    },
  };
}
