// Why: random tensors of every type for tests that send them somewhere and want them back.
// Trusts: fast-check. Must never: make a tensor that the protocol forbids.

import fc from 'fast-check';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import { elementBytes, stringFault, type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';

/** Any bit pattern is a number of its type, but a BOOL is 0 or 1. */
export function anyTensor(name: string, datatype: Datatype, shape: number[]): fc.Arbitrary<Tensor> {
  const count = shape.reduce((product, size) => product * size, 1);
  if (datatype === 'BYTES') {
    const text = fc.string({ unit: 'grapheme', maxLength: 12 }).filter((one) => stringFault(one) === null);
    return fc
      .array(text, { minLength: count, maxLength: count })
      .map((data) => ({ name, datatype, shape, data }));
  }
  const length = count * elementBytes(datatype);
  return fc
    .array(fc.nat(datatype === 'BOOL' ? 1 : 255), { minLength: length, maxLength: length })
    .map((bytes) => unwrap(tensorFromBytes(name, datatype, shape, Uint8Array.from(bytes))));
}

/** JSON says NaN, not which one: all of them become the same. */
export function withoutNanBits(tensor: Tensor): Tensor {
  const { datatype, data } = tensor;
  if (datatype === 'FP16') {
    const plain = (bits: number): number => ((bits & 0x7fff) > 0x7c00 ? 0x7e00 : bits);
    return { ...tensor, data: (data as Uint16Array).map(plain) };
  }
  const plain = (value: number): number => (Number.isNaN(value) ? Number.NaN : value);
  if (datatype === 'FP32') return { ...tensor, data: (data as Float32Array).map(plain) };
  if (datatype === 'FP64') return { ...tensor, data: (data as Float64Array).map(plain) };
  return tensor;
}
