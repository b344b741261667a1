// Why: where the tensors' numbers lie in an ONNX file, found by its schema (onnx-ml.proto): initializers, attributes,
// Constant nodes, bodies of If, Loop and Scan, functions, training information, external files.
// Trusts: nothing; what does not parse holds no tensors. Must never: guess, copy data, or recurse without a bound.

import { releasePathPattern } from '../../kernel/releases.ts';
import { ProtobufFault, ProtobufReader, wireTypes } from '../protobuf.ts';
import { dimensionsMax, elementsOf, readEntry } from '../tensor.ts';
import { type ElementKind, elementBytes, kindOf } from './elements.ts';

/** Numbers of one tensor that lie in one piece. */
export interface Extent {
  offset: number;
  length: number;
  kind: ElementKind;
  /** Integers: whether they are signed. */
  signed: boolean;
  /** Empty where the piece is not the whole tensor. */
  dims: number[];
  /** Unique in its file; the same tensor of another release of the model has the same. */
  name: string;
}

/** Names of scale and zero point that quantise the tensor of that name, by the operators that use them. */
export interface Quantisation {
  scale: string;
  zeroPoint: string;
}

export interface ExternalExtent extends Extent {
  /** Relative to the model's folder. */
  path: string;
  /** Null: to the end of the file. */
  externalLength: number | null;
}

export interface Layout {
  /** In the order of the file, without overlaps. */
  extents: Extent[];
  external: ExternalExtent[];
  quantised: Map<string, Quantisation>;
}

const depthMax = 32;

/** The layout of a model; null where the bytes are no ONNX file. */
export function readLayout(bytes: Uint8Array): Layout | null {
  try {
    return new LayoutReader(bytes).read();
  } catch (error) {
    if (error instanceof ProtobufFault) return null;
    throw error;
  }
}

/** Tensor fields by TensorProto.DataType: their raw bytes, or the packed field of that number. */
class LayoutReader {
  readonly #file: Uint8Array;
  readonly #names = new Map<string, number>();
  readonly #layout: Layout = { extents: [], external: [], quantised: new Map() };
  #graphs = 0;

  constructor(file: Uint8Array) {
    this.#file = file;
  }

  /** ModelProto: ir_version 1, graph 7, training_info 20, functions 25. */
  read(): Layout | null {
    const reader = new ProtobufReader(this.#file);
    while (reader.next()) {
      if (reader.field === 7) this.#graph(reader.message(), '', 0);
      else if (reader.field === 20) this.#training(reader.message());
      else if (reader.field === 25) this.#function(reader.message());
      else reader.skip();
    }
    if (this.#graphs === 0) return null;
    this.#layout.extents.sort((a, b) => a.offset - b.offset);
    return this.#layout;
  }

  /** TrainingInfoProto: initialization 1, algorithm 2. */
  #training(reader: ProtobufReader): void {
    while (reader.next()) {
      if (reader.field === 1 || reader.field === 2)
        this.#graph(reader.message(), `training${reader.field}`, 0);
      else reader.skip();
    }
  }

  /** FunctionProto: node 7, attribute_proto 11. */
  #function(reader: ProtobufReader): void {
    while (reader.next()) {
      if (reader.field === 7) this.#node(reader.message(), 'function', 0);
      else if (reader.field === 11) this.#attribute(reader.message(), () => 'function', 0);
      else reader.skip();
    }
  }

