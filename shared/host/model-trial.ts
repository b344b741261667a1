// Why: a model is loaded and run once in a process of its own, under a limit of memory and of time, before anybody
// depends on it. Trusts: nothing the process says before it is checked. Must never: load a model in this process, wait
// for the other one without a deadline, or leave it or its folder behind.

import { createRequire } from 'node:module';
import { extname } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { isErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';
import { limits } from '../kernel/limits.ts';
import type { Clock, ModelTrial, TrialModel, TrialReport } from '../kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../kernel/result.ts';
import { mebibytes } from '../onnx/memory-bounds.ts';
import { oneLine, saysNoMemory } from '../onnx/runtime-words.ts';
import type { TensorSignature } from '../wire/manifest.ts';
import { cpuSecondsFor, modelProcessFlags, spawnLimited } from './limited-process.ts';
import type { LinkedModel } from './linked-folder.ts';
import { residentMemory } from './model-child.ts';

export interface TrialOrder {
  modelPath: string;
  /** Where files must stand beside it. */
  linked: LinkedModel | null;
  inputs: TensorSignature[];
  outputs: string[];
}

/** What the process says, one JSON line each. */
export type TrialReply =
  | { kind: 'no-runtime'; detail: string }
  | { kind: 'refused'; code: string; detail: string }
  | { kind: 'loaded' }
  | { kind: 'ran'; runFailure: string | null; peakBytes: number | null };

const replySchema: z.ZodType<TrialReply> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('no-runtime'), detail: z.string() }),
  z.object({ kind: z.literal('refused'), code: z.string(), detail: z.string() }),
  z.object({ kind: z.literal('loaded') }),
  z.object({
    kind: z.literal('ran'),
    runFailure: z.string().nullable(),
    peakBytes: z.number().nonnegative().nullable(),
  }),
]);

const stderrKeptBytes = 2_048;
/** All that it says is three lines. */
const repliesBytesMax = 64 * 1024;

/** Whether this machine has ONNX Runtime at all. */
export function hasRuntime(): boolean {
  try {
    createRequire(import.meta.url).resolve('onnxruntime-node');
    return true;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  }
}

type Ending = 'memory' | 'time' | 'protocol' | 'stopped';

interface Course {
  phase: 'was loaded' | 'ran on zeros';
  refusal: Refusal | null;
  untried: string | null;
  ran: { runFailure: string | null; peakBytes: number | null } | null;
  /** Why we ended it. */
  ending: Ending | null;
  /** Its end, with the last line it wrote. */
  exit: string;
}

function hear(course: Course, said: TrialReply): void {
  if (said.kind === 'no-runtime') course.untried = `no ONNX Runtime here: ${oneLine(said.detail)}`;
  else if (said.kind === 'loaded') course.phase = 'ran on zeros';
  else if (said.kind === 'ran') course.ran = said;
  else {
    const code = isErrorCode(said.code) ? said.code : 'model-invalid';
    course.refusal = { code, detail: oneLine(said.detail) };
  }
}

/** Hands each line on; false for the first that is none of ours, or one too many. */
function eachLine(onReply: (said: TrialReply) => void): (chunk: string) => boolean {
  let rest = '';
  let bytes = 0;
  return (chunk) => {
    bytes += chunk.length;
    if (bytes > repliesBytesMax) return false;
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      let said: unknown;
      try {
        said = JSON.parse(line);
      } catch (error) {
        if (error instanceof SyntaxError) return false;
        throw error;
      }
      const parsed = replySchema.safeParse(said);
      if (!parsed.success) return false;
      onReply(parsed.data);
    }
    return true;
  };
}

function verdict(course: Course, { memory, timeoutMs }: TrialModel): Result<TrialReport> {
  const { phase, refusal, untried, ran, ending, exit } = course;
  const bound = `${memory.from} allows ${mebibytes(memory.bytes)}`;
  if (ending === 'stopped') return refuse('interrupted', 'this program stops');
  const words = refusal?.code === 'model-load-failed' ? refusal.detail : (ran?.runFailure ?? '');
  if (ending === 'memory' || (ran?.peakBytes ?? 0) > memory.bytes || saysNoMemory(words))
    return refuse('model-trial-memory', `it wanted more memory while it ${phase}; ${bound}`);
  if (refusal !== null) return { ok: false, refusal };
  if (untried !== null || ran !== null)
    return ok({ untried, runFailure: ran?.runFailure ?? null, peakBytes: ran?.peakBytes ?? null });
  if (ending === 'time')
    return refuse('model-trial-timeout', `it was not done within ${timeoutMs} ms; it ${phase} then`);
  // Nobody here sent it: a system that runs out of memory ends the largest.
  if (ending === null && exit.startsWith('SIGKILL'))
    return refuse('model-trial-memory', `the system ended its process while it ${phase}; ${bound}`);
  const how =
    ending === 'protocol' ? 'its process said what none of ours says' : `its process ended (${exit})`;
  return refuse('model-trial-crashed', `${how} while it ${phase}`);
}

