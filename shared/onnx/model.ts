// Why: what an ONNX file says about itself (signature, operators, opsets, external files), read from
// its bytes without loading it into a runtime.
// Trusts: nothing; field numbers are those of onnx-ml.proto, unknown fields are stepped over.
// Must never: copy tensor data, run anything, or recurse without a bound.

import { releasePathPattern } from '../kernel/releases.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { ProtobufFault, ProtobufReader, wireTypes } from './protobuf.ts';
import { type OnnxValue, readValue } from './signature.ts';

const stringType = 8;
const int64Type = 7;

/** Bits of one element in memory by TensorProto.DataType; strings are counted by their text. */
const elementBits: readonly number[] = [
  0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2,
];

export interface OnnxExternalData {
  /** Relative to the model file. */
  path: string;
  offset: number;
  /** Null: to the end of the file. */
  length: number | null;
}

export interface OnnxModel {
  irVersion: number;
  /** By domain; the default domain is '' (also where the file spells it ai.onnx). */
  opsets: Map<string, number>;
  /** Without the initializers that older files list among the inputs. */
  inputs: OnnxValue[];
  outputs: OnnxValue[];
  /** Every operator used, subgraphs and functions of the model included: `domain:opType`. */
  operators: Set<string>;
  /** Functions that the model defines itself, as `domain:opType`. */
  functions: Set<string>;
  externalData: OnnxExternalData[];
  /** Bytes of all constant tensors in memory, external ones included. */
  initializerBytes: number;
  /** Bytes of tensors that ConstantOfShape makes from constant shapes: a small file may hold a big model. */
  generatedBytes: number;
  metadata: Map<string, string>;
  producer: string;
}

/** Graphs inside If, Loop and Scan; protobuf's own readers stop at a similar depth. */
const graphDepthMax = 32;
const lfsPointer = 'version https://git-lfs.github.com/spec/';

/** Reads a model. Refusals: `model-not-onnx`, `model-invalid`. */
export function readModel(bytes: Uint8Array): Result<OnnxModel> {
  const start = String.fromCharCode(...bytes.subarray(0, lfsPointer.length));
  if (start === lfsPointer) {
    return refuse('model-not-onnx', 'a Git LFS pointer, not the model itself: fetch it with git lfs pull');
  }
  if (bytes.length === 0) return refuse('model-not-onnx', 'the file is empty');
  try {
    return new ModelReader().read(new ProtobufReader(bytes));
  } catch (error) {
    if (error instanceof ProtobufFault) return refuse('model-not-onnx', `not an ONNX file: ${error.message}`);
    throw error;
  }
}

/** What a graph contributes; constants are known by name to the ConstantOfShape nodes that use them. */
interface GraphScope {
  inputs: OnnxValue[];
  outputs: OnnxValue[];
  initializers: Set<string>;
  shapes: Map<string, number>;
  /** Inputs of ConstantOfShape nodes with the bits of an element. */
  generators: { shapeName: string; bits: number }[];
}

interface TensorFacts {
  name: string;
  elements: number;
  bits: number;
  /** Product of its values, where it is a short int64 tensor as shapes are; else null. */
  shapeProduct: number | null;
}