  /** GraphProto: node 1, initializer 5, sparse_initializer 15. */
  #graph(reader: ProtobufReader, path: string, depth: number): void {
    if (depth > depthMax) throw new ProtobufFault(`graphs nested deeper than ${depthMax}`);
    this.#graphs += 1;
    while (reader.next()) {
      if (reader.field === 1) this.#node(reader.message(), path, depth);
      else if (reader.field === 5) this.#tensor(reader.message(), path);
      else if (reader.field === 15) this.#sparse(reader.message(), path);
      else reader.skip();
    }
  }

  /** NodeProto: input 1, output 2, op_type 4, attribute 5. Its tensors are named by its first output. */
  #node(reader: ProtobufReader, path: string, depth: number): void {
    // Most names and most attributes are of no use here, and a graph is little else: read only what is.
    const inputs: Uint8Array[] = [];
    const attributes: Uint8Array[] = [];
    let output: Uint8Array | null = null;
    let operator = '';
    while (reader.next()) {
      if (reader.field === 1) inputs.push(reader.bytes());
      else if (reader.field === 2 && (output === null || output.length === 0)) output = reader.bytes();
      else if (reader.field === 4) operator = reader.string();
      else if (reader.field === 5) attributes.push(reader.bytes());
      else reader.skip();
    }
    const own = (): string => joined(path, output === null ? '' : reader.text(output));
    for (const attribute of attributes) this.#attribute(reader.inner(attribute), own, depth);
    const first = scaledInputs.get(operator);
    if (first !== undefined)
      this.#uses(
        first,
        inputs.map((input) => joined(path, reader.text(input))),
      );
  }

  /** Which scale and zero point belong to which tensor. */
  #uses(at: readonly number[], inputs: readonly string[]): void {
    for (const first of at) {
      const [name, scale, zeroPoint = ''] = inputs.slice(first, first + 3);
      if (name !== undefined && scale !== undefined) this.#layout.quantised.set(name, { scale, zeroPoint });
    }
  }

  /** AttributeProto: name 1, t 5, g 6, floats 7, tensors 10, graphs 11, sparse_tensor 22, sparse_tensors 23. */
  #attribute(reader: ProtobufReader, path: () => string, depth: number): void {
    let name: Uint8Array | null = null;
    const inner = (): string => joined(path(), name === null ? '' : reader.text(name));
    while (reader.next()) {
      if (reader.field === 1) name = reader.bytes();
      else if (reader.field === 5 || reader.field === 10) this.#tensor(reader.message(), inner());
      else if (reader.field === 6 || reader.field === 11) this.#graph(reader.message(), inner(), depth + 1);
      else if (reader.field === 22 || reader.field === 23) this.#sparse(reader.message(), inner());
      else if (reader.field === 7 && reader.wireType === wireTypes.bytes)
        this.#add(reader.bytes(), floats, [], inner());
      else reader.skip();
    }
  }

  /** SparseTensorProto: values 1, indices 2. */
  #sparse(reader: ProtobufReader, path: string): void {
    while (reader.next()) {
      if (reader.field === 1) this.#tensor(reader.message(), path);
      else if (reader.field === 2) this.#tensor(reader.message(), joined(path, 'indices'));
      else reader.skip();
    }
  }

  /**
   * TensorProto: dims 1, data_type 2, float_data 4, int32_data 5, int64_data 7, name 8, raw_data 9, double_data 10,
   * uint64_data 11, external_data 13, data_location 14.
   */
  #tensor(reader: ProtobufReader, path: string): void {
    const dims: number[] = [];
    const pieces: { bytes: Uint8Array; field: number }[] = [];
    let entries: Map<string, string> | null = null;
    let dataType = 0;
    let location = 0;
    let own = '';
    while (reader.next()) {
      const packed = reader.wireType === wireTypes.bytes;
      if (reader.field === 1) reader.ints(dims);
      else if (reader.field === 2) dataType = reader.int();
      else if (reader.field === 8) own = reader.string();
      else if (reader.field === 13) {
        const { key, value } = readEntry(reader.message());
        entries ??= new Map();
        entries.set(key, value);
      } else if (reader.field === 14) location = reader.int();
      else if (packed && dataFields.includes(reader.field))
        pieces.push({ bytes: reader.bytes(), field: reader.field });
      else reader.skip();
      if (dims.length > dimensionsMax)
        throw new ProtobufFault(`a tensor of more than ${dimensionsMax} dimensions`);
    }
    const name = joined(path, own);
    for (const { bytes, field } of pieces) this.#add(bytes, typeOf(field, dataType), dims, name);
    if (location === 1) this.#external(entries ?? new Map(), dims, dataType, name);
  }

  #external(entries: Map<string, string>, dims: number[], dataType: number, name: string): void {
    const type = kindOf(dataType);
    const path = (entries.get('location') ?? '').replace(/^(\.\/)+/, '');
    const offset = Number(entries.get('offset') ?? 0);
    const length = entries.has('length') ? Number(entries.get('length')) : null;
    if (!releasePathPattern.test(path) || !Number.isSafeInteger(offset) || offset < 0) return;
    if (length !== null && (!Number.isSafeInteger(length) || length < 0)) return;
    this.#layout.external.push({
      ...{ ...type, dims, name: this.#unique(name), path, offset },
      ...{ length: length ?? 0, externalLength: length },
    });
  }

  #unique(name: string): string {
    const before = this.#names.get(name) ?? 0;
    this.#names.set(name, before + 1);
    return before === 0 ? name : `${name}#${before}`;
  }

  #add(bytes: Uint8Array, { kind, signed }: ElementType, dims: number[], name: string): void {
    const width = elementBytes(kind);
    const whole = elementsOf(dims) * width === bytes.length;
    this.#layout.extents.push({
      name: this.#unique(name),
      dims: whole ? dims : [],
      // A length that is no multiple of the element is a broken tensor: its bytes are just bytes.
      kind: bytes.length % width === 0 ? kind : 'bytes',
      signed,
      offset: bytes.byteOffset - this.#file.byteOffset,
      length: bytes.length,
    });
  }
}

interface ElementType {
  kind: ElementKind;
  signed: boolean;
}

const floats: ElementType = { kind: 'float32', signed: true };
const otherBytes: ElementType = { kind: 'bytes', signed: true };

/** Operators, and which of their inputs are followed by a scale and a zero point. */
const scaledInputs: ReadonlyMap<string, readonly number[]> = new Map([
  ['DequantizeLinear', [0]],
  ['QLinearConv', [0, 3]],
  ['QLinearMatMul', [0, 3]],
]);

const dataFields = [4, 5, 7, 9, 10, 11];

/** Packed floats are numbers of four bytes; other packed fields are varints, or numbers of eight bytes. */
function typeOf(field: number, dataType: number): ElementType {
  if (field === 9) return kindOf(dataType);
  return field === 4 ? floats : otherBytes;
}

function joined(path: string, name: string): string {
  return path === '' ? name : `${path}/${name}`;
}
