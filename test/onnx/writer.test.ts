// Why: what the writer writes, the real runtime must run and the reader must read back.
// Trusts: ONNX Runtime as the judge. Must never: accept a model that only our own reader understands.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import * as ort from 'onnxruntime-node';
import { smallestModel } from '../../agent/inference/smallest-model.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { readModel } from '../../shared/onnx/model.ts';
import { type ModelSource, writeModel } from '../../shared/onnx/writer.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

const floats = (name: string, shape: number[], values: number[]): Tensor => ({
  name,
  datatype: 'FP32',
  shape,
  data: Float32Array.from(values),
});

/** Two inputs, three hidden units, two classes. */
const perceptron: ModelSource = {
  name: 'perceptron',
  inputs: [{ name: 'x', datatype: 'FP32', shape: ['n', 2] }],
  outputs: [{ name: 'p', datatype: 'FP32', shape: ['n', 2] }],
  nodes: [
    {
      operator: 'Gemm',
      inputs: ['x', 'w1', 'b1'],
      outputs: ['hidden'],
      attributes: { transB: { int: 1 }, alpha: { float: 0.5 } },
    },
    { operator: 'Relu', inputs: ['hidden'], outputs: ['active'] },
    { operator: 'MatMul', inputs: ['active', 'w2'], outputs: ['product'] },
    { operator: 'Add', inputs: ['product', 'b2'], outputs: ['logits'] },
    { operator: 'Softmax', inputs: ['logits'], outputs: ['p'], attributes: { axis: { int: -1 } } },
  ],
  initializers: [
    floats('w1', [3, 2], [1, -2, 0.5, 3, -1, 1]),
    floats('b1', [3], [0.1, -0.2, 0.3]),
    floats('w2', [3, 2], [1, -1, 0.25, 2, -3, 0.5]),
    floats('b2', [2], [0.05, -0.05]),
  ],
  metadata: { classes: 'no,yes' },
};

/** The same by hand. */
function perceptronByHand([x0 = 0, x1 = 0]: number[]): number[] {
  const hidden = [0.5 * (x0 - 2 * x1) + 0.1, 0.5 * (0.5 * x0 + 3 * x1) - 0.2, 0.5 * (-x0 + x1) + 0.3].map(
    (value) => Math.max(0, value),
  );
  const [h0 = 0, h1 = 0, h2 = 0] = hidden;
  const raised = [h0 + 0.25 * h1 - 3 * h2 + 0.05, -h0 + 2 * h1 + 0.5 * h2 - 0.05].map(Math.exp);
  const sum = raised.reduce((total, value) => total + value, 0);
  return raised.map((value) => value / sum);
}

async function runFloats(model: Uint8Array, shape: number[], values: number[]): Promise<number[]> {
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 4 });
  const name = session.inputNames[0] ?? '';
  const ran = await session.run({ [name]: new ort.Tensor('float32', Float32Array.from(values), shape) });
  const output = ran[session.outputNames[0] ?? ''];
  await session.release();
  assert.ok(output !== undefined);
  return Array.from(output.data as Float32Array);
}

test('ONNX Runtime computes what the nodes and weights say, for any batch', async () => {
  const rows = [
    [0.3, -0.7],
    [2, 1],
    [-1.5, 0.25],
  ];
  const answers = await runFloats(writeModel(perceptron), [3, 2], rows.flat());
  for (const [at, expected] of rows.flatMap(perceptronByHand).entries())
    assert.ok(Math.abs((answers[at] ?? Number.NaN) - expected) < 1e-6, `${at}: ${answers[at]} ${expected}`);
});

test('attributes of every kind arrive with their type', async () => {
  const constant = (name: string, attribute: NonNullable<ModelSource['nodes'][number]['attributes']>) => ({
    operator: 'Constant',
    inputs: [],
    outputs: [name],
    attributes: attribute,
  });
  const model = writeModel({
    name: 'attributes',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4, 1, 1] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 1, 2, 2] }],
    nodes: [
      {
        operator: 'DepthToSpace',
        inputs: ['x'],
        outputs: ['space'],
        attributes: { blocksize: { int: 2 }, mode: { string: 'CRD' } },
      },
      {
        operator: 'Transpose',
        inputs: ['space'],
        outputs: ['turned'],
        attributes: { perm: { ints: [0, 1, 3, 2] } },
      },
      constant('scale', { value_floats: { floats: [10, 100] } }),
      constant('offset', { value_float: { float: 0.5 } }),
      { operator: 'Mul', inputs: ['turned', 'scale'], outputs: ['scaled'] },
      { operator: 'Add', inputs: ['scaled', 'offset'], outputs: ['y'] },
    ],
    initializers: [],
  });
  assert.deepEqual(await runFloats(model, [1, 4, 1, 1], [1, 2, 3, 4]), [10.5, 300.5, 20.5, 400.5]);
});

test('an optional input is left out by an empty name', async () => {
  const model = writeModel({
    name: 'clip',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [3] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [3] }],
    nodes: [{ operator: 'Clip', inputs: ['x', '', 'high'], outputs: ['y'] }],
    initializers: [floats('high', [], [2])],
  });
  assert.deepEqual(await runFloats(model, [3], [-5, 1, 7]), [-5, 1, 2]);
});

