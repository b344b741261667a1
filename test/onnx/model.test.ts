// Why: an ONNX file says the same to us as to the runtime, and a hostile one says nothing.
// Trusts: onnx-ml.proto for field numbers; real models for the rest. Must never: run a model.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type OnnxModel, readModel } from '../../shared/onnx/model.ts';
import type { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { graph, modelFile } from './models.ts';

const read = (bytes: Uint8Array): OnnxModel => unwrap(readModel(bytes));
const codeOf = (bytes: Uint8Array): string => {
  const result = readModel(bytes);
  return result.ok ? 'accepted' : result.refusal.code;
};

test('signature: kinds, types and dimensions', () => {
  const model = read(
    modelFile({
      inputs: [
        { name: 'fixed', elemType: 1, shape: [1, 3, 416] },
        { name: 'free', elemType: 7, shape: ['batch', null, 0, 2] },
        { name: 'scalar', elemType: 9, shape: [] },
        { name: 'rankless', elemType: 8 },
        { name: 'untyped' },
      ],
      outputs: [
        { name: 'list', kindField: 4 },
        { name: 'map', kindField: 5 },
        { name: 'maybe', kindField: 9 },
      ],
    }),
  );
  assert.deepEqual(model.inputs, [
    { name: 'fixed', kind: 'tensor', elemType: 1, shape: [1, 3, 416] },
    { name: 'free', kind: 'tensor', elemType: 7, shape: [-1, -1, -1, 2] },
    { name: 'scalar', kind: 'tensor', elemType: 9, shape: [] },
    { name: 'rankless', kind: 'tensor', elemType: 8, shape: null },
    { name: 'untyped', kind: 'unknown', elemType: 0, shape: null },
  ]);
  assert.deepEqual(
    model.outputs.map(({ kind }) => kind),
    ['sequence', 'map', 'optional'],
  );
});

test('initializers that older files list among the inputs are no inputs', () => {
  const model = read(
    modelFile({
      inputs: [
        { name: 'x', elemType: 1, shape: [1] },
        { name: 'weight', elemType: 1, shape: [4] },
      ],
      initializers: [{ name: 'weight', dataType: 1, dims: [4], raw: new Uint8Array(16) }],
    }),
  );
  assert.deepEqual(
    model.inputs.map(({ name }) => name),
    ['x'],
  );
  assert.equal(model.initializerBytes, 16);
});

test('operators and external data are found in subgraphs, attributes and functions', () => {
  const inner = graph({
    nodes: [{ opType: 'Deep', domain: 'hidden.domain' }],
    initializers: [
      {
        name: 'w',
        dataType: 1,
        dims: [2],
        external: { location: './inner.data', offset: '64', length: '8' },
      },
    ],
  });
  const model = read(
    modelFile({
      opsets: [
        ['ai.onnx', 17],
        ['own', 1],
      ],
      nodes: [
        { opType: 'If', graphs: [graph({ nodes: [{ opType: 'Loop', graphs: [inner] }] })] },
        {
          opType: 'Constant',
          tensors: [{ name: 'c', dataType: 1, dims: [3], external: { location: 'outer.data' } }],
        },
      ],
      functions: [{ name: 'Gate', domain: 'own', nodes: [{ opType: 'Relu', domain: 'ai.onnx' }] }],
    }),
  );
  assert.deepEqual([...model.operators].sort(), [':Constant', ':If', ':Loop', ':Relu', 'hidden.domain:Deep']);
  assert.deepEqual([...model.functions], ['own:Gate']);
  assert.deepEqual(
    [...model.opsets],
    [
      ['', 17],
      ['own', 1],
    ],
  );
  assert.deepEqual(model.externalData, [
    { path: 'inner.data', offset: 64, length: 8, bytes: 8 },
    { path: 'outer.data', offset: 0, length: null, bytes: 12 },
  ]);
  assert.equal(model.initializerBytes, 20);
});

test('constants generated from a shape are counted: raw, packed and from a Constant node', () => {
  const shape = new Uint8Array(BigInt64Array.of(1000n, 1000n).buffer);
  const generate = { opType: 'ConstantOfShape', inputs: ['shape'] };
  const raw = { name: 'shape', dataType: 7, dims: [2], raw: shape };
  // Together with the shape, which it replaces.
  const constantBytes = (model: OnnxModel): number => model.initializerBytes + model.memory.generatedBytes;
  assert.equal(constantBytes(read(modelFile({ nodes: [generate], initializers: [raw] }))), 4_000_000);
  const doubles = { ...generate, tensors: [{ name: '', dataType: 11, dims: [1], raw: new Uint8Array(8) }] };
  assert.equal(constantBytes(read(modelFile({ nodes: [doubles], initializers: [raw] }))), 8_000_000);
  const packed = { name: 'shape', dataType: 7, dims: [1], longs: [500] };
  assert.equal(constantBytes(read(modelFile({ nodes: [generate], initializers: [packed] }))), 2_000);
  const constant = { opType: 'Constant', outputs: ['shape'], tensors: [{ ...raw, name: 'any' }] };
  assert.equal(constantBytes(read(modelFile({ nodes: [constant, generate] }))), 4_000_000);
  // The value of one ConstantOfShape is not what its output holds: the shape of the next is unknown.
  const value = { name: '', dataType: 7, dims: [1], longs: [500] };
  const made = { opType: 'ConstantOfShape', inputs: ['unknown'], outputs: ['shape'], tensors: [value] };
  assert.equal(constantBytes(read(modelFile({ nodes: [made, generate] }))), 0);
});

test('what is no model: pointer, nothing, text, another protobuf, half a file', () => {
  assert.equal(codeOf(new Uint8Array(0)), 'model-not-onnx');
  assert.equal(codeOf(new TextEncoder().encode('<html>404</html>')), 'model-not-onnx');
  assert.equal(codeOf(new TextEncoder().encode('{"a": 1}')), 'model-not-onnx');
  const pointer = readModel(
    new TextEncoder().encode('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n'),
  );
  assert.match(pointer.ok ? '' : pointer.refusal.detail, /Git LFS/);
  const whole = modelFile();
  assert.equal(codeOf(whole), 'accepted');
  for (let end = 1; end < whole.length; end++)
    assert.notEqual(codeOf(whole.subarray(0, end)), 'accepted', `${end} bytes`);
  assert.equal(codeOf(modelFile({ irVersion: 0 })), 'model-not-onnx');
  assert.equal(codeOf(modelFile({ opsets: [] })), 'model-invalid');
  assert.equal(codeOf(modelFile({ outputs: [{ name: '', elemType: 1 }] })), 'model-invalid');
});

test('external data cannot point outside the model’s folder', () => {
  for (const location of ['../weights', '/etc/passwd', 'a/../../b', '', 'a\\b', 'C:\\x']) {
    const initializers = [{ name: 'w', dataType: 1, dims: [1], external: { location } }];
    assert.equal(codeOf(modelFile({ initializers })), 'model-invalid', location);
  }
});

test('graphs nested without end are refused, not followed', () => {
  let inner: ProtobufWriter = graph({});
  for (let depth = 0; depth < 40; depth++) inner = graph({ nodes: [{ opType: 'If', graphs: [inner] }] });
  const result = readModel(modelFile({ nodes: [{ opType: 'If', graphs: [inner] }] }));
  assert.match(result.ok ? '' : result.refusal.detail, /nested deeper/);
});

test('no mutation of a model makes the reader throw', () => {
  const base = modelFile({
    initializers: [{ name: 'w', dataType: 7, dims: [2], longs: [3], external: { location: 'w.bin' } }],
    nodes: [{ opType: 'If', graphs: [graph({})] }],
  });
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 5 }), (edits) => {
      const bytes = base.slice();
      for (const [at, byte] of edits) bytes[at] = byte;
      assert.ok(['accepted', 'model-not-onnx', 'model-invalid'].includes(codeOf(bytes)));
    }),
    { numRuns: 3_000 },
  );
});

test('a 33 MB model is read without copying it', { skip: dataMissing }, () => {
  const bytes = new Uint8Array(
    readFileSync(dataFolder('models', 'densenet121-synth', 'densenet121_synth_v1.onnx')),
  );
  const before = process.memoryUsage();
  const model = read(bytes);
  const after = process.memoryUsage();
  assert.equal(model.initializerBytes, 32_584_608);
  assert.ok(after.arrayBuffers - before.arrayBuffers < 2_000_000, 'no tensor was copied');
});

test('silero: types and free dimensions as its authors declared them', { skip: dataMissing }, () => {
  const model = read(new Uint8Array(readFileSync(dataFolder('models', 'silero-vad', 'silero-v5.onnx'))));
  assert.deepEqual(
    model.inputs.map(({ name, elemType, shape }) => [name, elemType, shape]),
    [
      ['input', 1, [-1, -1]],
      ['state', 1, [2, -1, 128]],
      ['sr', 7, []],
    ],
  );
  assert.equal(model.opsets.get(''), 16);
});
