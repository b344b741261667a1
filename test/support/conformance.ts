// Why: ONNX's own backend tests as cases like any other: a model, its inputs and the answers of the reference.
// Trusts: the data folder; field numbers are those of onnx-ml.proto. Must never: drop a case that cannot be read.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { unwrap } from '../../shared/kernel/errors.ts';
import { readModel } from '../../shared/onnx/model.ts';
import { ProtobufReader } from '../../shared/onnx/protobuf.ts';
import type { OnnxValue } from '../../shared/onnx/signature.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import { allocateData, type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';
import type { ModelCase } from './cases.ts';
import { dataFolder } from './data.ts';

/** By TensorProto.DataType. */
const datatypes: (Datatype | undefined)[] = [
  ...([undefined, 'FP32', 'UINT8', 'INT8', 'UINT16', 'INT16', 'INT32', 'INT64', 'BYTES', 'BOOL'] as const),
  ...(['FP16', 'FP64', 'UINT32', 'UINT64'] as const),
];

/** TensorProto: dims 1, data_type 2, float_data 4, int32_data 5, string_data 6, int64_data 7, raw_data 9. */
function readTensor(name: string, path: string): Tensor {
  const reader = new ProtobufReader(readFileSync(path));
  const shape: number[] = [];
  const strings: string[] = [];
  const integers: bigint[] = [];
  let type = 0;
  let raw: Uint8Array = new Uint8Array(0);
  while (reader.next()) {
    if (reader.field === 1) reader.ints(shape);
    else if (reader.field === 2) type = reader.int();
    else if (reader.field === 6) strings.push(reader.string());
    else if (reader.field === 5 || reader.field === 7) integers.push(...reader.packed());
    // Little-endian floats, packed: as raw data would be.
    else if (reader.field === 9 || reader.field === 4 || reader.field === 10) raw = reader.bytes();
    else reader.skip();
  }
  const datatype = datatypes[type];
  if (datatype === undefined) throw new Error(`${path}: the type ${type} is none of the protocol`);
  if (datatype === 'BYTES') return { name, datatype, shape, data: strings };
  if (integers.length === 0) return unwrap(tensorFromBytes(name, datatype, shape, raw));
  const data = allocateData(datatype, integers.length);
  for (const [index, value] of integers.entries()) {
    const signed = BigInt.asIntN(64, value);
    (data as Record<number, number | bigint>)[index] =
      data instanceof BigInt64Array || data instanceof BigUint64Array ? signed : Number(signed);
  }
  return { name, datatype, shape, data };
}

export interface ConformanceCase extends ModelCase {
  /** Why it cannot be asked by tensors at all, null where it can. */
  notTensors: string | null;
}

/** The backend suite's own tolerances. */
const tolerances = { rtol: 1e-3, atol: 1e-7 };

function readCase(folder: string, name: string): ConformanceCase {
  const modelPath = join(folder, name, 'model.onnx');
  const model = unwrap(readModel(readFileSync(modelPath)));
  const set = join(folder, name, 'test_data_set_0');
  const odd = [...model.inputs, ...model.outputs].find(({ kind }) => kind !== 'tensor');
  const tensors = (kind: 'input' | 'output', values: OnnxValue[]): Tensor[] =>
    odd !== undefined
      ? []
      : values.flatMap((value, index) => {
          const path = join(set, `${kind}_${index}.pb`);
          return existsSync(path) ? [readTensor(value.name, path)] : [];
        });
  return {
    name,
    modelPath,
    inputs: tensors('input', model.inputs),
    expected: tensors('output', model.outputs),
    fetch: model.outputs.map((output) => output.name),
    ...tolerances,
    approximate: false,
    note: '',
    notTensors: odd === undefined ? null : `${odd.name} is a ${odd.kind}`,
  };
}

/** All of `conformance/subset`, sorted by name; empty where the data is absent. */
export function conformanceCases(): ConformanceCase[] {
  const folder = dataFolder('conformance', 'subset');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort()
    .map((name) => readCase(folder, name));
}
