// Why: what ONNX Runtime itself makes of a case, without anything of ours but the tensors: the measure for what HTTP
// must give. Run as a program it is the throw-away process, since a model may abort the one it runs in.
// Trusts: the data folder. Must never: be loaded by the agent.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import ort from 'onnxruntime-node';
import { compareGolden } from '../../shared/wire/golden.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';
import { type ModelCase, modelCases, suiteCases } from '../support/cases.ts';
import { conformanceCases } from '../support/conformance.ts';

export type CaseSet = 'models' | 'suite' | 'conformance';

export interface Outcome {
  /** `differs`: it answered, outside the tolerance. */
  result: 'passed' | 'differs' | 'refused' | 'aborted';
  detail: string;
}

export interface ComparedCase extends ModelCase {
  notTensors?: string | null;
}

export function casesOf(set: CaseSet): ComparedCase[] {
  if (set === 'models') return modelCases();
  return set === 'suite' ? suiteCases() : conformanceCases();
}

function largest(tensor: Tensor | undefined): number {
  const data = Array.from((tensor?.data ?? []) as ArrayLike<number>);
  return data.indexOf(Math.max(...data.slice(0, 100_000)));
}

/** Null where the answer is right. */
export function judge(one: ModelCase, outputs: readonly Tensor[]): string | null {
  if (!one.approximate) return compareGolden(one.expected, outputs, one.rtol, one.atol).firstFailure;
  // int8 kernels differ between processors: the decision must be the same, raw values need not.
  for (const want of one.expected) {
    const got = outputs.find(({ name }) => name === want.name);
    if (largest(got) !== largest(want)) return `${want.name}: another decision`;
  }
  return null;
}

const ortTypes: Record<Datatype, ort.Tensor.Type> = {
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

function outputOf(name: string, value: ort.Tensor): Tensor {
  const datatype = (Object.keys(ortTypes) as Datatype[]).find((one) => ortTypes[one] === value.type);
  if (datatype === undefined) throw new Error(`${name} is ${value.type}`);
  const data = value.data as TensorData;
  // Newer versions of Node have an array class for half floats.
  const halves = (): Uint16Array => {
    const { buffer, byteOffset, length } = data as Uint16Array;
    return new Uint16Array(buffer, byteOffset, length);
  };
  return { name, datatype, shape: [...value.dims], data: datatype === 'FP16' ? halves() : data };
}

async function runCase(session: ort.InferenceSession, one: ComparedCase): Promise<Outcome> {
  const feeds = Object.fromEntries(
    one.inputs.map(({ name, datatype, shape, data }) => [
      name,
      new ort.Tensor(ortTypes[datatype] as 'float32', data as Float32Array, shape),
    ]),
  );
  const results = await session.run(feeds, one.fetch);
  const outputs = one.fetch.map((name) => outputOf(name, results[name] as ort.Tensor));
  const difference = judge(one, outputs);
  return difference === null ? { result: 'passed', detail: '' } : { result: 'differs', detail: difference };
}

async function main(set: CaseSet, from: number): Promise<void> {
  let session: ort.InferenceSession | null = null;
  let path = '';
  for (const one of casesOf(set).slice(from)) {
    let outcome: Outcome;
    try {
      if (one.notTensors) throw new Error(one.notTensors);
      if (session === null || path !== one.modelPath) {
        await session?.release();
        session = null;
        path = one.modelPath;
        session = await ort.InferenceSession.create(path, { logSeverityLevel: 3, intraOpNumThreads: 1 });
      }
      outcome = await runCase(session, one);
    } catch (error) {
      outcome = { result: 'refused', detail: error instanceof Error ? error.message : String(error) };
    }
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
  }
}

/** The cases from `from` on, until one of them ends the process. */
function runFrom(set: CaseSet, from: number): Promise<{ outcomes: Outcome[]; ended: string | null }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), set, String(from)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const outcomes: Outcome[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => outcomes.push(JSON.parse(line) as Outcome));
    child.once('error', reject);
    child.once('close', (code, signal) =>
      resolve({ outcomes, ended: code === 0 ? null : (signal ?? `exit ${code}`) }),
    );
  });
}

/** One outcome for each case of the set, in order. */
export async function runDirectly(set: CaseSet): Promise<Outcome[]> {
  const count = casesOf(set).length;
  const all: Outcome[] = [];
  while (all.length < count) {
    const { outcomes, ended } = await runFrom(set, all.length);
    all.push(...outcomes);
    if (all.length < count) all.push({ result: 'aborted', detail: ended ?? 'no answer' });
  }
  return all;
}

const [, program, set, from] = process.argv;
if (program === fileURLToPath(import.meta.url)) await main(set as CaseSet, Number(from));
