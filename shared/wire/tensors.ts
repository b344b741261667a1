// Why: a tensor between HTTP, the golden cases and the inference child, in one shape.
// Trusts: nothing before `checkTensor`. Must never: hold a shape that its data does not fill.

import type { Datatype } from './manifest.ts';

/** Numbers little-endian in C order. FP16 as raw 16-bit patterns. BYTES as strings (UTF-8 on the wire). */
export type TensorData =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | Float32Array
  | Float64Array
  | string[];

export interface Tensor {
  name: string;
  datatype: Datatype;
  shape: number[];
  data: TensorData;
}
