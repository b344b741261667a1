// Why: any ONNX model, asked as often as one likes from a program that must not end with it: evaluation, golden cases
// and reference profiles are made of its answers.
// Trusts: nothing that the process says before it is checked. Must never: load a model in this process, wait for the
// other one without a deadline, or leave it behind.

import { readFileSync, statSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { isErrorCode } from '../kernel/codes.ts';
import { limits } from '../kernel/limits.ts';
import type { Clock } from '../kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../kernel/result.ts';
import { admitModel, opsetMaxDefault, outputsNotFetched } from '../onnx/admission.ts';
import { mebibytes } from '../onnx/memory-bounds.ts';
import { type OnnxModel, readModel } from '../onnx/model.ts';
import { oneLine, saysNoMemory } from '../onnx/runtime-words.ts';
import type { TensorSignature } from '../wire/manifest.ts';
import { checkTensor, type Tensor } from '../wire/tensors.ts';
import { modelProcessFlags, spawnLimited } from './limited-process.ts';
import { residentMemory } from './model-child.ts';
import { createTensorFrameReader, encodeTensorFrame, type TensorFrame } from './tensor-frames.ts';

export interface ModelRuns {
  inputs: TensorSignature[];
  /** What can be fetched: without maps, sequences and types that have no datatype here. */
  outputs: TensorSignature[];
  /** Names of the other ones. */
  excludedOutputs: string[];
  /** The file's own metadata_props. */
  metadata: Record<string, string>;
  /**
   * One run; of several that are asked at once each waits for the one before. `outputs`: all where absent, in the order
   * asked. Refusals: `infer-invalid`, `infer-failed`, `infer-unsupported`, after which it can be asked again;
   * `model-trial-crashed`, `model-trial-timeout`, `model-trial-memory`, `interrupted` (closed), after which every run is
   * refused alike.
   */
  run(inputs: readonly Tensor[], outputs?: readonly string[]): Promise<Result<Tensor[]>>;
  /** Ends the process and waits for its end. May be called again. */
  close(): Promise<void>;
}

export interface ModelRunsParts {
  /** Files of external data stand beside it, as the model names them. */
  modelPath: string;
  threads?: number;
  /** Resident memory of the process, Node's own 60 MB included. Absent: as much as there is. */
  memoryBytesMax?: number;
  /** For loading, and for each run. */
  timeoutMs?: number;
  clock: Clock;
  /** Another program in the child's place. */
  entry?: URL;
}

export type RunsRequest =
  | { kind: 'load'; modelPath: string; threads: number }
  | { kind: 'run'; outputs: readonly string[] };

/** A request and its answer have one number, so that what comes late is not taken for the next answer. */
export interface Numbered<T> {
  id: number;
  body: T;
}

export type RunsReply =
  | { kind: 'no-runtime'; detail: string }
  | { kind: 'refused'; code: string; detail: string }
  | { kind: 'done'; peakBytes: number | null };

const replySchema: z.ZodType<RunsReply> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('no-runtime'), detail: z.string() }),
  z.object({ kind: z.literal('refused'), code: z.string(), detail: z.string() }),
  z.object({ kind: z.literal('done'), peakBytes: z.number().nonnegative().nullable() }),
]);

const numberedSchema: z.ZodType<Numbered<RunsReply>> = z.object({
  id: z.number().int().positive(),
  body: replySchema,
});

const stderrKeptBytes = 2_048;

type Ending = 'memory' | 'time' | 'protocol' | 'closed';
/** Null: the process is gone. */
type Answer = TensorFrame | null;

interface Asking {
  ask(request: RunsRequest, tensors: readonly Tensor[]): Promise<Result<Tensor[]>>;
  close(): Promise<void>;
}

