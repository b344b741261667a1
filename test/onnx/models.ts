// Why: small ONNX files made to order for the tests of the reader and of admission.
// Trusts: the field numbers of onnx-ml.proto. Must never: be valid by accident; a test that wants a
// broken file says what it breaks.

import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';

export interface ValueSpec {
  name: string;
  /** TensorProto.DataType; absent: no type is written. */
  elemType?: number;
  /** A number, a name for a free dimension, or null for a dimension that says nothing; absent: no shape. */
  shape?: (number | string | null)[];
  /** Field number of another member of TypeProto's oneof than tensor_type: 4 sequence, 5 map, 9 optional. */
  kindField?: number;
}

export interface TensorSpec {
  name: string;
  dataType: number;
  dims: number[];
  raw?: Uint8Array;
  longs?: number[];
  external?: Record<string, string>;
}

export interface NodeSpec {
  opType: string;
  domain?: string;
  inputs?: string[];
  outputs?: string[];
  graphs?: ProtobufWriter[];
  tensors?: TensorSpec[];
}

export interface ModelSpec {
  irVersion?: number;
  opsets?: [domain: string, version: number][];
  inputs?: ValueSpec[];
  outputs?: ValueSpec[];
  nodes?: NodeSpec[];
  initializers?: TensorSpec[];
  functions?: { name: string; domain: string; nodes: NodeSpec[] }[];
}

const float = 1;
const plainValue = (name: string): ValueSpec => ({ name, elemType: float, shape: [1, 'n'] });

function value(spec: ValueSpec): ProtobufWriter {
  const writer = new ProtobufWriter().string(1, spec.name);
  if (spec.kindField !== undefined)
    return writer.message(2, new ProtobufWriter().message(spec.kindField, new ProtobufWriter()));
  if (spec.elemType === undefined) return writer;
  const tensor = new ProtobufWriter().int(1, spec.elemType);
  if (spec.shape !== undefined) {
    const shape = new ProtobufWriter();
    for (const size of spec.shape) {
      const dim = new ProtobufWriter();
      if (typeof size === 'number') dim.int(1, size);
      if (typeof size === 'string') dim.string(2, size);
      shape.message(1, dim);
    }
    tensor.message(2, shape);
  }
  return writer.message(2, new ProtobufWriter().message(1, tensor));
}

export function tensor(spec: TensorSpec): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const size of spec.dims) writer.int(1, size);
  writer.int(2, spec.dataType).string(8, spec.name);
  for (const long of spec.longs ?? []) writer.bytes(7, packed(long));
  if (spec.raw !== undefined) writer.bytes(9, spec.raw);
  if (spec.external !== undefined) {
    for (const [key, text] of Object.entries(spec.external)) {
      writer.message(13, new ProtobufWriter().string(1, key).string(2, text));
    }
    writer.int(14, 1);
  }
  return writer;
}

/** One varint without a tag, as a packed field holds it. */
function packed(long: number): Uint8Array {
  return new ProtobufWriter().int(1, long).finish().subarray(1);
}

export function node(spec: NodeSpec): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const name of spec.inputs ?? ['x']) writer.string(1, name);
  for (const name of spec.outputs ?? ['y']) writer.string(2, name);
  writer.string(4, spec.opType);
  for (const inner of spec.graphs ?? [])
    writer.message(5, new ProtobufWriter().string(1, 'body').message(6, inner).int(20, 5));
  for (const constant of spec.tensors ?? [])
    writer.message(5, new ProtobufWriter().string(1, 'value').message(5, tensor(constant)).int(20, 4));
  if (spec.domain !== undefined) writer.string(7, spec.domain);
  return writer;
}

export function graph(
  spec: Pick<ModelSpec, 'inputs' | 'outputs' | 'nodes' | 'initializers'>,
): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const one of spec.nodes ?? [{ opType: 'Identity' }]) writer.message(1, node(one));
  writer.string(2, 'graph');
  for (const one of spec.initializers ?? []) writer.message(5, tensor(one));
  for (const one of spec.inputs ?? [plainValue('x')]) writer.message(11, value(one));
  for (const one of spec.outputs ?? [plainValue('y')]) writer.message(12, value(one));
  return writer;
}

export function modelFile(spec: ModelSpec = {}): Uint8Array {
  const writer = new ProtobufWriter().int(1, spec.irVersion ?? 8).message(7, graph(spec));
  for (const [domain, version] of spec.opsets ?? [['', 17]]) {
    writer.message(8, new ProtobufWriter().string(1, domain).int(2, version));
  }
  for (const one of spec.functions ?? []) {
    const body = new ProtobufWriter().string(1, one.name);
    for (const inner of one.nodes) body.message(7, node(inner));
    writer.message(25, body.string(10, one.domain));
  }
  return writer.finish();
}