class ModelReader {
  readonly #model: OnnxModel = {
    irVersion: 0,
    opsets: new Map(),
    inputs: [],
    outputs: [],
    operators: new Set(),
    functions: new Set(),
    externalData: [],
    initializerBytes: 0,
    generatedBytes: 0,
    metadata: new Map(),
    producer: '',
  };

  read(reader: ProtobufReader): Result<OnnxModel> {
    const model = this.#model;
    let graph: GraphScope | null = null;
    while (reader.next()) {
      if (reader.field === 1) model.irVersion = reader.int();
      else if (reader.field === 2) model.producer = reader.string();
      else if (reader.field === 7) graph = this.#graph(reader.message(), 0);
      else if (reader.field === 8) this.#opset(reader.message());
      else if (reader.field === 14) this.#metadata(reader.message());
      else if (reader.field === 25) this.#function(reader.message());
      else reader.skip();
    }
    if (model.irVersion <= 0) return refuse('model-not-onnx', 'not an ONNX file: it names no IR version');
    if (graph === null) return refuse('model-not-onnx', 'not an ONNX file: it holds no graph');
    if (model.opsets.size === 0) return refuse('model-invalid', 'the model imports no operator set');
    const { initializers } = graph;
    model.inputs = graph.inputs.filter((input) => !initializers.has(input.name));
    model.outputs = graph.outputs;
    for (const value of [...model.inputs, ...model.outputs]) {
      if (value.name === '') return refuse('model-invalid', 'an input or output has no name');
    }
    for (const { path } of model.externalData) {
      if (!releasePathPattern.test(path)) {
        return refuse(
          'model-invalid',
          `the external data file ${JSON.stringify(path)} leaves the model’s folder`,
        );
      }
    }
    return ok(model);
  }

  /** OperatorSetIdProto: domain 1, version 2. */
  #opset(reader: ProtobufReader): void {
    let domain = '';
    let version = 0;
    while (reader.next()) {
      if (reader.field === 1) domain = reader.string();
      else if (reader.field === 2) version = reader.int();
      else reader.skip();
    }
    this.#model.opsets.set(plainDomain(domain), version);
  }

  #metadata(reader: ProtobufReader): void {
    const { key, value } = entry(reader);
    this.#model.metadata.set(key, value);
  }

  /** FunctionProto: name 1, node 7, domain 10. */
  #function(reader: ProtobufReader): void {
    let name = '';
    let domain = '';
    const scope = emptyScope();
    while (reader.next()) {
      if (reader.field === 1) name = reader.string();
      else if (reader.field === 7) this.#node(reader.message(), scope, 0);
      else if (reader.field === 10) domain = reader.string();
      else reader.skip();
    }
    this.#model.functions.add(`${plainDomain(domain)}:${name}`);
  }

  /** GraphProto: node 1, initializer 5, input 11, output 12, sparse_initializer 15. */
  #graph(reader: ProtobufReader, depth: number): GraphScope {
    if (depth > graphDepthMax) throw new ProtobufFault(`graphs nested deeper than ${graphDepthMax}`);
    const scope = emptyScope();
    while (reader.next()) {
      if (reader.field === 1) this.#node(reader.message(), scope, depth);
      else if (reader.field === 5) this.#constant(reader.message(), scope, null);
      else if (reader.field === 11) scope.inputs.push(readValue(reader.message()));
      else if (reader.field === 12) scope.outputs.push(readValue(reader.message()));
      else if (reader.field === 15) this.#sparse(reader.message(), scope);
      else reader.skip();
    }
    for (const { shapeName, bits } of scope.generators) {
      this.#model.generatedBytes += ((scope.shapes.get(shapeName) ?? 0) * bits) / 8;
    }
    return scope;
  }

  /** NodeProto: input 1, output 2, op_type 4, attribute 5, domain 7. */
  #node(reader: ProtobufReader, scope: GraphScope, depth: number): void {
    let opType = '';
    let domain = '';
    const inputs: string[] = [];
    let output = '';
    const attributes: Uint8Array[] = [];
    while (reader.next()) {
      if (reader.field === 1) inputs.push(reader.string());
      else if (reader.field === 2 && output === '') output = reader.string();
      else if (reader.field === 4) opType = reader.string();
      else if (reader.field === 5) attributes.push(reader.bytes());
      else if (reader.field === 7) domain = reader.string();
      else reader.skip();
    }
    this.#model.operators.add(`${plainDomain(domain)}:${opType}`);
    const generates = opType === 'ConstantOfShape' && plainDomain(domain) === '';
    // A ConstantOfShape without a value makes float32 zeros.
    let bits = 32;
    for (const attribute of attributes) {
      const found = this.#attribute(new ProtobufReader(attribute), scope, depth, generates, output);
      if (found !== null) bits = found;
    }
    if (generates) scope.generators.push({ shapeName: inputs[0] ?? '', bits });
  }

  /**
   * AttributeProto: t 5, g 6, tensors 10, graphs 11, sparse_tensor 22, sparse_tensors 23. Returns the
   * bits of an element of its tensor, null where it has none.
   */
  #attribute(
    reader: ProtobufReader,
    scope: GraphScope,
    depth: number,
    generates: boolean,
    output: string,
  ): number | null {
    let bits: number | null = null;
    while (reader.next()) {
      if (reader.field === 5 || reader.field === 10) {
        // The one-element value of ConstantOfShape is a pattern, not a tensor of that output.
        bits = this.#constant(reader.message(), scope, generates ? '' : output).bits;
      } else if (reader.field === 6 || reader.field === 11) this.#graph(reader.message(), depth + 1);
      else if (reader.field === 22 || reader.field === 23) this.#sparse(reader.message(), scope);
      else reader.skip();
    }
    return bits;
  }

  /** SparseTensorProto: values 1 (which carries the name), indices 2. */
  #sparse(reader: ProtobufReader, scope: GraphScope): void {
    while (reader.next()) {
      if (reader.field === 1 || reader.field === 2) this.#constant(reader.message(), scope, null);
      else reader.skip();
    }
  }

  /** A constant tensor: an initializer under its own name, or the value of the node output `as`. */
  #constant(reader: ProtobufReader, scope: GraphScope, as: string | null): TensorFacts {
    const tensor = readTensorFacts(reader, this.#model.externalData);
    this.#model.initializerBytes += Math.ceil((tensor.elements * tensor.bits) / 8);
    const name = as ?? tensor.name;
    if (as === null) scope.initializers.add(name);
    if (tensor.shapeProduct !== null) scope.shapes.set(name, tensor.shapeProduct);
    return tensor;
  }
}

