// Why: a legal input for a model nobody knows: zeros, each free dimension 1.
// Trusts: signatures that were admitted. Must never: take memory for an input that is larger than a warm-up is worth.

import type { TensorSignature } from '../wire/manifest.ts';
import { allocateData, elementCount, type Tensor } from '../wire/tensors.ts';

/** Elements of one input. */
const zerosMax = 16 * 1024 * 1024;

/** Zeros (empty strings) of an input, each free dimension 1; null where that would be too large. */
export function zeroTensor({ name, datatype, shape }: TensorSignature): Tensor | null {
  const fixed = shape.map((size) => (size < 0 ? 1 : size));
  const count = elementCount(fixed);
  if (count > zerosMax) return null;
  const data = datatype === 'BYTES' ? Array<string>(count).fill('') : allocateData(datatype, count);
  return { name, datatype, shape: fixed, data };
}

/** Zeros for every input, or null where one would be too large. */
export function zeroInputs(signature: { inputs: readonly TensorSignature[] }): Tensor[] | null {
  const zeros = signature.inputs.flatMap((input) => zeroTensor(input) ?? []);
  return zeros.length === signature.inputs.length ? zeros : null;
}
