// Why: writes small ONNX models from code: trained networks, the demo's classifiers, models made to order for tests.
// Trusts: its caller's tensors after the checks here; field numbers are those of onnx-ml.proto.
// Must never: write a graph with a loose end, which a runtime would refuse much later and in other words.

import { invariant, unwrap } from '../kernel/errors.ts';
import type { Datatype } from '../wire/manifest.ts';
import { checkTensor, type Tensor, tensorToBytes } from '../wire/tensors.ts';
import { ProtobufWriter } from './protobuf.ts';

/** A declared input or output. A dimension given by name is free; one name is one size in a run. */
export interface GraphValue {
  name: string;
  datatype: Datatype;
  shape: (number | string)[];
  /** In words, for people who open the file. */
  documentation?: string;
}

/** An operator's attribute. Its type is given, because ONNX tells 1 from 1.0. */
export type Attribute =
  | { int: number }
  | { ints: number[] }
  | { float: number }
  | { floats: number[] }
  | { string: string }
  | { strings: string[] };

export interface GraphNode {
  /** `Gemm`, `Relu`, … */
  operator: string;
  /** Of the operator; absent: the default domain. */
  domain?: keyof typeof otherOpsets;
  /** For people, and in a runtime's messages. */
  name?: string;
  /** Empty for an optional input that is left out. */
  inputs: string[];
  outputs: string[];
  attributes?: Record<string, Attribute>;
}

export interface ModelSource {
  /** Name of the graph. */
  name: string;
  inputs: GraphValue[];
  outputs: GraphValue[];
  /** In an order in which each finds its inputs made. */
  nodes: GraphNode[];
  /** Constants by name, such as weights. */
  initializers: Tensor[];
  /** Key and value pairs that the file carries. */
  metadata?: Record<string, string>;
  /** Of the default domain. Default 17: the last one in which reductions take their axes as attributes. */
  opset?: number;
  /** Of the model, in words. */
  documentation?: string;
  /** Of the graph, in words. */
  graphDocumentation?: string;
}

const opsetDefault = 17;
/** Opsets of the other domains, imported where a node is of one: those that came with IR version 8. */
const otherOpsets = { 'ai.onnx.ml': 3 } as const;
/** The IR version that came with opset 15 to 18; every runtime of today reads it. */
const irVersion = 8;
const producer = 'lepton-fleet';

/** TensorProto.DataType. */
const elementTypes: Record<Datatype, number> = {
  FP32: 1,
  UINT8: 2,
  INT8: 3,
  UINT16: 4,
  INT16: 5,
  INT32: 6,
  INT64: 7,
  BYTES: 8,
  BOOL: 9,
  FP16: 10,
  FP64: 11,
  UINT32: 12,
  UINT64: 13,
};

/**
 * The bytes of an ONNX file. A graph that uses a name before it is made, makes one twice or declares an
 * output that nothing makes is a bug of the caller (`internal`); a tensor whose data does not fill its
 * shape is refused with `infer-invalid`.
 */
export function writeModel(source: ModelSource): Uint8Array {
  checkNames(source);
  const graph = new ProtobufWriter();
  for (const node of source.nodes) graph.message(1, nodeMessage(node));
  graph.string(2, source.name);
  for (const tensor of source.initializers) graph.message(5, tensorMessage(unwrap(checkTensor(tensor))));
  if (source.graphDocumentation !== undefined) graph.string(10, source.graphDocumentation);
  for (const input of source.inputs) graph.message(11, valueMessage(input));
  for (const output of source.outputs) graph.message(12, valueMessage(output));
  const model = new ProtobufWriter().int(1, irVersion).string(2, producer);
  if (source.documentation !== undefined) model.string(6, source.documentation);
  model.message(7, graph).message(8, opsetMessage('', source.opset ?? opsetDefault));
  for (const domain of new Set(source.nodes.flatMap((node) => node.domain ?? [])))
    model.message(8, opsetMessage(domain, otherOpsets[domain]));
  for (const [key, value] of Object.entries(source.metadata ?? {}))
    model.message(14, new ProtobufWriter().string(1, key).string(2, value));
  return model.finish();
}

