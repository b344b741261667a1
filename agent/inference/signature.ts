// Why: whether a request fits the model's signature, before the runtime sees it.
// Trusts: tensors whose data fills their shape (checkTensor). Must never: let through what the runtime
// would read as something else: a missing input, another datatype, another fixed dimension.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { TensorSignature } from '../../shared/wire/manifest.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

/** What a loaded release takes and gives. Excluded outputs are not listed. */
export interface ModelSignature {
  inputs: TensorSignature[];
  outputs: TensorSignature[];
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(',')}]`;
}

/**
 * A signature without dimensions is a scalar or a graph that does not say: the runtime decides then.
 * One-dimensional slack is not given: [4] is not [1,4].
 */
function shapeFits(shape: readonly number[], declared: readonly number[]): boolean {
  if (declared.length === 0) return true;
  return shape.length === declared.length && declared.every((size, axis) => size < 0 || size === shape[axis]);
}

/**
 * Checks inputs and resolves which outputs to fetch (all, where none is named), in order.
 * Refusal: `infer-invalid`.
 */
export function checkRequest(
  signature: ModelSignature,
  inputs: readonly Tensor[],
  outputs: readonly string[] | undefined,
): Result<string[]> {
  const given = new Set<string>();
  for (const tensor of inputs) {
    const declared = signature.inputs.find(({ name }) => name === tensor.name);
    if (declared === undefined)
      return refuse('infer-invalid', `the model has no input ${JSON.stringify(tensor.name)}`);
    if (given.has(tensor.name)) return refuse('infer-invalid', `input ${tensor.name} is given twice`);
    given.add(tensor.name);
    if (tensor.datatype !== declared.datatype) {
      return refuse(
        'infer-invalid',
        `input ${tensor.name} is ${tensor.datatype}, the model takes ${declared.datatype}`,
      );
    }
    if (!shapeFits(tensor.shape, declared.shape)) {
      const wanted = shapeText(declared.shape);
      return refuse(
        'infer-invalid',
        `input ${tensor.name} has shape ${shapeText(tensor.shape)}, the model takes ${wanted}`,
      );
    }
  }
  const missing = signature.inputs.find(({ name }) => !given.has(name));
  if (missing !== undefined) return refuse('infer-invalid', `input ${missing.name} is missing`);
  if (outputs === undefined || outputs.length === 0) return ok(signature.outputs.map(({ name }) => name));
  const wanted = new Set<string>();
  for (const name of outputs) {
    if (!signature.outputs.some((output) => output.name === name)) {
      return refuse('infer-invalid', `the model has no output ${JSON.stringify(name)}`);
    }
    if (wanted.has(name)) return refuse('infer-invalid', `output ${name} is asked for twice`);
    wanted.add(name);
  }
  return ok([...wanted]);
}
