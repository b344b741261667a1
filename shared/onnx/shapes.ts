// Why: the shape that an operator's output has, and its numbers where they are few, for the operators from which
// large tensors are made: enough to see a big model in a small file before anything fills it.
// Trusts: nothing; what is not known stays unknown. Must never: take memory by a size that it works out, or cost more
// than a few steps for each input of a node.

import type { OnnxNode } from './memory.ts';
import { bitsOf, bytesOf, dimensionsMax, elementsOf, numbersMax } from './tensor.ts';

/** What is known of a value. */
export interface Facts {
  /** Null: not known. A free dimension counts as 1. */
  dims: number[] | null;
  bits: number;
  numbers: number[] | null;
  /** The same in every run: the runtime works it out when it loads. */
  constant: boolean;
  /** Bytes that the runtime takes for it, beyond what the file's own tensors take. */
  madeBytes: number;
}

interface Shape {
  dims: number[] | null;
  /** Default: those of the first input. */
  bits?: number | undefined;
  numbers?: number[] | null;
}

/** A node with what is known of its inputs. */
class Asked {
  readonly node: OnnxNode;
  readonly inputs: readonly (Facts | undefined)[];

  constructor(node: OnnxNode, inputs: readonly (Facts | undefined)[]) {
    this.node = node;
    this.inputs = inputs;
  }

  dims(index: number): number[] | null {
    return this.inputs[index]?.dims ?? null;
  }

  numbers(index: number): number[] | null {
    return this.inputs[index]?.numbers ?? null;
  }

  attribute(name: string): number[] | null {
    return this.node.attributes.get(name)?.numbers ?? null;
  }

  /** An input, or the attribute that older opsets have in its place. */
  given(index: number, name: string): number[] | null {
    return this.numbers(index) ?? this.attribute(name);
  }
}

type Rule = (asked: Asked) => Shape | null;

const unknown: Shape = { dims: null };
const axisOf = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

function broadcast(shapes: readonly (readonly number[] | null)[]): number[] | null {
  let dims: number[] = [];
  for (const shape of shapes) {
    if (shape === null) return null;
    const [long, short] = shape.length > dims.length ? [shape, dims] : [dims, shape];
    const lead = long.length - short.length;
    dims = long.map((size, axis) => (size === 1 && axis >= lead ? (short[axis - lead] ?? 1) : size));
  }
  return dims;
}

const same: Rule = (asked) => ({ dims: asked.dims(0) });
const keepNumbers = (asked: Asked, dims: number[] | null): Shape => ({ dims, numbers: asked.numbers(0) });
const elementwise: Rule = (asked) => ({ dims: broadcast(asked.inputs.map((_, index) => asked.dims(index))) });
const comparison: Rule = (asked) => ({
  ...elementwise(asked),
  dims: elementwise(asked)?.dims ?? null,
  bits: 8,
});

/** Element by element, each input one number or as many as the others. */
function arithmetic(operation: (a: number, b: number) => number): Rule {
  return (asked) => {
    const dims = broadcast([asked.dims(0), asked.dims(1)]);
    const [a, b] = [asked.numbers(0), asked.numbers(1)];
    if (a === null || b === null || (a.length !== b.length && a.length !== 1 && b.length !== 1))
      return { dims, numbers: null };
    const length = Math.max(a.length, b.length);
    const at = (list: number[], index: number): number => list[list.length === 1 ? 0 : index] ?? 0;
    const numbers = Array.from({ length }, (_, index) => operation(at(a, index), at(b, index)));
    return { dims, numbers: numbers.every(Number.isFinite) ? numbers : null };
  };
}

const constant: Rule = (asked) => {
  const tensor =
    asked.node.attributes.get('value')?.tensor ?? asked.node.attributes.get('sparse_value')?.tensor;
  if (tensor !== undefined) return tensor;
  for (const [name, bits] of [
    ['value_int', 64],
    ['value_ints', 64],
    ['value_float', 32],
  ] as const) {
    const numbers = asked.attribute(name);
    if (numbers !== null) return { dims: name === 'value_ints' ? [numbers.length] : [], bits, numbers };
  }
  return unknown;
};

