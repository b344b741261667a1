// Why: the entry of a throw-away process that loads a model once and runs it on zeros, so that a file which no parser
// can judge is judged by the runtime itself. Trusts: its parent for what to load and for its own end.
// Must never: be imported; a model can end the process it runs in.

import { readFileSync, writeSync } from 'node:fs';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { loadFailureCode, oneLine } from '../onnx/runtime-words.ts';
import { zeroInputs } from '../onnx/zeros.ts';
import { withLinks } from './linked-folder.ts';
import { residentMemory } from './model-child.ts';
import { type OnnxRuntime, openRuntime, ortTypes, stepBack } from './model-runtime.ts';
import type { TrialOrder, TrialReply } from './model-trial.ts';

const pipe = 3;

function reply(message: TrialReply): void {
  const line = Buffer.from(`${JSON.stringify(message)}\n`);
  for (let at = 0; at < line.length; ) at += writeSync(pipe, line, at);
}

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
const opened = openRuntime();
if (opened.ort === null) reply({ kind: 'no-runtime', detail: opened.detail });
else await tryModel(opened.ort, order);
// Not by itself: what the model left in native code has nothing more to say.
process.exit(0);
