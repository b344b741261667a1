// Why: what the processes have in common in which a model is tried or asked: how ONNX Runtime is loaded there, what it
// calls our datatypes, and that such a process steps back before others.
// Trusts: the package that is installed. Must never: be imported by a process that must live on.

import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setPriority } from 'node:os';
import type { Tensor as OrtTensor } from 'onnxruntime-node';
import { oneLine } from '../onnx/runtime-words.ts';
import type { Datatype } from '../wire/manifest.ts';

export type OnnxRuntime = typeof import('onnxruntime-node');

/** Work for others goes first, and where memory runs out this process is the one to end. */
export function stepBack(): void {
  try {
    setPriority(5);
    if (process.platform === 'linux') writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch (error) {
    // A system that does not allow it: then without.
    if (!(error instanceof Error)) throw error;
  }
}

export function openRuntime(): { ort: OnnxRuntime } | { ort: null; detail: string } {
  try {
    // `require`, because importing a CommonJS package as a module loads a WebAssembly parser first.
    return { ort: createRequire(import.meta.url)('onnxruntime-node') as OnnxRuntime };
  } catch (error) {
    // The first line: behind it come folders of this machine.
    return { ort: null, detail: oneLine(error instanceof Error ? error.message.split('\n')[0] : error) };
  }
}

export const ortTypes: Record<Datatype, OrtTensor.Type> = {
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
