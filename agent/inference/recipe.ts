// Why: how one step of a stream or sequence is put together from what the caller gives and what the step before left:
// state, context, constants. Trusts: a manifest and a signature that belong together. Must never: invent an input.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { zeroTensor } from '../../shared/onnx/zeros.ts';
import type { Manifest, TensorSignature } from '../../shared/wire/manifest.ts';
import { allocateData, checkTensor, numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';
import type { ModelSignature } from './signature.ts';
import { copyInto, emptyLike, type Numbers } from './windows.ts';

/** What a manifest says about steps. */
export type Recipe = Pick<Manifest, 'state' | 'context' | 'stream' | 'constants'>;

/** What one step leaves to the next, by input. */
export interface Carried {
  state: ReadonlyMap<string, Tensor>;
  context: ReadonlyMap<string, Tensor>;
}

export const nothingCarried: Carried = { state: new Map(), context: new Map() };

/** Whether the agent keeps anything from step to step for this model. */
export const isStateful = ({ state, context }: Recipe): boolean => state.length + context.length > 0;

const axisOf = (recipe: Recipe, input: string): number =>
  recipe.stream?.input === input ? recipe.stream.axis : -1;

/** [elements before the axis, elements of one index of the axis]. */
function around(shape: readonly number[], axis: number): { outer: number; inner: number; size: number } {
  const at = shape.length + axis;
  const product = (part: readonly number[]): number => part.reduce((a, b) => a * b, 1);
  return { outer: product(shape.slice(0, at)), inner: product(shape.slice(at + 1)), size: shape[at] ?? 0 };
}

/** The last `count` of the axis. */
function tailOf(tensor: Tensor, axis: number, count: number): Tensor {
  const { outer, inner, size } = around(tensor.shape, axis);
  const data = tensor.data as Numbers;
  const cut = emptyLike(data, outer * count * inner);
  for (let row = 0; row < outer; row++) {
    const end = (row + 1) * size * inner;
    copyInto(cut, data.subarray(end - count * inner, end) as Numbers, row * count * inner);
  }
  const shape = [...tensor.shape];
  shape[shape.length + axis] = count;
  return { ...tensor, shape, data: cut };
}

/** `a` and then `b` along the axis; their other dimensions are equal. */
function joined(a: Tensor, b: Tensor, axis: number): Tensor {
  const [left, right] = [around(a.shape, axis), around(b.shape, axis)];
  const [first, second] = [a.data as Numbers, b.data as Numbers];
  const [leftLength, rightLength] = [left.size * left.inner, right.size * right.inner];
  const data = emptyLike(second, right.outer * (leftLength + rightLength));
  for (let row = 0; row < right.outer; row++) {
    const at = row * (leftLength + rightLength);
    copyInto(data, first.subarray(row * leftLength, (row + 1) * leftLength) as Numbers, at);
    copyInto(data, second.subarray(row * rightLength, (row + 1) * rightLength) as Numbers, at + leftLength);
  }
  const shape = [...b.shape];
  shape[shape.length + axis] = left.size + right.size;
  return { ...b, shape, data };
}

/** The given tensor with the samples that came before it in front; zeros before the first. */
function withContext(
  given: Tensor,
  before: Tensor | undefined,
  axis: number,
  samples: number,
): Result<Tensor> {
  if (given.datatype === 'BYTES') return refuse('infer-invalid', `${given.name}: strings have no context`);
  if (given.shape.length + axis < 0) return refuse('infer-invalid', `${given.name}: too few dimensions`);
  const shape = [...given.shape];
  shape[shape.length + axis] = samples;
  const fits = before !== undefined && before.shape.join() === shape.join();
  if (before !== undefined && !fits)
    return refuse('infer-invalid', `${given.name}: its other dimensions changed within the sequence`);
  const count = shape.reduce((a, b) => a * b, 1);
  const zeros: Tensor = { ...given, shape, data: allocateData(given.datatype, count) };
  return ok(joined(before ?? zeros, given, axis));
}

function constantTensor(
  declared: TensorSignature,
  values: Recipe['constants'][number]['data'],
): Result<Tensor> {
  const { name, datatype } = declared;
  const fixed = declared.shape.map((size) => (size < 0 ? 1 : size));
  const shape = fixed.reduce((a, b) => a * b, 1) === values.length ? fixed : [values.length];
  if (datatype === 'BYTES') return checkTensor({ name, datatype, shape, data: values.map(String) });
  const data = allocateData(datatype, values.length) as Numbers;
  for (const [at, value] of values.entries()) {
    const number = Number(value);
    if (!Number.isFinite(number)) return refuse('manifest-malformed', `constants: ${name} takes numbers`);
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
      if (!Number.isSafeInteger(number))
        return refuse('manifest-malformed', `constants: ${name} takes whole numbers`);
      data[at] = BigInt(number);
    } else data[at] = datatype === 'FP16' ? numberToHalf(number) : number;
  }
  return checkTensor({ name, datatype, shape, data });
}

/**
 * All inputs of one step. What the caller gives wins over state and constants; context goes in front of what is
 * given. Refusals: `infer-invalid`, `manifest-malformed`.
 */
export function stepInputs(
  recipe: Recipe,
  signature: ModelSignature,
  given: readonly Tensor[],
  carried: Carried,
): Result<Tensor[]> {
  const inputs: Tensor[] = [];
  for (const tensor of given) {
    const context = recipe.context.find(({ input }) => input === tensor.name);
    if (context === undefined) {
      inputs.push(tensor);
      continue;
    }
    const before = carried.context.get(tensor.name);
    const whole = withContext(tensor, before, axisOf(recipe, tensor.name), context.samples);
    if (!whole.ok) return whole;
    inputs.push(whole.value);
  }
  const missing = (name: string): TensorSignature | undefined =>
    inputs.some((tensor) => tensor.name === name)
      ? undefined
      : signature.inputs.find((declared) => declared.name === name);
  for (const { input } of recipe.state) {
    const declared = missing(input);
    if (declared === undefined) continue;
    const tensor = carried.state.get(input) ?? zeroTensor(declared);
    if (tensor === null) return refuse('infer-invalid', `${input}: its first state would be too large`);
    inputs.push(tensor);
  }
  for (const { input, data } of recipe.constants) {
    const declared = missing(input);
    if (declared === undefined) continue;
    const tensor = constantTensor(declared, data);
    if (!tensor.ok) return tensor;
    inputs.push(tensor.value);
  }
  return ok(inputs);
}

/** Outputs to fetch: those that are wanted, and those that become state. */
export function stepOutputs(recipe: Recipe, signature: ModelSignature, wanted: readonly string[]): string[] {
  const names = new Set([...wanted, ...recipe.state.map(({ output }) => output)]);
  return signature.outputs.map(({ name }) => name).filter((name) => names.has(name));
}

/** What this step leaves to the next. `inputs` are those that were run, context included. */
export function carry(recipe: Recipe, inputs: readonly Tensor[], outputs: readonly Tensor[]): Carried {
  const state = new Map<string, Tensor>();
  for (const { output, input } of recipe.state) {
    const value = outputs.find(({ name }) => name === output);
    if (value !== undefined) state.set(input, { ...value, name: input });
  }
  const context = new Map<string, Tensor>();
  for (const { input, samples } of recipe.context) {
    const whole = inputs.find(({ name }) => name === input);
    if (whole !== undefined) context.set(input, tailOf(whole, axisOf(recipe, input), samples));
  }
  return { state, context };
}
