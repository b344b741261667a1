// Why: models that do on demand what broken ones do unasked: hang, grow, die, refuse, mix up rows. All of them are
// harmless on the zeros of a warm-up. Trusts: ONNX Runtime's kernels to behave as they do.
// Must never: need a file.

import { writeModel } from '../../shared/onnx/writer.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { graph, modelFile } from '../onnx/models.ts';
import type { StagedFile } from './staging.ts';

const asFile = (bytes: Uint8Array): StagedFile[] => [{ path: 'model.onnx', role: 'model', bytes }];
const fp32 = (name: string, shape: (number | string)[]) => ({ name, datatype: 'FP32' as const, shape });
const int64 = (name: string, shape: (number | string)[]) => ({ name, datatype: 'INT64' as const, shape });

/** Counts to `n`, slowly. */
export function loops(): StagedFile[] {
  const body = graph({
    nodes: [
      { opType: 'Identity', inputs: ['c'], outputs: ['go'] },
      { opType: 'Add', inputs: ['v', 'v'], outputs: ['w'] },
    ],
    inputs: [
      { name: 'i', elemType: 7, shape: [] },
      { name: 'c', elemType: 9, shape: [] },
      { name: 'v', elemType: 1, shape: [1] },
    ],
    outputs: [
      { name: 'go', elemType: 9, shape: [] },
      { name: 'w', elemType: 1, shape: [1] },
    ],
  });
  const bytes = modelFile({
    inputs: [{ name: 'n', elemType: 7, shape: [1] }],
    outputs: [{ name: 'y', elemType: 1, shape: [1] }],
    nodes: [{ opType: 'Loop', inputs: ['n', '', 'one'], outputs: ['y'], graphs: [body] }],
    initializers: [
      { name: 'one', dataType: 1, dims: [1], raw: new Uint8Array(new Float32Array([1]).buffer) },
    ],
  });
  return asFile(bytes);
}
export const times = (n: number): Tensor[] => [
  { name: 'n', datatype: 'INT64', shape: [1], data: BigInt64Array.of(BigInt(n)) },
];
/** Longer than any test. */
export const forever = Number.MAX_SAFE_INTEGER;

/** Takes four bytes for each of `n`, and keeps them as ONNX Runtime's arena does. */
export function grows(): StagedFile[] {
  const bytes = writeModel({
    name: 'grows',
    inputs: [int64('n', [1])],
    outputs: [fp32('y', [1])],
    nodes: [
      { operator: 'ConstantOfShape', inputs: ['n'], outputs: ['large'] },
      { operator: 'ReduceMax', inputs: ['large'], outputs: ['y'], attributes: { keepdims: { int: 1 } } },
    ],
    initializers: [],
  });
  return asFile(bytes);
}

/**
 * A whole number divided by x. Of the smallest one and −1 its process dies, because the quotient has no place in 32
 * bits and the processor traps. Only some do.
 */
export function dies(dividend = -(2 ** 31)): StagedFile[] {
  const k: Tensor = { name: 'k', datatype: 'INT32', shape: [1], data: Int32Array.of(dividend) };
  const bytes = writeModel({
    name: 'dies',
    inputs: [{ name: 'x', datatype: 'INT32', shape: ['n', 1] }],
    outputs: [{ name: 'y', datatype: 'INT32', shape: ['n', 1] }],
    nodes: [{ operator: 'Div', inputs: ['k', 'x'], outputs: ['y'] }],
    initializers: [k],
  });
  return asFile(bytes);
}
export const noTrap = process.arch === 'x64' ? false : 'this processor does not trap the division';
export const whole = (...values: number[]): Tensor[] => [
  { name: 'x', datatype: 'INT32', shape: [values.length, 1], data: Int32Array.from(values) },
];

/** Reads numbers from text, and refuses what is none. */
export function reads(): StagedFile[] {
  const bytes = writeModel({
    name: 'reads',
    inputs: [{ name: 'x', datatype: 'BYTES', shape: ['n', 1] }],
    outputs: [fp32('y', ['n', 1])],
    nodes: [{ operator: 'Cast', inputs: ['x'], outputs: ['y'], attributes: { to: { int: 1 } } }],
    initializers: [],
  });
  return asFile(bytes);
}
export const texts = (...data: string[]): Tensor[] => [
  { name: 'x', datatype: 'BYTES', shape: [data.length, 1], data },
];

const rowModel = (operator: string, attributes: { axes?: number[] }, last: string): StagedFile[] =>
  asFile(
    writeModel({
      name: 'rows',
      inputs: [fp32('x', ['n', 2])],
      outputs: [fp32('y', ['n', 2]), fp32('z', ['n', 2])],
      nodes: [
        {
          operator,
          inputs: ['x'],
          outputs: ['m'],
          attributes: {
            keepdims: { int: 1 },
            ...(attributes.axes === undefined ? {} : { axes: { ints: attributes.axes } }),
          },
        },
        { operator: 'Identity', inputs: [last], outputs: ['y'] },
        { operator: 'Sub', inputs: ['x', 'm'], outputs: ['z'] },
      ],
      initializers: [],
    }),
  );
/** `y` is the row, `z` the row less its mean. */
export const rowByRow = (): StagedFile[] => rowModel('ReduceMean', { axes: [1] }, 'x');
/** `z` is the row less the mean of all that run with it. */
export const inCompany = (): StagedFile[] => rowModel('ReduceMean', {}, 'x');
/** `y` is one row, however many come. */
export const oneForAll = (): StagedFile[] => rowModel('ReduceMean', { axes: [0] }, 'm');
export const row = (a: number, b: number): Tensor[] => [
  { name: 'x', datatype: 'FP32', shape: [1, 2], data: Float32Array.of(a, b) },
];