const constantOfShape: Rule = (asked) => {
  const value = asked.node.attributes.get('value')?.tensor;
  const dims = asked.numbers(0);
  const [filling] = value === undefined ? [0] : (value.numbers ?? []);
  const few = dims !== null && filling !== undefined && elementsOf(dims) <= numbersMax;
  // Without a value it makes float32 zeros.
  return {
    dims,
    bits: value?.bits ?? 32,
    numbers: few ? Array<number>(elementsOf(dims)).fill(filling) : null,
  };
};

const tile: Rule = (asked) => {
  const [dims, repeats] = [asked.dims(0), asked.numbers(1)];
  if (dims === null || repeats?.length !== dims.length) return unknown;
  return { dims: dims.map((size, axis) => size * Math.max(0, repeats[axis] ?? 1)) };
};

const range: Rule = (asked) => {
  const [start, limit, delta] = [0, 1, 2].map((index) => asked.numbers(index)?.[0]);
  if (start === undefined || limit === undefined || delta === undefined || delta === 0) return unknown;
  const length = Math.max(0, Math.ceil((limit - start) / delta));
  const numbers = length > numbersMax ? null : Array.from({ length }, (_, index) => start + index * delta);
  return { dims: [length], numbers };
};

const pad: Rule = (asked) => {
  const [dims, pads] = [asked.dims(0), asked.given(1, 'pads')];
  if (dims === null || pads === null) return unknown;
  const axes = asked.numbers(3) ?? dims.map((_, axis) => axis);
  if (pads.length !== axes.length * 2) return unknown;
  const padded = [...dims];
  for (const [index, axis] of axes.entries()) {
    const at = axisOf(axis, dims.length);
    padded[at] = (padded[at] ?? 0) + (pads[index] ?? 0) + (pads[index + axes.length] ?? 0);
  }
  return { dims: padded.length === dims.length ? padded : null };
};

const reshape: Rule = (asked) => {
  const [dims, wanted] = [asked.dims(0), asked.given(1, 'shape')];
  if (dims === null || wanted === null) return { dims: null, numbers: asked.numbers(0) };
  const sizes = wanted.map((size, axis) => (size === 0 ? (dims[axis] ?? 0) : size));
  const rest = sizes.reduce((product, size) => (size < 0 ? product : product * size), 1);
  return keepNumbers(
    asked,
    sizes.map((size) => (size < 0 ? (rest === 0 ? 0 : elementsOf(dims) / rest) : size)),
  );
};

function scaled(dims: number[] | null, scales: number[] | null): number[] | null {
  if (dims === null || scales === null || scales.length !== dims.length) return null;
  return dims.map((size, axis) => Math.floor(size * (scales[axis] ?? 1)));
}

const resize: Rule = (asked) => ({ dims: asked.numbers(3) ?? scaled(asked.dims(0), asked.numbers(2)) });
const upsample: Rule = (asked) => ({ dims: scaled(asked.dims(0), asked.given(1, 'scales')) });

const oneHot: Rule = (asked) => {
  const [dims, depth] = [asked.dims(0), asked.numbers(1)?.[0]];
  if (dims === null || depth === undefined) return unknown;
  const axis = axisOf(asked.attribute('axis')?.[0] ?? -1, dims.length + 1);
  return { dims: [...dims.slice(0, axis), depth, ...dims.slice(axis)], bits: asked.inputs[2]?.bits ?? 32 };
};

const concat: Rule = (asked) => {
  const [first] = [asked.dims(0)];
  if (first === null) return unknown;
  const axis = axisOf(asked.attribute('axis')?.[0] ?? 0, first.length);
  let size = 0;
  let numbers: number[] | null = first.length === 1 ? [] : null;
  for (const input of asked.inputs) {
    if (input === undefined || input.dims === null) return unknown;
    size += input.dims[axis] ?? 0;
    const joined = (numbers?.length ?? 0) + (input.numbers?.length ?? numbersMax + 1);
    numbers =
      numbers === null || input.numbers === null || joined > numbersMax
        ? null
        : [...numbers, ...input.numbers];
  }
  return { dims: first.map((one, at) => (at === axis ? size : one)), numbers };
};

