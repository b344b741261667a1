// Why: refuses a model that this fleet cannot serve before a device loads it; run at the push, at the
// registry and again on the device.
// Trusts: nothing but the bytes; what the file declares is compared with its graph by the runtime later.
// Must never: admit an output that kills the process (a 4-bit one does; no try/catch contains it).

import { ok, type Result, refuse } from '../kernel/result.ts';
import type { Datatype, TensorSignature } from '../wire/manifest.ts';
import { ownBytes } from './memory.ts';
import { type MemoryBound, mebibytes, smallestBound } from './memory-bounds.ts';
import { type OnnxModel, readModel } from './model.ts';
import type { OnnxValue } from './signature.ts';
import { bitsOf, bytesOf } from './tensor.ts';

/** Newest opset of the default domain that ONNX Runtime 1.30 runs (it refuses 27: "under development"). */
export const opsetMaxDefault = 26;
/** Newest opsets of the other built-in domains in ONNX Runtime 1.30. */
const otherOpsetsMax = new Map([
  ['ai.onnx.ml', 5],
  ['com.microsoft', 1],
]);
/** Newest IR version that ONNX Runtime 1.30 reads. */
const irVersionMax = 13;

export interface AdmissionRules {
  /** Outputs that are never fetched (manifest `excludeOutputs`). */
  excludeOutputs: readonly string[];
  /** External data files that are there with their bytes, by their path relative to the model file. */
  externalFiles: ReadonlyMap<string, number>;
  opsetMax: number;
  /** What it may take in memory, each with who says so; the smallest counts. */
  memoryBounds: readonly MemoryBound[];
}

export interface Admitted {
  inputs: TensorSignature[];
  /** Without the excluded ones. */
  outputs: TensorSignature[];
  /** Opset of the default domain; 1 where the model uses none of it. */
  opset: number;
  /** Lower bound: constants of the file and those worked out from them, and the largest values of a run. */
  memoryBytesEstimate: number;
}

/** TensorProto.DataType to the protocol's datatype. BF16, 8-bit floats and complex numbers have none here. */
const datatypeOf = new Map<number, Datatype>([
  [1, 'FP32'],
  [2, 'UINT8'],
  [3, 'INT8'],
  [4, 'UINT16'],
  [5, 'INT16'],
  [6, 'INT32'],
  [7, 'INT64'],
  [8, 'BYTES'],
  [9, 'BOOL'],
  [10, 'FP16'],
  [11, 'FP64'],
  [12, 'UINT32'],
  [13, 'UINT64'],
]);

/** UINT4, INT4, FLOAT4E2M1, UINT2, INT2. */
const packedTypes = new Map([
  [21, 'uint4'],
  [22, 'int4'],
  [23, 'float4'],
  [25, 'uint2'],
  [26, 'int2'],
]);

/**
 * Judges a model file. Refusals: `model-not-onnx`, `model-invalid`, `model-int4-output`,
 * `model-output-not-tensor`, `model-type-unsupported`, `model-custom-operator`,
 * `model-external-data-missing`, `model-opset-too-new`, `model-memory-estimate`.
 */
export function admitModel(bytes: Uint8Array, rules: AdmissionRules): Result<Admitted> {
  const read = readModel(bytes);
  if (!read.ok) return read;
  const model = read.value;
  const opset = checkOpsets(model, rules.opsetMax);
  if (!opset.ok) return opset;
  const operators = checkOperators(model);
  if (!operators.ok) return operators;
  const external = checkExternalData(model, rules.externalFiles);
  if (!external.ok) return external;
  const outputs = admitOutputs(model, rules.excludeOutputs);
  if (!outputs.ok) return outputs;
  const inputs = admitInputs(model);
  if (!inputs.ok) return inputs;
  const memoryBytesEstimate = Math.min(
    model.initializerBytes +
      Math.max(ownBytes(model.memory), signatureBytes(model.inputs) + signatureBytes(model.outputs)),
    Number.MAX_SAFE_INTEGER,
  );
  const memory = checkMemory(memoryBytesEstimate, rules.memoryBounds);
  if (!memory.ok) return memory;
  return ok({ inputs: inputs.value, outputs: outputs.value, opset: opset.value, memoryBytesEstimate });
}

/** Outputs that must be excluded for the others to be fetched: maps, sequences, types that have no datatype. */
export function outputsNotFetched(model: OnnxModel): string[] {
  return model.outputs
    .filter(
      ({ kind, elemType }) => kind !== 'tensor' || !(datatypeOf.has(elemType) || packedTypes.has(elemType)),
    )
    .map(({ name }) => name);
}

function checkMemory(bytes: number, bounds: readonly MemoryBound[]): Result<void> {
  const [first, ...others] = bounds;
  if (first === undefined) return ok();
  const bound = smallestBound(first, ...others);
  if (bytes <= bound.bytes) return ok();
  return refuse(
    'model-memory-estimate',
    `its tensors take at least ${mebibytes(bytes)}; ${bound.from} is ${mebibytes(bound.bytes)}`,
  );
}

