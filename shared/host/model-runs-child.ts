// Why: the entry of a process in which one model is asked as often as its parent likes, so that a model which aborts,
// hangs or eats memory takes nobody with it. Trusts: its parent for what to load and for checked inputs.
// Must never: be imported, or outlive its parent.
//
// It reads a frame from descriptor 0, works, and writes a frame to descriptor 3, blocking throughout.

import { readSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { loadFailureCode, oneLine } from '../onnx/runtime-words.ts';
import type { Datatype } from '../wire/manifest.ts';
import type { Tensor, TensorData } from '../wire/tensors.ts';
import { nextTurn } from './event-loop.ts';
import { residentMemory } from './model-child.ts';
import type { Numbered, RunsReply, RunsRequest } from './model-runs.ts';
import { openRuntime, ortTypes, stepBack } from './model-runtime.ts';
import { createTensorFrameReader, encodeTensorFrame, type TensorFrame } from './tensor-frames.ts';

const requests = 0;
const answers = 3;
const readBytes = 256 * 1024;
/** Outputs are garbage outside the JavaScript heap, which does not know of them: the turn that frees them comes then. */
const turnEveryBytes = 32 * 1024 * 1024;

/** A run blocks this thread: another one sees that the parent is gone, however it went. */
const watchParent = `
  const { workerData: parent } = require('node:worker_threads');
  setInterval(() => { if (process.ppid !== parent) process.kill(process.pid, 'SIGKILL'); }, 500);
`;

function write(id: number, body: RunsReply, tensors: readonly Tensor[]): void {
  const encoded = encodeTensorFrame({ id, body } satisfies Numbered<RunsReply>, tensors);
  if (!encoded.ok) write(id, { kind: 'refused', ...encoded.refusal }, []);
  else
    for (const piece of encoded.value)
      for (let at = 0; at < piece.length; ) at += writeSync(answers, piece, at);
}

const datatypes = new Map(Object.entries(ortTypes).map(([ours, theirs]) => [theirs, ours as Datatype]));

function fromOrt(name: string, value: OrtTensor): Tensor {
  const datatype = datatypes.get(value.type);
  if (datatype === undefined)
    throw new Error(`output ${name} has the type ${value.type}, which cannot be sent`);
  // Half floats may have an array class of their own; only their bytes are sent.
  return { name, datatype, shape: [...value.dims], data: value.data as TensorData };
}

const peakBytes = (): number | null => residentMemory('self')?.peakBytes ?? null;

let session: InferenceSession | null = null;
let ort: ReturnType<typeof openRuntime>['ort'] = null;

async function load({ modelPath, threads }: RunsRequest & { kind: 'load' }): Promise<RunsReply> {
  const opened = openRuntime();
  if (opened.ort === null) return { kind: 'no-runtime', detail: opened.detail };
  ort = opened.ort;
  try {
    session = await ort.InferenceSession.create(modelPath, {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionMode: 'sequential',
      logSeverityLevel: 3,
    });
  } catch (error) {
    const detail = oneLine(error);
    return { kind: 'refused', code: loadFailureCode(detail), detail };
  }
  return { kind: 'done', peakBytes: peakBytes() };
}

async function run(
  inputs: readonly Tensor[],
  outputs: readonly string[],
): Promise<{ reply: RunsReply; tensors: Tensor[] }> {
  if (session === null || ort === null)
    return { reply: { kind: 'refused', code: 'infer-not-ready', detail: 'no model is loaded' }, tensors: [] };
  try {
    const feeds: Record<string, OrtTensor> = {};
    for (const { name, datatype, shape, data } of inputs)
      feeds[name] = new ort.Tensor(ortTypes[datatype], data as OrtTensor.DataType, shape) as OrtTensor;
    // Only what is named is fetched: a map would throw.
    const results = await session.run(feeds, outputs);
    const tensors = outputs.map((name) => {
      const value = results[name];
      if (value === undefined) throw new Error(`the model gave no output ${name}`);
      return fromOrt(name, value as OrtTensor);
    });
    return { reply: { kind: 'done', peakBytes: peakBytes() }, tensors };
  } catch (error) {
    return { reply: { kind: 'refused', code: 'infer-failed', detail: oneLine(error) }, tensors: [] };
  }
}

let sinceTurnBytes = 0;
async function serve({ message, tensors: inputs }: TensorFrame): Promise<void> {
  const { id, body: request } = message as Numbered<RunsRequest>;
  if (request.kind === 'load') {
    write(id, await load(request), []);
    return;
  }
  const { reply, tensors } = await run(inputs, request.outputs);
  write(id, reply, tensors);
  for (const { data } of [...inputs, ...tensors]) if (!Array.isArray(data)) sinceTurnBytes += data.byteLength;
  if (sinceTurnBytes < turnEveryBytes) return;
  sinceTurnBytes = 0;
  await nextTurn();
}

stepBack();
// Read here: until the thread has begun the parent may be gone.
new Worker(watchParent, { eval: true, workerData: process.ppid }).unref();
const reader = createTensorFrameReader();
for (;;) {
  // Its tensors may view the chunk: each gets memory of its own.
  const chunk = Buffer.allocUnsafeSlow(readBytes);
  const count = readSync(requests, chunk);
  if (count === 0) break;
  for (const frame of reader.push(chunk.subarray(0, count))) {
    // Our parent checked what it sends.
    if (!frame.ok) throw new Error(frame.refusal.detail);
    await serve(frame.value);
  }
}
// Not by itself: what the model left in native code has nothing more to say.
process.exit(0);