const gather: Rule = (asked) => {
  const [dims, indices] = [asked.dims(0), asked.dims(1)];
  if (dims === null || indices === null) return unknown;
  const axis = axisOf(asked.attribute('axis')?.[0] ?? 0, dims.length);
  const [from, at] = [asked.numbers(0), asked.numbers(1)];
  const numbers =
    dims.length === 1 && from !== null && at !== null
      ? at.map((index) => from[axisOf(index, from.length)] ?? 0)
      : null;
  return { dims: [...dims.slice(0, axis), ...indices, ...dims.slice(axis + 1)], numbers };
};

const unsqueeze: Rule = (asked) => {
  const [dims, axes] = [asked.dims(0), asked.given(1, 'axes')];
  if (dims === null || axes === null) return keepNumbers(asked, null);
  const rank = dims.length + axes.length;
  const added = new Set(axes.map((axis) => axisOf(axis, rank)));
  const rest = [...dims];
  return keepNumbers(
    asked,
    Array.from({ length: Math.min(rank, dimensionsMax + 1) }, (_, axis) =>
      added.has(axis) ? 1 : (rest.shift() ?? 1),
    ),
  );
};

const squeeze: Rule = (asked) => {
  const [dims, axes] = [asked.dims(0), asked.given(1, 'axes')];
  if (dims === null) return keepNumbers(asked, null);
  const gone = axes === null ? null : new Set(axes.map((axis) => axisOf(axis, dims.length)));
  return keepNumbers(
    asked,
    dims.filter((size, axis) => (gone === null ? size !== 1 : !gone.has(axis))),
  );
};

const transpose: Rule = (asked) => {
  const dims = asked.dims(0);
  const order = asked.attribute('perm');
  if (dims === null) return unknown;
  if (order === null) return { dims: [...dims].reverse() };
  return { dims: order.length === dims.length ? order.map((axis) => dims[axis] ?? 1) : null };
};

const matMul: Rule = (asked) => {
  const [a, b] = [asked.dims(0), asked.dims(1)];
  if (a === null || b === null || a.length < 2 || b.length < 2) return unknown;
  const lead = broadcast([a.slice(0, -2), b.slice(0, -2)]);
  return { dims: lead === null ? null : [...lead, a.at(-2) ?? 1, b.at(-1) ?? 1] };
};

const gemm: Rule = (asked) => {
  const [a, b] = [asked.dims(0), asked.dims(1)];
  if (a?.length !== 2 || b?.length !== 2) return unknown;
  const rows = a[asked.attribute('transA')?.[0] === 1 ? 1 : 0] ?? 1;
  return { dims: [rows, b[asked.attribute('transB')?.[0] === 1 ? 0 : 1] ?? 1] };
};

const shape: Rule = (asked) => {
  const dims = asked.dims(0);
  if (dims === null) return { dims: null, bits: 64 };
  const numbers = dims.slice(asked.attribute('start')?.[0] ?? 0, asked.attribute('end')?.[0]);
  return { dims: [numbers.length], bits: 64, numbers };
};

const size: Rule = (asked) => {
  const dims = asked.dims(0);
  return { dims: [], bits: 64, numbers: dims === null ? null : [elementsOf(dims)] };
};

const where: Rule = (asked) => ({
  dims: broadcast([asked.dims(0), asked.dims(1), asked.dims(2)]),
  bits: asked.inputs[1]?.bits,
});

const random: Rule = (asked) => ({
  dims: asked.attribute('shape'),
  bits: bitsOf(asked.attribute('dtype')?.[0] ?? 1),
});

