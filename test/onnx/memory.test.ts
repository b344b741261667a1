// Why: a few bytes that become a gigabyte are seen before they do, and an ordinary model is never taken for one: the
// estimate stays below what the runtime really takes. Trusts: ONNX Runtime in a trial for the latter.
// Must never: make the tensors whose size is worked out.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { createModelTrial } from '../../shared/host/model-trial.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { ownBytes } from '../../shared/onnx/memory.ts';
import { readModel } from '../../shared/onnx/model.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { type Attribute, type GraphNode, writeModel } from '../../shared/onnx/writer.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { graph, modelFile } from './models.ts';

const longs = (name: string, ...values: number[]): Tensor => ({
  name,
  datatype: 'INT64',
  shape: [values.length],
  data: BigInt64Array.from(values.map(BigInt)),
});
const long = (name: string, value: number): Tensor => ({ ...longs(name, value), shape: [] });
const floats = (name: string, shape: number[], ...values: number[]): Tensor => ({
  name,
  datatype: 'FP32',
  shape,
  data: Float32Array.from(values),
});
const node = (
  operator: string,
  inputs: string[],
  output = 'big',
  attributes: Record<string, Attribute> = {},
): GraphNode => ({ operator, inputs, outputs: [output], attributes });

/** What is found beyond the file's own tensors; the last node makes `big`. */
function found(initializers: Tensor[], nodes: GraphNode[], shape: (number | string)[] = [2]) {
  const bytes = writeModel({
    name: 'graph',
    inputs: [{ name: 'x', datatype: 'FP32', shape }],
    outputs: [{ name: 'big', datatype: 'FP32', shape: ['n'] }],
    initializers,
    nodes,
  });
  assert.ok(bytes.length < 2_000, 'a small file');
  return unwrap(readModel(bytes)).memory;
}

const M = 1_000_000;
const tables: [what: string, elements: number, initializers: Tensor[], nodes: GraphNode[]][] = [
  ['ConstantOfShape', 2 * M, [longs('s', 2_000, 1_000)], [node('ConstantOfShape', ['s'])]],
  ['Expand', 3 * M, [floats('c', [1, 3], 1, 2, 3), longs('s', M, 1)], [node('Expand', ['c', 's'])]],
  ['Tile', 4 * M, [floats('c', [2], 1, 2), longs('r', 2 * M)], [node('Tile', ['c', 'r'])]],
  ['Range', 5 * M, [long('a', 0), long('b', 10 * M), long('d', 2)], [node('Range', ['a', 'b', 'd'])]],
  ['Pad', 6 * M, [floats('c', [2], 1, 2), longs('p', M, 5 * M - 2)], [node('Pad', ['c', 'p'])]],
  [
    'Resize by sizes',
    M,
    [floats('c', [1, 1], 1), longs('z', 1_000, 1_000)],
    [node('Resize', ['c', '', '', 'z'])],
  ],
  [
    'Resize by scales',
    M,
    [floats('c', [1, 1], 1), floats('f', [2], 1_000, 1_000)],
    [node('Resize', ['c', '', 'f'])],
  ],
  [
    'OneHot',
    2 * M,
    [longs('i', 0, 1), long('d', M), floats('v', [2], 0, 1)],
    [node('OneHot', ['i', 'd', 'v'])],
  ],
  [
    'an outer product',
    M,
    [longs('s', 1_000, 1), longs('t', 1, 1_000)],
    [node('ConstantOfShape', ['s'], 'a'), node('ConstantOfShape', ['t'], 'b'), node('MatMul', ['a', 'b'])],
  ],
  [
    'a shape that is worked out',
    16 * M,
    [longs('a', 1_000, 500), longs('b', 2), longs('c', 8), longs('one', 1), longs('zero', 0)],
    [
      node('Mul', ['a', 'b'], 'ab', {}),
      node('Concat', ['ab', 'c'], 'abc', { axis: { int: 0 } }),
      node('Gather', ['abc', 'zero'], 'first'),
      node('Gather', ['abc', 'one'], 'second'),
      node('Concat', ['first', 'second', 'c'], 's', { axis: { int: 0 } }),
      node('Cast', ['s'], 's64', { to: { int: 7 } }),
      node('ConstantOfShape', ['s64'], 'zeros'),
      node('Neg', ['zeros'], 'negative'),
      node('Identity', ['negative']),
    ],
  ],
  [
    'a value of the run',
    4 * M,
    [longs('s', 2 * M, 1)],
    [node('Reshape', ['x', 'rows'], 'row'), node('Expand', ['row', 's'])],
  ],
];

