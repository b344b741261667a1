// Why: a model with which an execution provider shows whether it runs at all. Trusts: the writer.
// Must never: be loaded where models are served; it takes the writer along.

import { writeModel } from '../../shared/onnx/writer.ts';

/** One addition of one number, about a hundred bytes. */
export function smallestModel(): Uint8Array {
  return writeModel({
    name: 'smallest',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [1] }],
    nodes: [{ operator: 'Add', inputs: ['x', 'x'], outputs: ['y'] }],
    initializers: [],
  });
}