const rules = new Map<string, Rule>([
  ['Constant', constant],
  ['ConstantOfShape', constantOfShape],
  ['Expand', (asked) => ({ dims: broadcast([asked.dims(0), asked.numbers(1)]) })],
  ['Tile', tile],
  ['Range', range],
  ['Pad', pad],
  ['Reshape', reshape],
  ['Resize', resize],
  ['Upsample', upsample],
  ['OneHot', oneHot],
  ['Concat', concat],
  ['Gather', gather],
  ['Unsqueeze', unsqueeze],
  ['Squeeze', squeeze],
  ['Transpose', transpose],
  ['MatMul', matMul],
  ['Gemm', gemm],
  ['Shape', shape],
  ['Size', size],
  ['Where', where],
  ['RandomNormal', random],
  ['RandomUniform', random],
  [
    'Cast',
    (asked) => ({ ...keepNumbers(asked, asked.dims(0)), bits: bitsOf(asked.attribute('to')?.[0] ?? 0) }),
  ],
  ['Identity', (asked) => keepNumbers(asked, asked.dims(0))],
  ['Add', arithmetic((a, b) => a + b)],
  ['Sub', arithmetic((a, b) => a - b)],
  ['Mul', arithmetic((a, b) => a * b)],
  // What it leaves over is cut off or not, which depends on a type that is not kept here.
  ['Div', arithmetic((a, b) => (Number.isInteger(a / b) ? a / b : Number.NaN))],
  ['Pow', arithmetic((a, b) => a ** b)],
  ['Max', elementwise],
  ['Min', elementwise],
  ['Sum', elementwise],
]);
const shapeKept =
  'Abs Ceil Clip CumSum Dropout Elu Erf Exp EyeLike Floor Gelu HardSigmoid HardSwish LeakyRelu Log LogSoftmax Neg ' +
  'Not RandomNormalLike RandomUniformLike Reciprocal Relu Round Selu Sigmoid Sign Sin Cos Softmax Softplus Sqrt Tanh ' +
  'BatchNormalization LayerNormalization InstanceNormalization PRelu';
for (const operator of shapeKept.split(' ')) rules.set(operator, same);
for (const operator of ['Equal', 'Less', 'Greater', 'LessOrEqual', 'GreaterOrEqual', 'And', 'Or', 'Xor'])
  rules.set(operator, comparison);

const byChance = /^(Random|Multinomial|Bernoulli)/;

function legal(dims: number[] | null): number[] | null {
  if (dims === null || dims.length > dimensionsMax) return null;
  return dims.map((one) => Math.min(Math.max(0, Math.trunc(one)) || 0, Number.MAX_SAFE_INTEGER));
}

/** What is known of a node's outputs: of the first, where there is a rule for its operator. */
export function inferNode(node: OnnxNode, inputs: readonly (Facts | undefined)[]): Facts[] {
  const fixed =
    node.operator === 'Constant' ||
    inputs.every((input, index) => node.inputs[index] === '' || input?.constant === true);
  const isConstant =
    fixed && node.graphs.length === 0 && !byChance.test(node.operator) && !node.operator.includes(':');
  const made = rules.get(node.operator)?.(new Asked(node, inputs)) ?? unknown;
  const dims = legal(made.dims);
  const bits = made.bits ?? inputs[0]?.bits ?? 0;
  const bytes = dims === null ? 0 : bytesOf(dims, bits);
  // A constant made of the file's own tensors takes their place.
  const ofFile = inputs.reduce((sum, input) => sum + (input?.constant === true ? fileBytes(input) : 0), 0);
  const ownBytes = node.operator === 'Constant' ? 0 : isConstant ? Math.max(0, bytes - ofFile) : bytes;
  const facts = { dims, bits, numbers: made.numbers ?? null, constant: isConstant, madeBytes: ownBytes };
  // Further outputs (masks, statistics) are not followed; that they are constants is.
  return node.outputs.map((_, index) =>
    index === 0 ? facts : { dims: null, bits: 0, numbers: null, constant: isConstant, madeBytes: 0 },
  );
}

function fileBytes({ dims, bits, madeBytes }: Facts): number {
  return dims === null ? 0 : Math.max(0, bytesOf(dims, bits) - madeBytes);
}