test('the reader and admission read back what was declared', () => {
  const bytes = writeModel(perceptron);
  const model = unwrap(readModel(bytes));
  assert.deepEqual(model.opsets, new Map([['', 17]]));
  assert.deepEqual(model.metadata, new Map([['classes', 'no,yes']]));
  assert.equal(model.initializerBytes, 4 * (6 + 3 + 6 + 2));
  const admitted = unwrap(
    admitModel(bytes, {
      excludeOutputs: [],
      externalFiles: new Map(),
      opsetMax: opsetMaxDefault,
      memoryBounds: [],
    }),
  );
  assert.deepEqual(admitted.inputs, [{ name: 'x', datatype: 'FP32', shape: [-1, 2] }]);
  assert.deepEqual(admitted.outputs, [{ name: 'p', datatype: 'FP32', shape: [-1, 2] }]);
});

test('constants of every datatype pass through the runtime', async () => {
  const tensors: [Tensor, string][] = [
    [{ name: 'k', datatype: 'INT64', shape: [2], data: BigInt64Array.of(-(2n ** 60n), 7n) }, 'int64'],
    [{ name: 'k', datatype: 'FP64', shape: [2], data: Float64Array.of(0.1, -1e300) }, 'float64'],
    [{ name: 'k', datatype: 'UINT8', shape: [2], data: Uint8Array.of(0, 255) }, 'uint8'],
    [{ name: 'k', datatype: 'BOOL', shape: [2], data: Uint8Array.of(1, 0) }, 'bool'],
    [{ name: 'k', datatype: 'BYTES', shape: [2], data: ['löwe', ''] }, 'string'],
  ];
  for (const [tensor, type] of tensors) {
    const model = writeModel({
      name: 'constant',
      inputs: [],
      outputs: [{ name: 'y', datatype: tensor.datatype, shape: [2] }],
      nodes: [{ operator: 'Identity', inputs: ['k'], outputs: ['y'] }],
      initializers: [tensor],
    });
    const session = await ort.InferenceSession.create(model, { logSeverityLevel: 4 });
    const { y } = await session.run({});
    await session.release();
    assert.equal(y?.type, type);
    assert.deepEqual([...(y.data as Uint8Array)], [...(tensor.data as Uint8Array)]);
  }
});

test('a graph with a loose end is a bug of the caller, found here', () => {
  const cases: [Partial<ModelSource>, RegExp][] = [
    [{ nodes: [...perceptron.nodes].reverse() }, /uses .*, not made yet/],
    [{ outputs: [{ name: 'q', datatype: 'FP32', shape: [2] }] }, /nothing makes q/],
    [{ outputs: [] }, /no output/],
    [{ initializers: [...perceptron.initializers, floats('w1', [1], [0])] }, /"w1" is made twice/],
  ];
  for (const [change, message] of cases)
    assert.throws(
      () => writeModel({ ...perceptron, ...change }),
      (error) => error instanceof FleetError && error.code === 'internal' && message.test(error.message),
    );
  assert.throws(
    () => writeModel({ ...perceptron, initializers: [floats('w1', [3, 2], [1])] }),
    /not made yet|needs 6 elements/,
  );
});

test('words, names and the other domain are written, and read by the runtime', async () => {
  const source: ModelSource = {
    name: 'codes',
    documentation: 'Ein Modell.',
    graphDocumentation: 'Its graph.',
    inputs: [{ name: 'text', datatype: 'BYTES', shape: ['n'], documentation: 'What is said.' }],
    outputs: [{ name: 'code', datatype: 'INT64', shape: ['n'] }],
    nodes: [
      {
        operator: 'LabelEncoder',
        domain: 'ai.onnx.ml',
        name: 'look_up',
        inputs: ['text'],
        outputs: ['code'],
        attributes: {
          keys_strings: { strings: ['yes', 'nö', ''] },
          values_int64s: { ints: [4, -5, 6] },
          default_int64: { int: -1 },
        },
      },
    ],
    initializers: [],
  };
  const bytes = writeModel(source);
  assert.deepEqual(
    unwrap(readModel(bytes)).opsets,
    new Map([
      ['', 17],
      ['ai.onnx.ml', 3],
    ]),
  );
  for (const word of ['Ein Modell.', 'Its graph.', 'What is said.', 'look_up'])
    assert.equal(Buffer.from(bytes).toString('latin1').split(word).length, 2, word);
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
  const said = new ort.Tensor('string', ['nö', 'no', '', 'yes'], [4]);
  const { code } = await session.run({ text: said });
  await session.release();
  assert.ok(code !== undefined);
  assert.deepEqual([...(code.data as BigInt64Array)], [-5n, -1n, 6n, 4n]);
});

test('what uses nothing new is written as before, byte for byte', () => {
  const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  // Digests of files that the writer made before it knew of names and words: a release is its bytes.
  assert.equal(digest(smallestModel()), 'fadfa61ca785af7701fc0c59a6becb29dfdadc052a9d4d11480934a6b023ff61');
});