function checkNames(source: ModelSource): void {
  const made = new Set<string>();
  const make = (name: string): void => {
    invariant(name !== '' && !made.has(name), `${source.name}: ${JSON.stringify(name)} is made twice`);
    made.add(name);
  };
  for (const { name } of [...source.inputs, ...source.initializers]) make(name);
  for (const node of source.nodes) {
    for (const name of node.inputs)
      invariant(name === '' || made.has(name), `${source.name}: ${node.operator} uses ${name}, not made yet`);
    for (const name of node.outputs) make(name);
  }
  invariant(source.outputs.length > 0, `${source.name}: no output`);
  for (const { name } of source.outputs) invariant(made.has(name), `${source.name}: nothing makes ${name}`);
}

/** OperatorSetIdProto: domain 1, version 2. */
function opsetMessage(domain: string, version: number): ProtobufWriter {
  return new ProtobufWriter().string(1, domain).int(2, version);
}

/** NodeProto: input 1, output 2, name 3, op_type 4, attribute 5, domain 7. */
function nodeMessage(node: GraphNode): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const name of node.inputs) writer.string(1, name);
  for (const name of node.outputs) writer.string(2, name);
  if (node.name !== undefined) writer.string(3, node.name);
  writer.string(4, node.operator);
  for (const [name, attribute] of Object.entries(node.attributes ?? {}))
    writer.message(5, attributeMessage(name, attribute));
  return node.domain === undefined ? writer : writer.string(7, node.domain);
}

/** AttributeProto: name 1, f 2, i 3, s 4, floats 7, ints 8, strings 9, type 20. */
function attributeMessage(name: string, attribute: Attribute): ProtobufWriter {
  const writer = new ProtobufWriter().string(1, name);
  if ('float' in attribute) return writer.float(2, attribute.float).int(20, 1);
  if ('int' in attribute) return writer.int(3, attribute.int).int(20, 2);
  if ('string' in attribute) return writer.string(4, attribute.string).int(20, 3);
  if ('floats' in attribute) {
    for (const value of attribute.floats) writer.float(7, value);
    return writer.int(20, 6);
  }
  if ('strings' in attribute) {
    for (const text of attribute.strings) writer.string(9, text);
    return writer.int(20, 8);
  }
  for (const value of attribute.ints) writer.int(8, value);
  return writer.int(20, 7);
}

/** TensorProto: dims 1, data_type 2, string_data 6, name 8, raw_data 9. */
function tensorMessage(tensor: Tensor): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const size of tensor.shape) writer.int(1, size);
  writer.int(2, elementTypes[tensor.datatype]);
  // Strings are the one kind that raw_data may not hold.
  if (Array.isArray(tensor.data)) for (const text of tensor.data) writer.string(6, text);
  writer.string(8, tensor.name);
  return Array.isArray(tensor.data) ? writer : writer.bytes(9, tensorToBytes(tensor));
}

/** ValueInfoProto: name 1, type 2 { tensor_type 1 { elem_type 1, shape 2 { dim 1 { value 1, param 2 } } } }, doc_string 3. */
function valueMessage(value: GraphValue): ProtobufWriter {
  const shape = new ProtobufWriter();
  for (const size of value.shape) {
    const dimension = new ProtobufWriter();
    shape.message(1, typeof size === 'number' ? dimension.int(1, size) : dimension.string(2, size));
  }
  const tensor = new ProtobufWriter().int(1, elementTypes[value.datatype]).message(2, shape);
  const writer = new ProtobufWriter().string(1, value.name);
  writer.message(2, new ProtobufWriter().message(1, tensor));
  return value.documentation === undefined ? writer : writer.string(3, value.documentation);
}
