// Why: the declared type of a graph's input or output, as ONNX writes it.
// Trusts: nothing; a missing or strange type is `unknown`, for admission to judge.
// Must never: guess a type or a dimension that is not written there, or read another one than the runtime reads.

import { ProtobufFault, type ProtobufReader } from './protobuf.ts';
import { dimensionsMax } from './tensor.ts';

export type OnnxKind = 'tensor' | 'sequence' | 'map' | 'optional' | 'sparse' | 'opaque' | 'unknown';

export interface OnnxValue {
  name: string;
  kind: OnnxKind;
  /** TensorProto.DataType of a tensor, else 0. */
  elemType: number;
  /** −1 for a free dimension; null where not even the rank is declared. */
  shape: number[] | null;
}

/** ValueInfoProto: name 1, type 2. */
export function readValue(reader: ProtobufReader): OnnxValue {
  const value: OnnxValue = { name: '', kind: 'unknown', elemType: 0, shape: null };
  let typed = false;
  while (reader.next()) {
    if (reader.field === 1) value.name = reader.string();
    else if (reader.field === 2) {
      // The runtime's reader would merge two types into one that neither of them says.
      if (typed) throw new ProtobufFault('a value with two types');
      typed = true;
      readType(reader.message(), value);
    } else reader.skip();
  }
  return value;
}

/** Members of TypeProto's oneof. What a sequence or map holds does not matter: it cannot be served. */
const kinds = new Map<number, OnnxKind>([
  [1, 'tensor'],
  [4, 'sequence'],
  [5, 'map'],
  [7, 'opaque'],
  [8, 'sparse'],
  [9, 'optional'],
]);

function readType(reader: ProtobufReader, value: OnnxValue): void {
  while (reader.next()) {
    const kind = kinds.get(reader.field);
    if (kind !== undefined && value.kind !== 'unknown') throw new ProtobufFault('a value with two types');
    if (kind !== undefined) value.kind = kind;
    if (kind === 'tensor') readTensorType(reader.message(), value);
    else reader.skip();
  }
}

/** TypeProto.Tensor: elem_type 1, shape 2. */
function readTensorType(reader: ProtobufReader, value: OnnxValue): void {
  while (reader.next()) {
    if (reader.field === 1) value.elemType = reader.int();
    else if (reader.field === 2 && value.shape === null) value.shape = readShape(reader.message());
    else if (reader.field === 2) throw new ProtobufFault('a value with two shapes');
    else reader.skip();
  }
}

/** TensorShapeProto: dim 1, each with dim_value 1 or dim_param 2 (a name: free). */
function readShape(reader: ProtobufReader): number[] {
  const shape: number[] = [];
  while (reader.next()) {
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    let size = -1;
    const dim = reader.message();
    while (dim.next()) {
      if (dim.field === 1) size = dim.int();
      else dim.skip();
    }
    // Some exporters write 0 or a negative number for a free dimension; an input of size 0 makes no sense.
    shape.push(size > 0 ? size : -1);
    if (shape.length > dimensionsMax)
      throw new ProtobufFault(`a value of more than ${dimensionsMax} dimensions`);
  }
  return shape;
}
