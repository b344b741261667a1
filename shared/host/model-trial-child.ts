// Why: the entry of a throw-away process that loads a model once and runs it on zeros, so that a file which no parser
// can judge is judged by the runtime itself. Trusts: its parent for what to load and for its own end.
// Must never: be imported; a model can end the process it runs in.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { TrialOrder, TrialReport } from './model-trial.ts';

// `require`, because importing a CommonJS package as a module loads a WebAssembly parser first.
const ort = createRequire(import.meta.url)('onnxruntime-node') as typeof import('onnxruntime-node');

const types: Record<string, [OrtTensor.Type, (count: number) => unknown]> = {
  BOOL: ['bool', (count) => new Uint8Array(count)],
  INT8: ['int8', (count) => new Int8Array(count)],
  INT16: ['int16', (count) => new Int16Array(count)],
  INT32: ['int32', (count) => new Int32Array(count)],
  INT64: ['int64', (count) => new BigInt64Array(count)],
  UINT8: ['uint8', (count) => new Uint8Array(count)],
  UINT16: ['uint16', (count) => new Uint16Array(count)],
  UINT32: ['uint32', (count) => new Uint32Array(count)],
  UINT64: ['uint64', (count) => new BigUint64Array(count)],
  FP16: ['float16', (count) => new Uint16Array(count)],
  FP32: ['float32', (count) => new Float32Array(count)],
  FP64: ['float64', (count) => new Float64Array(count)],
  BYTES: ['string', (count) => Array<string>(count).fill('')],
};

/** Larger inputs are not worth their memory: such a model is loaded and not run. */
const elementsMax = 16 * 1024 * 1024;

/** Null where an input would be too large, or the model takes none. */
function zerosFor(inputs: TrialOrder['inputs']): Record<string, OrtTensor> | null {
  const feeds: Record<string, OrtTensor> = {};
  for (const { name, datatype, shape } of inputs) {
    const fixed = shape.map((size) => (size < 0 ? 1 : size));
    const count = fixed.reduce((a, b) => a * b, 1);
    const type = types[datatype];
    if (type === undefined || count > elementsMax) return null;
    feeds[name] = new ort.Tensor(type[0], type[1](count) as OrtTensor.DataType, fixed) as OrtTensor;
  }
  return feeds;
}

const text = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim().slice(0, 600);

async function tryModel(order: TrialOrder): Promise<TrialReport> {
  let session: InferenceSession;
  try {
    session = await ort.InferenceSession.create(order.modelPath, {
      executionProviders: ['cpu'],
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
  } catch (error) {
    return { loaded: false, detail: text(error) };
  }
  const feeds = zerosFor(order.inputs);
  if (feeds === null) return { loaded: true, detail: 'not run: its inputs are too large' };
  try {
    await session.run(feeds, order.outputs);
    return { loaded: true, detail: null };
  } catch (error) {
    // Zeros of size one are no legal input for every model.
    return { loaded: true, detail: `zeros: ${text(error)}` };
  }
}

const order = JSON.parse(readFileSync(0, 'utf8')) as TrialOrder;
const report = await tryModel(order);
process.stdout.write(`${JSON.stringify(report)}\n`);
process.exit(0);