function startAsking(parts: ModelRunsParts): Asking {
  const { clock, memoryBytesMax = Number.POSITIVE_INFINITY, timeoutMs = limits.modelTrialMs } = parts;
  const entry = parts.entry ?? new URL(`./model-runs-child${extname(import.meta.url)}`, import.meta.url);
  // No limit of processor time: it is asked for as long as there is data. Its own watch ends it with this process.
  const child = spawnLimited(fileURLToPath(entry), {
    name: 'runs',
    flags: modelProcessFlags,
    cpuSeconds: null,
  });
  const course: { ending: Ending | null; exit: string | null; stderr: string } = {
    ...{ ending: null, exit: null, stderr: '' },
  };
  let waiting: ((answer: Answer) => void) | null = null;
  let phase: 'was loaded' | 'ran' = 'was loaded';
  const answer = (said: Answer): void => {
    const asked = waiting;
    waiting = null;
    asked?.(said);
  };
  const end = (why: Ending): void => {
    if (course.exit !== null || course.ending !== null) return;
    course.ending = why;
    child.kill('SIGKILL');
  };

  const [stdin, , stderr, pipe] = child.stdio;
  const reader = createTensorFrameReader();
  (pipe as Readable | null)?.on('data', (chunk: Buffer) => {
    if (course.ending !== null) return;
    for (const frame of reader.push(chunk)) {
      // What nobody asked for, or what is no frame of ours.
      if (!frame.ok || waiting === null) return end('protocol');
      answer(frame.value);
    }
  });
  stderr?.setEncoding('utf8').on('data', (text: string) => {
    course.stderr = (course.stderr + text).slice(-stderrKeptBytes);
  });
  // EPIPE of one that has ended: its end says why.
  stdin?.on('error', (error) => {
    course.stderr += error.message;
  });
  const gone = new Promise<void>((resolve) => {
    const over = (exit: string): void => {
      const lastLine = oneLine(course.stderr.trim().split('\n').at(-1) ?? '');
      course.exit ??= lastLine === '' ? exit : `${exit}: ${lastLine}`;
      answer(null);
      resolve();
    };
    child.once('error', (error) => over(error.message));
    child.once('close', (code, by) => over(by ?? `exit ${code}`));
  });

  const bound = Number.isFinite(memoryBytesMax)
    ? `it may take ${mebibytes(memoryBytesMax)}`
    : 'this machine has no more';
  const ofMemory = (): Refusal => ({
    code: 'model-trial-memory',
    detail: `it wanted more memory while it ${phase}; ${bound}`,
  });
  const whyGone = (): Refusal => {
    const { ending, exit } = course;
    if (ending === 'closed') return { code: 'interrupted', detail: 'the model was closed' };
    if (ending === 'memory') return ofMemory();
    if (ending === 'time')
      return {
        code: 'model-trial-timeout',
        detail: `it was not done within ${timeoutMs} ms; it ${phase} then`,
      };
    // Nobody here sent it: a system that runs out of memory ends the largest.
    if (ending === null && exit?.startsWith('SIGKILL'))
      return { code: 'model-trial-memory', detail: `the system ended its process while it ${phase}` };
    const how =
      ending === 'protocol' ? 'its process said what none of ours says' : `its process ended (${exit})`;
    return { code: 'model-trial-crashed', detail: `${how} while it ${phase}` };
  };
  /** Looks at memory and time until the answer is there. */
  const watch = async (isOver: () => boolean, over: Promise<unknown>): Promise<void> => {
    const endMs = clock.mono() + timeoutMs;
    while (!isOver() && course.ending === null) {
      const look = clock.timer(Math.min(limits.loadLookMs, Math.max(0, endMs - clock.mono())));
      await Promise.race([look.done, over]);
      look.cancel();
      if (isOver() || child.pid === undefined) return;
      // The peak: what came and went between two looks counts as well.
      if ((residentMemory(child.pid)?.peakBytes ?? 0) > memoryBytesMax) end('memory');
      else if (clock.mono() >= endMs) end('time');
    }
  };
  const judge = (said: TensorFrame, id: number, request: RunsRequest): Result<Tensor[]> => {
    const parsed = numberedSchema.safeParse(said.message);
    const reply = parsed.success && parsed.data.id === id ? parsed.data.body : null;
    const asked = request.kind === 'run' ? request.outputs : [];
    const fits =
      reply?.kind !== 'done' ||
      (said.tensors.length === asked.length && asked.every((name, at) => said.tensors[at]?.name === name));
    if (reply === null || !fits) {
      end('protocol');
      return { ok: false, refusal: whyGone() };
    }
    if (reply.kind === 'no-runtime')
      return refuse('model-load-failed', `no ONNX Runtime here: ${oneLine(reply.detail)}`);
    if (reply.kind === 'refused') {
      const detail = oneLine(reply.detail);
      if (saysNoMemory(detail)) return { ok: false, refusal: ofMemory() };
      return refuse(isErrorCode(reply.code) ? reply.code : 'infer-failed', detail);
    }
    if ((reply.peakBytes ?? 0) <= memoryBytesMax) return ok(said.tensors);
    end('memory');
    return { ok: false, refusal: ofMemory() };
  };

  let tail: Promise<unknown> = Promise.resolve();
  let nextId = 0;
  const one = async (request: RunsRequest, tensors: readonly Tensor[]): Promise<Result<Tensor[]>> => {
    nextId += 1;
    const id = nextId;
    const encoded = encodeTensorFrame({ id, body: request } satisfies Numbered<RunsRequest>, tensors);
    if (!encoded.ok) return encoded;
    if (course.exit !== null || course.ending !== null || stdin === null) {
      if (course.ending === null) await gone;
      return { ok: false, refusal: whyGone() };
    }
    phase = request.kind === 'load' ? 'was loaded' : 'ran';
    let over = false;
    const said = new Promise<Answer>((resolve) => {
      waiting = resolve;
    });
    stdin.cork();
    for (const piece of encoded.value) stdin.write(piece);
    stdin.uncork();
    const watching = watch(() => over, said);
    const answered = await said;
    over = true;
    await watching;
    return answered === null ? { ok: false, refusal: whyGone() } : judge(answered, id, request);
  };
  return {
    ask: (request, tensors) => {
      const turn = tail.then(() => one(request, tensors));
      tail = turn.catch(() => undefined);
      return turn;
    },
    close: async () => {
      end('closed');
      await gone;
    },
  };
}