function emptyScope(): GraphScope {
  return { inputs: [], outputs: [], initializers: new Set(), shapes: new Map(), generators: [] };
}

function plainDomain(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}

/** StringStringEntryProto. */
function entry(reader: ProtobufReader): { key: string; value: string } {
  const found = { key: '', value: '' };
  while (reader.next()) {
    if (reader.field === 1) found.key = reader.string();
    else if (reader.field === 2) found.value = reader.string();
    else reader.skip();
  }
  return found;
}

/**
 * TensorProto: dims 1, data_type 2, string_data 6, int64_data 7, name 8, raw_data 9, external_data 13,
 * data_location 14. What lies in external files is added to `external`.
 */
function readTensorFacts(reader: ProtobufReader, external: OnnxExternalData[]): TensorFacts {
  const dims: number[] = [];
  let dataType = 0;
  let name = '';
  let location = 0;
  let stringBytes = 0;
  let raw: Uint8Array | null = null;
  const longs: number[] = [];
  const entries = new Map<string, string>();
  while (reader.next()) {
    if (reader.field === 1) reader.ints(dims);
    else if (reader.field === 2) dataType = reader.int();
    else if (reader.field === 6) stringBytes += reader.bytes().length;
    else if (reader.field === 7 && reader.wireType === wireTypes.bytes) readShapeValues(reader, longs);
    else if (reader.field === 8) name = reader.string();
    else if (reader.field === 9) raw = reader.bytes();
    else if (reader.field === 13) {
      const { key, value } = entry(reader.message());
      entries.set(key, value);
    } else if (reader.field === 14) location = reader.int();
    else reader.skip();
  }
  if (location === 1) {
    external.push({
      path: (entries.get('location') ?? '').replace(/^(\.\/)+/, ''),
      offset: decimal(entries.get('offset')) ?? 0,
      length: decimal(entries.get('length')),
    });
  }
  const elements = dims.reduce((product, size) => product * Math.max(size, 0), 1);
  const shapeProduct = dataType === int64Type ? productOfLongs(dims, raw, longs) : null;
  // Strings are counted as one element of their whole text.
  if (dataType === stringType) return { name, elements: 1, bits: stringBytes * 8, shapeProduct };
  return { name, elements, bits: elementBits[dataType] ?? 0, shapeProduct };
}

/** The first values of an int64 tensor; no shape has more than 16 of them. */
function readShapeValues(reader: ProtobufReader, into: number[]): void {
  for (const value of reader.packed()) {
    if (into.length > 16) return;
    into.push(Number(BigInt.asIntN(64, value)));
  }
}

function productOfLongs(dims: number[], raw: Uint8Array | null, longs: number[]): number | null {
  if (dims.length !== 1 || (dims[0] ?? 0) > 16) return null;
  const values = [...longs];
  if (raw !== null && raw.length % 8 === 0) {
    const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
    for (let at = 0; at < raw.length; at += 8) values.push(Number(view.getBigInt64(at, true)));
  }
  if (values.length !== dims[0]) return null;
  return values.reduce((product, size) => product * Math.max(size, 0), 1);
}

function decimal(text: string | undefined): number | null {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return null;
  return Number(text);
}