for (const [what, elements, initializers, nodes] of tables) {
  test(`a small file with a big tensor: ${what}`, () => {
    const all = nodes.some(({ inputs }) => inputs.includes('rows'))
      ? [...initializers, longs('rows', 1, 2)]
      : initializers;
    const memory = found(all, nodes);
    const bytes = ownBytes(memory);
    const width = what === 'Range' ? 8 : 4;
    // The few bytes of the constants that it takes the place of are counted as the file's.
    assert.ok(bytes <= elements * width && bytes > elements * width - 200, `${bytes} bytes`);
  });
}

test('a constant in a branch is a constant', () => {
  const shape = { name: 's', dataType: 7, dims: [1], longs: [M] };
  const branch = graph({
    inputs: [],
    outputs: [{ name: 'c', elemType: 1, shape: ['n'] }],
    nodes: [{ opType: 'ConstantOfShape', inputs: ['s'], outputs: ['c'] }],
  });
  const model = modelFile({ initializers: [shape], nodes: [{ opType: 'If', graphs: [branch, branch] }] });
  assert.ok(
    unwrap(readModel(model)).memory.generatedBytes >= 2 * (4 * M - 8),
    'the shape is seen from inside, twice',
  );
});

test('a sparse constant is as large as it will be', () => {
  const values = new ProtobufWriter().int(1, 1).int(2, 1).string(8, 'w').bytes(9, new Uint8Array(4));
  const indices = new ProtobufWriter().int(1, 1).int(2, 7).bytes(9, new Uint8Array(8));
  const sparse = new ProtobufWriter()
    .message(1, values)
    .message(2, indices)
    .int(3, 2 ** 31);
  const model = new ProtobufWriter()
    .int(1, 8)
    .message(7, graph({}).message(15, sparse))
    .message(8, new ProtobufWriter().string(1, '').int(2, 17));
  assert.equal(unwrap(readModel(model.finish())).initializerBytes, 4 * 2 ** 31);
});

test('what is not known is not guessed, and what is replaced is not counted twice', () => {
  const none = { generatedBytes: 0, foldedBytesMax: 0, activationBytesMax: 0 };
  assert.deepEqual(found([], [node('NoSuchOperator', ['x'])]), none);
  assert.deepEqual(found([], [node('ConstantOfShape', ['x'])]), none, 'a shape that comes with the request');
  // A transposed weight takes the place of the weight.
  const weight = floats('w', [8, 2], ...Array<number>(16).fill(1));
  const turned = found([weight], [node('Transpose', ['w'], 't'), node('MatMul', ['x', 't'])], ['n', 2]);
  assert.equal(turned.generatedBytes, 0);
  // A constant that only makes another one is gone when that is there.
  const chain = found([longs('s', M)], [node('ConstantOfShape', ['s'], 'c'), node('ReduceMax', ['c'])]);
  assert.deepEqual([chain.generatedBytes, chain.foldedBytesMax], [0, 4 * M - 8]);
});

test('numbers beyond all memory stay numbers', () => {
  const huge = longs('s', 2 ** 52, 2 ** 52, 2 ** 52);
  for (const nodes of [
    [node('ConstantOfShape', ['s'])],
    [node('ConstantOfShape', ['s'], 'c'), node('Tile', ['c', 's'])],
    [node('Mul', ['s', 's'], 'ss'), node('ConstantOfShape', ['ss'])],
    [node('Pow', ['s', 's'], 'ss'), node('Range', ['ss', 's', 's'])],
  ]) {
    const { generatedBytes, foldedBytesMax, activationBytesMax } = found([huge], nodes);
    for (const bytes of [generatedBytes, foldedBytesMax, activationBytesMax])
      assert.ok(Number.isSafeInteger(bytes) && bytes >= 0, `${bytes}`);
  }
});

test('the estimate of a real model is below what it takes', { skip: dataMissing }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-estimate-'));
  const trial = createModelTrial(systemClock, { workFolder: folder });
  try {
    for (const [path, floor] of [
      ['models/mnist/mnist-opset8.onnx', 0.9],
      ['models/silero-vad/silero-v5.onnx', 0.5],
      ['models/densenet121-synth/densenet121_synth_v1.onnx', 0.95],
    ] as const) {
      const localPath = dataFolder(path);
      const bytes = new Uint8Array(readFileSync(localPath));
      const admitted = unwrap(
        admitModel(bytes, {
          excludeOutputs: [],
          externalFiles: new Map(),
          opsetMax: opsetMaxDefault,
          memoryBounds: [],
        }),
      );
      const report = unwrap(
        await trial.run({
          files: [{ path: 'model.onnx', localPath }],
          modelPath: 'model.onnx',
          inputs: admitted.inputs,
          outputs: admitted.outputs.map(({ name }) => name),
          memory: { bytes: 2 ** 31, from: 'this test' },
          timeoutMs: 60_000,
        }),
      );
      if (report.peakBytes !== null) assert.ok(admitted.memoryBytesEstimate < report.peakBytes, path);
      // And says something: a file that holds its weights is estimated at its weights.
      assert.ok(admitted.memoryBytesEstimate > bytes.length * floor, path);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
