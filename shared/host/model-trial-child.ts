// Why: the entry of a throw-away process that loads a model once and runs it on zeros, so that a file which no parser
// can judge is judged by the runtime itself. Trusts: its parent for what to load and for its own end.
// Must never: be imported; a model can end the process it runs in.

import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setPriority } from 'node:os';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { loadFailureCode, oneLine } from '../onnx/runtime-words.ts';
import { zeroInputs } from '../onnx/zeros.ts';
import type { Datatype } from '../wire/manifest.ts';
import { withLinks } from './linked-folder.ts';
import { residentMemory } from './model-child.ts';
import type { TrialOrder, TrialReply } from './model-trial.ts';

type OnnxRuntime = typeof import('onnxruntime-node');

const pipe = 3;

function reply(message: TrialReply): void {
  const line = Buffer.from(`${JSON.stringify(message)}\n`);
  for (let at = 0; at < line.length; ) at += writeSync(pipe, line, at);
}

/** Work for others goes first, and where memory runs out this process is the one to end. */
function stepBack(): void {
  try {
    setPriority(5);
    if (process.platform === 'linux') writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch (error) {
    // A system that does not allow it: then without.
    if (!(error instanceof Error)) throw error;
  }
}

function openRuntime(): OnnxRuntime | null {
  try {
    // `require`, because importing a CommonJS package as a module loads a WebAssembly parser first.
    return createRequire(import.meta.url)('onnxruntime-node') as OnnxRuntime;
  } catch (error) {
    // The first line: behind it come folders of this machine.
    reply({
      kind: 'no-runtime',
      detail: oneLine(error instanceof Error ? error.message.split('\n')[0] : error),
    });
    return null;
  }
}

const ortTypes: Record<Datatype, OrtTensor.Type> = {
  BOOL: 'bool',
  INT8: 'int8',
  INT16: 'int16',
  INT32: 'int32',
  INT64: 'int64',
  UINT8: 'uint8',
  UINT16: 'uint16',
  UINT32: 'uint32',
  UINT64: 'uint64',
  FP16: 'float16',
  FP32: 'float32',
  FP64: 'float64',
  BYTES: 'string',
};

/** What the runtime says of zeros; null where they ran. */
async function runOnce(
  ort: OnnxRuntime,
  session: InferenceSession,
  order: TrialOrder,
): Promise<string | null> {
  const zeros = zeroInputs(order);
  if (zeros === null) return 'not run: an input is too large';
  try {
    const feeds: Record<string, OrtTensor> = {};
    for (const { name, datatype, shape, data } of zeros)
      feeds[name] = new ort.Tensor(ortTypes[datatype], data as OrtTensor.DataType, shape) as OrtTensor;
    await session.run(feeds, order.outputs);
    return null;
  } catch (error) {
    return oneLine(error);
  }
}

async function tryModel(ort: OnnxRuntime, order: TrialOrder): Promise<void> {
  let session: InferenceSession;
  try {
    session = await withLinks(order.modelPath, order.linked, (path) =>
      ort.InferenceSession.create(path, {
        executionProviders: ['cpu'],
        // Memory is what counts here, not speed.
        intraOpNumThreads: 1,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
      }),
    );
  } catch (error) {
    const detail = oneLine(error);
    return reply({ kind: 'refused', code: loadFailureCode(detail), detail });
  }
  reply({ kind: 'loaded' });
  const runFailure = await runOnce(ort, session, order);
  reply({ kind: 'ran', runFailure, peakBytes: residentMemory('self')?.peakBytes ?? null });
}

stepBack();
const order = JSON.parse(readFileSync(0, 'utf8')) as TrialOrder;
const ort = openRuntime();
if (ort !== null) await tryModel(ort, order);
// Not by itself: what the model left in native code has nothing more to say.
process.exit(0);
