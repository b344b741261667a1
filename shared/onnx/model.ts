// Why: what an ONNX file says about itself (signature, operators, opsets, external files), read from
// its bytes without loading it into a runtime.
// Trusts: nothing; field numbers are those of onnx-ml.proto, unknown fields are stepped over.
// Must never: copy tensor data, run anything, or recurse without a bound.

import { releasePathPattern } from '../kernel/releases.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type OnnxGraph, type OnnxNode, type OwnMemory, ownMemory } from './memory.ts';
import { ProtobufFault, ProtobufReader, wireTypes } from './protobuf.ts';
import { type OnnxValue, readValue } from './signature.ts';
import {
  bytesOf,
  dimensionsMax,
  type OnnxExternalData,
  readEntry,
  readTensor,
  type TensorFacts,
} from './tensor.ts';

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
  /** What its graph makes beyond that: a small file may hold a big model. */
  memory: OwnMemory;
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

class ModelReader {
  /** Of the model's own functions. */
  readonly #bodies: OnnxGraph[] = [];
  readonly #model: OnnxModel = {
    irVersion: 0,
    opsets: new Map(),
    inputs: [],
    outputs: [],
    operators: new Set(),
    functions: new Set(),
    externalData: [],
    initializerBytes: 0,
    memory: { generatedBytes: 0, foldedBytesMax: 0, activationBytesMax: 0 },
    metadata: new Map(),
    producer: '',
  };

  read(reader: ProtobufReader): Result<OnnxModel> {
    const model = this.#model;
    let graph: OnnxGraph | null = null;
    while (reader.next()) {
      if (reader.field === 1) model.irVersion = reader.int();
      else if (reader.field === 2) model.producer = reader.string();
      else if (reader.field === 7) {
        // The runtime's reader would merge two, and see more than the last one.
        if (graph !== null) throw new ProtobufFault('two graphs');
        graph = this.#graph(reader.message(), 0);
      } else if (reader.field === 8) this.#opset(reader.message());
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
          `the external data file ${JSON.stringify(path.slice(0, 200))} leaves the model’s folder`,
        );
      }
    }
    model.memory = ownMemory([graph, ...this.#bodies]);
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
    const { key, value } = readEntry(reader);
    this.#model.metadata.set(key, value);
  }

  /** FunctionProto: name 1, node 7, domain 10. Its inputs stand in `input`, without types: they are not read. */
  #function(reader: ProtobufReader): void {
    let name = '';
    let domain = '';
    const body = emptyGraph();
    while (reader.next()) {
      if (reader.field === 1) name = reader.string();
      else if (reader.field === 7) body.nodes.push(this.#node(reader.message(), 0));
      else if (reader.field === 10) domain = reader.string();
      else reader.skip();
    }
    this.#bodies.push(body);
    this.#model.functions.add(`${plainDomain(domain)}:${name}`);
  }

  /** GraphProto: node 1, initializer 5, input 11, output 12, sparse_initializer 15. */
  #graph(reader: ProtobufReader, depth: number): OnnxGraph {
    if (depth > graphDepthMax) throw new ProtobufFault(`graphs nested deeper than ${graphDepthMax}`);
    const graph = emptyGraph();
    while (reader.next()) {
      if (reader.field === 1) graph.nodes.push(this.#node(reader.message(), depth));
      else if (reader.field === 5 || reader.field === 15) {
        const sparse = reader.field === 15;
        const tensor = sparse ? this.#sparse(reader.message()) : this.#constant(reader.message());
        graph.initializers.set(tensor.name, tensor);
      } else if (reader.field === 11) graph.inputs.push(readValue(reader.message()));
      else if (reader.field === 12) graph.outputs.push(readValue(reader.message()));
      else reader.skip();
    }
    return graph;
  }

  /** NodeProto: input 1, output 2, op_type 4, attribute 5, domain 7. */
  #node(reader: ProtobufReader, depth: number): OnnxNode {
    const node: OnnxNode = {
      operator: '',
      inputs: [],
      outputs: [],
      attributes: noAttributes,
      graphs: noGraphs,
    };
    let opType = '';
    let domain = '';
    while (reader.next()) {
      if (reader.field === 1) node.inputs.push(reader.string());
      else if (reader.field === 2) node.outputs.push(reader.string());
      else if (reader.field === 4) opType = reader.string();
      else if (reader.field === 5) this.#attribute(reader.message(), node, depth);
      else if (reader.field === 7) domain = reader.string();
      else reader.skip();
    }
    const operator = `${plainDomain(domain)}:${opType}`;
    this.#model.operators.add(operator);
    // What other domains' operators make is not known here.
    node.operator = plainDomain(domain) === '' ? opType : operator;
    // A constant is counted where it stands; the value of a ConstantOfShape is a pattern of one element.
    if (node.operator !== 'ConstantOfShape')
      for (const { tensor } of node.attributes.values()) this.#model.initializerBytes += tensor?.bytes ?? 0;
    return node;
  }

  /** AttributeProto: name 1, f 2, i 3, t 5, g 6, floats 7, ints 8, tensors 10, graphs 11, sparse_tensor 22, … 23. */
  #attribute(reader: ProtobufReader, node: OnnxNode, depth: number): void {
    let name = '';
    const numbers: number[] = [];
    let tensor: TensorFacts | undefined;
    while (reader.next()) {
      if (reader.field === 1) name = reader.string();
      else if (reader.field === 2) keep(numbers, readFloat(reader.fixed(4)));
      else if (reader.field === 3 || (reader.field === 8 && reader.wireType === wireTypes.varint))
        keep(numbers, signed(reader.varint()));
      else if (reader.field === 8) for (const value of reader.packed()) keep(numbers, signed(value));
      else if (reader.field === 5 || reader.field === 10)
        tensor = readTensor(reader.message(), this.#model.externalData);
      else if (reader.field === 6 || reader.field === 11)
        node.graphs = [...node.graphs, this.#graph(reader.message(), depth + 1)];
      else if (reader.field === 22 || reader.field === 23) tensor = this.#sparseFacts(reader.message());
      else reader.skip();
    }
    if (numbers.length === 0 && tensor === undefined) return;
    // Most nodes have none, and there may be very many nodes.
    if (node.attributes === noAttributes) node.attributes = new Map();
    node.attributes.set(name, { numbers, ...(tensor === undefined ? {} : { tensor }) });
  }

  /** SparseTensorProto: values 1 (which carries the name), indices 2, dims 3. The runtime makes it dense. */
  #sparseFacts(reader: ProtobufReader): TensorFacts {
    const dims: number[] = [];
    let values: TensorFacts = { name: '', dims: [], bits: 0, bytes: 0, numbers: null };
    while (reader.next()) {
      if (reader.field === 1) values = readTensor(reader.message(), this.#model.externalData);
      else if (reader.field === 2) readTensor(reader.message(), this.#model.externalData);
      else if (reader.field === 3) reader.ints(dims);
      else reader.skip();
    }
    if (dims.length > dimensionsMax)
      throw new ProtobufFault(`a tensor of more than ${dimensionsMax} dimensions`);
    return { ...values, dims, bytes: bytesOf(dims, values.bits), numbers: null };
  }

  #sparse(reader: ProtobufReader): TensorFacts {
    const tensor = this.#sparseFacts(reader);
    this.#model.initializerBytes += tensor.bytes;
    return tensor;
  }

  #constant(reader: ProtobufReader): TensorFacts {
    const tensor = readTensor(reader, this.#model.externalData);
    this.#model.initializerBytes += tensor.bytes;
    return tensor;
  }
}

function emptyGraph(): OnnxGraph {
  return { nodes: [], initializers: new Map(), inputs: [], outputs: [] };
}

const noAttributes: OnnxNode['attributes'] = new Map();
const noGraphs: OnnxGraph[] = [];

/** Numbers of one attribute: shapes, paddings, axes. */
const attributeNumbersMax = 64;

function keep(numbers: number[], value: number): void {
  if (numbers.length <= attributeNumbersMax) numbers.push(value);
}

function signed(value: bigint): number {
  return Number(BigInt.asIntN(64, value));
}

function readFloat(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat32(0, true);
}

function plainDomain(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}
