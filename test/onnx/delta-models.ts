// Why: models made to order for the delta codec: tensors in every place where ONNX keeps them, and releases that
// differ in known ways. Trusts: the field numbers of onnx-ml.proto. Must never: draw numbers that a seed does not
// repeat.

import assert from 'node:assert/strict';
import { systemZstd } from '../../shared/host/zstd.ts';
import { applyDelta } from '../../shared/onnx/delta/apply.ts';
import { type DeltaToEncode, encodeDelta } from '../../shared/onnx/delta/encode.ts';
import { unpackFrame } from '../../shared/onnx/delta/frames.ts';
import { openPatch } from '../../shared/onnx/delta/header.ts';
import type { Plan } from '../../shared/onnx/delta/operations.ts';
import { readPlan } from '../../shared/onnx/delta/plan.ts';
import type { DeltaFile } from '../../shared/onnx/delta/tensors.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { chance } from '../support/chance.ts';

/** Weights as a network has them: around zero, most of them small. */
export function weights(seed: number, count: number, scale = 0.05): Float32Array {
  const next = chance(seed);
  const bell = (): number => next() + next() + next() + next() + next() + next() - 3;
  return Float32Array.from({ length: count }, () => bell() * scale);
}

export function rawOf(values: Float32Array | Int8Array | Uint8Array | Int32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

export interface Tensor {
  name: string;
  dataType: number;
  dims: number[];
  /** Field of TensorProto that holds it; default raw_data. */
  field?: number;
  bytes: Uint8Array;
}

export const float32 = (name: string, dims: number[], values: Float32Array): Tensor => ({
  ...{ name, dims },
  dataType: 1,
  bytes: rawOf(values),
});

/** TensorProto: dims 1, data_type 2, name 8, raw_data 9. */
export function tensorMessage({ name, dataType, dims, field = 9, bytes }: Tensor): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const size of dims) writer.int(1, size);
  return writer.int(2, dataType).string(8, name).bytes(field, bytes);
}

export interface Node {
  operator: string;
  inputs?: string[];
  outputs: string[];
  attributes?: { name: string; field: number; value: ProtobufWriter }[];
}

/** NodeProto: input 1, output 2, op_type 4, attribute 5. */
export function nodeMessage({ operator, inputs = [], outputs, attributes = [] }: Node): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const name of inputs) writer.string(1, name);
  for (const name of outputs) writer.string(2, name);
  writer.string(4, operator);
  for (const { name, field, value } of attributes)
    writer.message(5, new ProtobufWriter().string(1, name).message(field, value));
  return writer;
}

export function graphMessage(tensors: readonly Tensor[], nodes: readonly Node[] = []): ProtobufWriter {
  const graph = new ProtobufWriter();
  for (const node of nodes) graph.message(1, nodeMessage(node));
  for (const tensor of tensors) graph.message(5, tensorMessage(tensor));
  return graph;
}

/** ModelProto: ir_version 1, producer_name 2, graph 7. */
export function modelBytes(tensors: readonly Tensor[], nodes: readonly Node[] = []): Uint8Array {
  return new ProtobufWriter().int(1, 8).string(2, 'test').message(7, graphMessage(tensors, nodes)).finish();
}

export const file = (bytes: Uint8Array, path = 'model.onnx'): DeltaFile => ({ path, bytes });

/** Encodes, applies, compares; the patch. */
export function roundTrip(
  base: Uint8Array | readonly DeltaFile[],
  target: Uint8Array | DeltaFile,
  beside: DeltaToEncode['beside'] = [],
): Uint8Array {
  const bases = base instanceof Uint8Array ? [file(base)] : base;
  const wanted = target instanceof Uint8Array ? file(target) : target;
  const patch = encodeDelta({ base: bases, target: wanted, beside, zstd: systemZstd });
  const rebuilt = applyDelta({ patch, bases: bases.map(({ bytes }) => bytes), zstd: systemZstd });
  assert.ok(rebuilt.ok, rebuilt.ok ? '' : `${rebuilt.refusal.code}: ${rebuilt.refusal.detail}`);
  assert.equal(Buffer.compare(rebuilt.value, wanted.bytes), 0, 'rebuilt to the bit');
  return patch;
}

/** The plan of a patch that codes tensor by tensor. */
export function planOf(patch: Uint8Array): Plan {
  const opened = openPatch(patch);
  assert.ok(opened.ok);
  const { form, header, sections } = opened.value;
  assert.equal(form, 'tensors');
  const [packed] = sections;
  assert.ok(packed);
  const bytes = new Uint8Array(packed.plainBytes);
  unpackFrame(systemZstd, packed.bytes, bytes);
  return readPlan(
    bytes,
    header.bases.map((one) => one.bytes),
    header.target.bytes,
  );
}

/** How each tensor of a patch is guessed and coded, in the file's order. */
export function waysOf(patch: Uint8Array): string[] {
  return planOf(patch).target.map(({ guess, coding }) => `${guess.kind} ${coding}`);
}