function sizesOf(model: OnnxModel, folder: string): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const { path } of model.externalData) {
    const bytes = statSync(join(folder, path), { throwIfNoEntry: false })?.size;
    if (bytes !== undefined) sizes.set(path, bytes);
  }
  return sizes;
}

interface ReadModel {
  model: OnnxModel;
  inputs: TensorSignature[];
  outputs: TensorSignature[];
  excludedOutputs: string[];
}

function admitFile({ modelPath, memoryBytesMax }: ModelRunsParts): Result<ReadModel> {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(modelPath);
  } catch (error) {
    if (error instanceof Error && 'code' in error) return refuse('model-load-failed', oneLine(error));
    throw error;
  }
  const model = readModel(bytes);
  if (!model.ok) return model;
  const excludedOutputs = outputsNotFetched(model.value);
  const admitted = admitModel(bytes, {
    excludeOutputs: excludedOutputs,
    externalFiles: sizesOf(model.value, dirname(modelPath)),
    opsetMax: opsetMaxDefault,
    memoryBounds: memoryBytesMax === undefined ? [] : [{ bytes: memoryBytesMax, from: 'what it may take' }],
  });
  if (!admitted.ok) return admitted;
  const { inputs, outputs } = admitted.value;
  return ok({ model: model.value, inputs, outputs, excludedOutputs });
}

/** Refusal: `infer-invalid`, naming the input. What only the model knows, as sizes that must be equal, it says itself. */
function checkInputs(signature: readonly TensorSignature[], inputs: readonly Tensor[]): Result<void> {
  for (const tensor of inputs) {
    const checked = checkTensor(tensor);
    if (!checked.ok) return checked;
    const declared = signature.find(({ name }) => name === tensor.name);
    if (declared === undefined) return refuse('infer-invalid', `the model has no input ${tensor.name}`);
    if (declared.datatype !== tensor.datatype)
      return refuse(
        'infer-invalid',
        `${tensor.name} is ${tensor.datatype}, the model takes ${declared.datatype}`,
      );
  }
  const missing = signature.find(({ name }) => inputs.filter((one) => one.name === name).length !== 1);
  return missing === undefined
    ? ok()
    : refuse('infer-invalid', `the input ${missing.name} must be given once`);
}

/**
 * Reads and judges the file here, and loads it in a process of its own, which is to be closed. Refusals: those of
 * `admitModel`, `model-load-failed` (this machine could not, or has no runtime), `model-trial-crashed`,
 * `model-trial-timeout`, `model-trial-memory`; no process is left then.
 */
export async function openModelRuns(parts: ModelRunsParts): Promise<Result<ModelRuns>> {
  const read = admitFile(parts);
  if (!read.ok) return read;
  const { model, inputs, outputs, excludedOutputs } = read.value;
  const asking = startAsking(parts);
  const { modelPath, threads = 1 } = parts;
  const loaded = await asking.ask({ kind: 'load', modelPath, threads }, []);
  if (!loaded.ok) {
    await asking.close();
    return loaded;
  }
  const all = outputs.map(({ name }) => name);
  return ok({
    ...{ inputs, outputs, excludedOutputs },
    metadata: Object.fromEntries(model.metadata),
    run: async (given, asked = all) => {
      const checked = checkInputs(inputs, given);
      if (!checked.ok) return checked;
      const unknown = asked.find((name) => !all.includes(name));
      if (unknown !== undefined)
        return refuse('infer-invalid', `the model has no output ${unknown} to fetch`);
      return asking.ask({ kind: 'run', outputs: asked }, given);
    },
    close: asking.close,
  });
}
