// Why: one ONNX Runtime session in a child process: our tensors in, our tensors out.
// Trusts: the model was admitted and its bytes verified. Must never: be imported outside the child;
// a model can end the process it runs in, and `run` blocks it.

import { createRequire } from 'node:module';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { withoutTurns } from '../../shared/host/event-loop.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';
import { rawBytes, type TensorBytes } from './pipe.ts';

// `require`, because importing a CommonJS package as a module loads a WebAssembly parser first (3 MB).
const ort = createRequire(import.meta.url)('onnxruntime-node') as typeof import('onnxruntime-node');

interface Layout {
  ortType: OrtTensor.Type;
  view: (buffer: ArrayBufferLike, offset: number, bytes: number) => Exclude<TensorData, string[]>;
}

const layouts: Record<Exclude<Datatype, 'BYTES'>, Layout> = {
  BOOL: { ortType: 'bool', view: (b, o, n) => new Uint8Array(b, o, n) },
  INT8: { ortType: 'int8', view: (b, o, n) => new Int8Array(b, o, n) },
  INT16: { ortType: 'int16', view: (b, o, n) => new Int16Array(b, o, n / 2) },
  INT32: { ortType: 'int32', view: (b, o, n) => new Int32Array(b, o, n / 4) },
  INT64: { ortType: 'int64', view: (b, o, n) => new BigInt64Array(b, o, n / 8) },
  UINT8: { ortType: 'uint8', view: (b, o, n) => new Uint8Array(b, o, n) },
  UINT16: { ortType: 'uint16', view: (b, o, n) => new Uint16Array(b, o, n / 2) },
  UINT32: { ortType: 'uint32', view: (b, o, n) => new Uint32Array(b, o, n / 4) },
  UINT64: { ortType: 'uint64', view: (b, o, n) => new BigUint64Array(b, o, n / 8) },
  FP16: { ortType: 'float16', view: (b, o, n) => new Uint16Array(b, o, n / 2) },
  FP32: { ortType: 'float32', view: (b, o, n) => new Float32Array(b, o, n / 4) },
  FP64: { ortType: 'float64', view: (b, o, n) => new Float64Array(b, o, n / 8) },
};

const datatypeOfOrt = new Map<string, Exclude<Datatype, 'BYTES'>>();
for (const datatype of Object.keys(layouts) as (keyof typeof layouts)[]) {
  datatypeOfOrt.set(layouts[datatype].ortType, datatype);
}

function toOrt({ head, bytes }: TensorBytes): OrtTensor {
  if (head.datatype === 'BYTES') return new ort.Tensor('string', head.strings ?? [], head.shape);
  const layout = layouts[head.datatype];
  return new ort.Tensor(
    layout.ortType,
    layout.view(bytes.buffer, bytes.byteOffset, bytes.length) as OrtTensor.DataType,
    head.shape,
  ) as OrtTensor;
}

function fromOrt(name: string, value: OrtTensor): Tensor {
  const shape = [...value.dims];
  if (value.type === 'string') return { name, datatype: 'BYTES', shape, data: value.data as string[] };
  const datatype = datatypeOfOrt.get(value.type);
  if (datatype === undefined)
    throw new Error(`output ${name} has the type ${value.type}, which cannot be sent`);
  // Read as bytes: newer Node versions give half floats an array class of their own.
  const bytes = rawBytes(value.data as Exclude<TensorData, string[]>);
  return {
    name,
    datatype,
    shape,
    data: layouts[datatype].view(bytes.buffer, bytes.byteOffset, bytes.length),
  };
}

export interface OpenSession {
  /** The first of its execution providers: what it cannot run of the graph, the CPU runs. */
  provider: string;
  skipped: { name: string; reason: string }[];
  run(inputs: TensorBytes[], outputs: string[]): Promise<{ outputs: Tensor[]; runMs: number }>;
}

const fallback = 'cpu';

/** Execution providers that this build of the runtime has, whether or not the device has what they need. */
export const offeredProviders = (): string[] => ort.listSupportedBackends().map(({ name }) => name);

/** Whether a smallest model can be opened with the provider: its driver or hardware may be missing. */
export async function runsWith(name: string): Promise<boolean> {
  const { smallestModel } = await import('./smallest-model.ts');
  try {
    const options = { executionProviders: [name], logSeverityLevel: 4 } as const;
    const session = await ort.InferenceSession.create(smallestModel(), options);
    await session.release();
    return true;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  }
}

/** In order, what this build of the runtime has, with the CPU behind; what stands behind the CPU never runs. */
export function chooseProviders(
  asked: readonly string[],
  offered: readonly string[],
): { wanted: string[]; skipped: { name: string; reason: string }[] } {
  const skipped: { name: string; reason: string }[] = [];
  const wanted: string[] = [];
  for (const name of new Set(asked)) {
    if (name === fallback) break;
    if (offered.includes(name)) wanted.push(name);
    else skipped.push({ name, reason: 'this runtime does not have it' });
  }
  return { wanted: [...wanted, fallback], skipped };
}

/** A provider whose driver or hardware is missing shows it only here: the next one is tried, the CPU last. */
async function createSession(
  modelPath: string,
  settings: Omit<InferenceSession.SessionOptions, 'executionProviders'>,
  wanted: string[],
  skipped: { name: string; reason: string }[],
): Promise<{ session: InferenceSession; provider: string }> {
  for (let executionProviders = wanted; ; ) {
    const [provider = fallback, ...rest] = executionProviders;
    try {
      const session = await ort.InferenceSession.create(modelPath, { ...settings, executionProviders });
      return { session, provider };
    } catch (error) {
      if (rest.length === 0) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      skipped.push({ name: provider, reason: reason.replace(/\s+/g, ' ').slice(0, 300) });
      executionProviders = rest;
    }
  }
}

/** Throws what ONNX Runtime throws. Blocks the process while it loads. */
export async function openSession(
  modelPath: string,
  options: { threads: number; providers: string[]; clock: Clock },
): Promise<OpenSession> {
  const { wanted, skipped } = chooseProviders(options.providers, offeredProviders());
  const settings: Omit<InferenceSession.SessionOptions, 'executionProviders'> = {
    intraOpNumThreads: options.threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    // 3 is error: warnings about the graph are the publisher's business, not the device's log.
    logSeverityLevel: 3,
  };
  const { session, provider } = await createSession(modelPath, settings, wanted, skipped);
  return {
    provider,
    skipped,
    run: async (inputs, outputs) => {
      const feeds: Record<string, OrtTensor> = {};
      for (const input of inputs) feeds[input.head.name] = toOrt(input);
      const start = options.clock.mono();
      // Only what is named is fetched: a ZipMap output would throw. The binding puts each run off to the next turn.
      const results = await withoutTurns(() => session.run(feeds, outputs));
      const runMs = options.clock.mono() - start;
      return {
        runMs,
        outputs: outputs.map((name) => {
          const value = results[name];
          if (value === undefined) throw new Error(`the model gave no output ${name}`);
          return fromOrt(name, value as OrtTensor);
        }),
      };
    },
  };
}