/** Without /proc memory is judged at the end only. Fault: `internal` where no process can be started. */
async function runChild(
  clock: Clock,
  entry: string,
  order: TrialOrder,
  model: TrialModel,
  signal: AbortSignal,
): Promise<Result<TrialReport>> {
  const child = spawnLimited(entry, {
    name: 'trial',
    flags: modelProcessFlags,
    cpuSeconds: cpuSecondsFor(model.timeoutMs),
  });
  const course: Course = {
    ...{ phase: 'was loaded', refusal: null, untried: null, ran: null, ending: null, exit: '' },
  };
  let gone = false;
  const end = (why: Ending): void => {
    if (gone || course.ending !== null) return;
    course.ending = why;
    child.kill('SIGKILL');
  };
  const { pid } = child;
  const watch = async (): Promise<void> => {
    const endMs = clock.mono() + model.timeoutMs;
    while (!gone && pid !== undefined && course.ending === null) {
      // The peak: what came and went between two looks counts as well.
      if ((residentMemory(pid)?.peakBytes ?? 0) > model.memory.bytes) end('memory');
      else if (clock.mono() >= endMs) end('time');
      else await clock.timer(limits.loadLookMs).done;
    }
  };
  const onAbort = (): void => end('stopped');
  signal.addEventListener('abort', onAbort, { once: true });

  let stderrTail = '';
  const [stdin, , stderr, pipe] = child.stdio;
  const lines = eachLine((said) => hear(course, said));
  (pipe as Readable | null)?.setEncoding('utf8').on('data', (chunk: string) => {
    if (course.ending === null && !lines(chunk)) end('protocol');
  });
  stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderrTail = (stderrTail + text).slice(-stderrKeptBytes);
  });
  // EPIPE of one that ended before it read its order: its end says why.
  stdin?.on('error', (error) => {
    stderrTail += error.message;
  });
  stdin?.end(JSON.stringify(order));

  const watching = watch();
  try {
    course.exit = await new Promise<string>((resolve, reject) => {
      child.once('error', (cause) =>
        reject(new FleetError('internal', `no process for a trial: ${cause.message}`, { cause })),
      );
      child.once('close', (code, by) => resolve(by ?? `exit ${code}`));
    });
    const lastLine = oneLine(stderrTail.trim().split('\n').at(-1) ?? '');
    if (lastLine !== '') course.exit += `: ${lastLine}`;
    return verdict(course, model);
  } finally {
    gone = true;
    signal.removeEventListener('abort', onAbort);
    await watching;
  }
}

export interface ModelTrialOptions {
  /** Absolute; folders in which files stand beside their model are made in it, on the files' own disk. */
  workFolder: string;
  /** Another program in the child's place. */
  entry?: URL;
}

/** One trial after the other: two at once would need the memory of both. */
export function createModelTrial(clock: Clock, options: ModelTrialOptions): ModelTrial {
  const entry = options.entry ?? new URL(`./model-trial-child${extname(import.meta.url)}`, import.meta.url);
  const stopping = new AbortController();
  let tail: Promise<unknown> = Promise.resolve();

  const one = async (model: TrialModel): Promise<Result<TrialReport>> => {
    if (stopping.signal.aborted) return refuse('interrupted', 'this program stops');
    const file = model.files.find(({ path }) => path === model.modelPath);
    if (file === undefined) throw new FleetError('internal', `a trial without its file ${model.modelPath}`);
    const files = model.files.map(({ path, localPath }) => ({ path, from: localPath }));
    const linked =
      files.length === 1 ? null : { workFolder: options.workFolder, modelPath: model.modelPath, files };
    const { inputs, outputs } = model;
    const order = { modelPath: file.localPath, linked, inputs, outputs };
    return runChild(clock, fileURLToPath(entry), order, model, stopping.signal);
  };
  return {
    run: (model) => {
      const turn = tail.then(() => one(model));
      tail = turn.catch(() => undefined);
      return turn;
    },
    stop: () => stopping.abort(),
  };
}