function checkExternalData(model: OnnxModel, files: ReadonlyMap<string, number>): Result<void> {
  for (const { path, offset, length, bytes } of model.externalData) {
    const there = files.get(path);
    const name = JSON.stringify(path);
    if (there === undefined)
      return refuse('model-external-data-missing', `the tensors in ${name} are not in the release`);
    if (length !== null && length !== bytes)
      return refuse('model-invalid', `a tensor of ${bytes} bytes has ${length} bytes in ${name}`);
    if (offset + bytes > there) {
      const lfs = there < 1_024 && there > 0 ? '; is it a Git LFS pointer?' : '';
      return refuse(
        'model-external-data-missing',
        `a tensor ends at byte ${offset + bytes} of ${name}, which has ${there}${lfs}`,
      );
    }
  }
  return ok();
}

function checkOpsets(model: OnnxModel, opsetMax: number): Result<number> {
  if (model.irVersion > irVersionMax) {
    return refuse(
      'model-opset-too-new',
      `IR version ${model.irVersion}; the runtime reads up to ${irVersionMax}`,
    );
  }
  const opset = model.opsets.get('') ?? 1;
  if (opset > opsetMax)
    return refuse('model-opset-too-new', `opset ${opset}; the runtime runs up to ${opsetMax}`);
  for (const [domain, max] of otherOpsetsMax) {
    const version = model.opsets.get(domain) ?? 0;
    if (version > max)
      return refuse('model-opset-too-new', `opset ${version} of ${domain}; the runtime runs up to ${max}`);
  }
  if (opset < 1) return refuse('model-invalid', `opset ${opset} does not exist`);
  return ok(opset);
}

function checkOperators(model: OnnxModel): Result<void> {
  for (const operator of model.operators) {
    const domain = operator.slice(0, operator.lastIndexOf(':'));
    if (domain === '' || otherOpsetsMax.has(domain) || model.functions.has(operator)) continue;
    return refuse('model-custom-operator', `the operator ${operator} is not built into the runtime`);
  }
  return ok();
}

function admitOutputs(model: OnnxModel, excludeOutputs: readonly string[]): Result<TensorSignature[]> {
  const outputs: TensorSignature[] = [];
  const excluded = new Set(excludeOutputs);
  const declared = new Set(model.outputs.map((output) => output.name));
  for (const name of excluded) {
    if (!declared.has(name)) {
      return refuse(
        'model-invalid',
        `excludeOutputs names ${JSON.stringify(name)}, which the model does not have`,
      );
    }
  }
  for (const output of model.outputs) {
    const packed = packedTypes.get(output.elemType);
    // Even where it is excluded: the runtime must not get a chance to make such a tensor for us.
    if (packed !== undefined) return refuse('model-int4-output', `the output ${output.name} is ${packed}`);
    if (excluded.has(output.name)) continue;
    if (output.kind !== 'tensor') {
      return refuse('model-output-not-tensor', `the output ${output.name} is of kind ${output.kind}`);
    }
    const datatype = datatypeOf.get(output.elemType);
    if (datatype === undefined) return unsupported('output', output);
    if (!fitsSignature(output)) return unsupported('output', output);
    outputs.push({ name: output.name, datatype, shape: signatureShape(output) });
  }
  if (outputs.length === 0) return refuse('model-invalid', 'the model has no output that can be fetched');
  return uniqueNames(outputs);
}

function admitInputs(model: OnnxModel): Result<TensorSignature[]> {
  const inputs: TensorSignature[] = [];
  for (const input of model.inputs) {
    const datatype = datatypeOf.get(input.elemType);
    if (input.kind !== 'tensor' || datatype === undefined) return unsupported('input', input);
    if (!fitsSignature(input)) return unsupported('input', input);
    inputs.push({ name: input.name, datatype, shape: signatureShape(input) });
  }
  return uniqueNames(inputs);
}

/** Bounds of the manifest's schema. */
function fitsSignature(value: OnnxValue): boolean {
  return value.name.length <= 512 && (value.shape ?? []).length <= 16;
}

function unsupported(what: 'input' | 'output', value: OnnxValue): Result<never> {
  if (!fitsSignature(value)) {
    const rank = value.shape?.length ?? 0;
    return refuse(
      'model-type-unsupported',
      `the ${what} ${value.name.slice(0, 80)} has ${rank} dimensions and a name of ${value.name.length} characters`,
    );
  }
  const type = value.kind === 'tensor' ? `a tensor of ONNX type ${value.elemType}` : `of kind ${value.kind}`;
  return refuse('model-type-unsupported', `the ${what} ${value.name} is ${type}`);
}

function uniqueNames(signatures: TensorSignature[]): Result<TensorSignature[]> {
  const names = new Set<string>();
  for (const { name } of signatures) {
    if (names.has(name)) return refuse('model-invalid', `two inputs or two outputs are called ${name}`);
    names.add(name);
  }
  return ok(signatures);
}

function signatureShape(value: OnnxValue): number[] {
  return value.shape ?? [];
}

/** Bytes of tensors whose free dimensions are taken as 1. */
function signatureBytes(values: readonly OnnxValue[]): number {
  return values.reduce(
    (sum, { elemType, shape }) =>
      sum +
      bytesOf(
        (shape ?? []).map((size) => Math.max(size, 1)),
        bitsOf(elemType),
      ),
    0,
  );
}
