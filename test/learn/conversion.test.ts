// Why: the ONNX file must answer as the trainer does, whatever stands in front of and behind its network.
// Trusts: ONNX Runtime and the ONNX project's checker. Must never: compare the file with itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Tensor } from 'onnxruntime-node';
import { writeTrained } from '../../registry/learn/conversion.ts';
import type { Answers, Examples, TrainedModel } from '../../registry/learn/model.ts';
import { answer, prepare } from '../../registry/learn/preparation.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { readModel } from '../../shared/onnx/model.ts';
import { type ModelSource, writeModel } from '../../shared/onnx/writer.ts';
import { type Case, dirtyExamples, madeModel, plainForward, runFile } from './made-models.ts';
import { checkOnnx } from './onnx-checker.ts';

const about = { name: 'made', documentation: 'A model for tests.', metadata: { seed: '1', task: 'made up' } };
const all: Case['features'] = ['bands', 'lags', 'changes', 'mean', 'deviation', 'minimum', 'maximum'];

const cases: Case[] = [
  { name: 'whole labels, single rows', head: 'whole' },
  { name: 'text labels, single rows, clipped, two hidden layers', head: 'texts', clip: true, hidden: [7, 5] },
  { name: 'value, single rows, sigmoid', head: 'value', activation: 'sigmoid' },
  { name: 'value, no hidden layer, min-max', head: 'value', hidden: [], normalise: 'min-max' },
  { name: 'carried, single rows', head: 'carried', activation: 'tanh' },
  { name: 'anomaly, single rows, robust', head: 'anomaly', normalise: 'robust' },
  { name: 'whole labels, texts and numbers', head: 'whole', texts: true, clip: true },
  { name: 'text labels, texts alone', head: 'texts', texts: true, numeric: 0 },
  { name: 'anomaly, texts and numbers, tanh', head: 'anomaly', texts: true, activation: 'tanh' },
  { name: 'value, texts, robust', head: 'value', texts: true, normalise: 'robust' },
  { name: 'one input without sentinels', head: 'value', numeric: 1 },
  { name: 'one input in a window, text labels', head: 'texts', numeric: 1, window: 5, features: all },
  { name: 'lags', head: 'whole', window: 6, features: ['lags'] },
  { name: 'mean', head: 'value', window: 6, features: ['mean'] },
  { name: 'deviation', head: 'value', window: 6, features: ['deviation'] },
  { name: 'minimum', head: 'value', window: 6, features: ['minimum'] },
  { name: 'maximum', head: 'value', window: 6, features: ['maximum'], clip: true },
  { name: 'bands', head: 'value', window: 16, features: ['bands'], bands: 3, clip: true },
  { name: 'more bands than frequencies', head: 'value', window: 5, features: ['bands'], bands: 4 },
  {
    ...{ name: 'bands of a faint vibration', head: 'value', window: 8, features: ['bands'] },
    ...{ size: 1e-5, clip: true },
  },
  { name: 'the shortest window', head: 'whole', window: 2, features: all, bands: 2 },
  { name: 'all features, whole labels', head: 'whole', window: 12, features: all, clip: true },
  { name: 'all features, carried, min-max', head: 'carried', window: 9, features: all, normalise: 'min-max' },
  { name: 'all features, carried, clipped', head: 'carried', window: 8, features: all, clip: true },
  { name: 'lags, carried, sigmoid', head: 'carried', window: 7, features: ['lags'], activation: 'sigmoid' },
  {
    ...{ name: 'all features, far from zero, anomaly', head: 'anomaly', window: 8, features: all },
    ...{ level: 101_325, clip: true },
  },
  { name: 'single rows far from zero', head: 'whole', level: -2_000_000 },
  { name: 'all features, anomaly, tanh', head: 'anomaly', window: 10, features: all, activation: 'tanh' },
  { name: 'all features, anomaly, robust', head: 'anomaly', window: 11, features: all, normalise: 'robust' },
  { name: 'changes', head: 'value', window: 6, features: ['changes'] },
  { name: 'changes, carried', head: 'carried', window: 2, features: ['changes', 'lags'] },
  { name: 'changes, robust', head: 'value', window: 8, features: ['changes'], normalise: 'robust' },
  {
    name: 'changes, tanh, min-max',
    head: 'value',
    window: 9,
    features: ['changes'],
    activation: 'tanh',
    normalise: 'min-max',
    clip: true,
  },
  {
    name: 'changes, far from zero',
    head: 'carried',
    window: 8,
    features: ['changes'],
    level: 101_325,
    clip: true,
  },
];

const rows = 1_000;

interface Made {
  model: TrainedModel;
  bytes: Uint8Array;
  examples: Examples;
}

function make(one: Case, seed: number): Made {
  const model = madeModel(one, dirtyExamples(one, 400, seed), seed + 1_000);
  return { model, bytes: writeTrained(model, about), examples: dirtyExamples(one, rows, seed + 2_000) };
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let at = 0; at < expected.length; at += 1) {
    const right = expected[at] ?? Number.NaN;
    const off = Math.abs((actual[at] ?? Number.NaN) - right);
    assert.ok(off <= 1e-5 + 1e-5 * Math.abs(right), `${what} ${at}: ${actual[at]} instead of ${right}`);
  }
}

function expectShape(tensor: Tensor | undefined, type: string, shape: number[]): ArrayLike<number> {
  assert.ok(tensor !== undefined);
  assert.equal(tensor.type, type);
  assert.deepEqual([...tensor.dims], shape);
  return tensor.data as Float32Array;
}

/** Returns whether the answers differ enough from each other for the comparison to say something. */
function expectAnswers(ran: Record<string, Tensor>, expected: Answers, { head }: TrainedModel): boolean {
  if (expected.kind === 'classes') {
    assert.ok(head.kind === 'classes');
    assert.deepEqual(Object.keys(ran), ['label', 'probabilities']);
    const { columns, values } = expected.probabilities;
    expectClose(expectShape(ran['probabilities'], 'float32', [rows, columns]), values, 'probability');
    expectShape(ran['label'], typeof head.labels[0] === 'string' ? 'string' : 'int64', [rows]);
    let different = 0;
    for (const [row, best] of expected.best.entries()) {
      const [first = 0, second = 0] = Array.from(values.subarray(row * columns, (row + 1) * columns)).sort(
        (a, b) => b - a,
      );
      if (first - second < 1e-5) continue;
      const label = ran['label']?.data[row];
      assert.equal(typeof label === 'bigint' ? Number(label) : label, head.labels[best], `row ${row}`);
      different += best === expected.best[0] ? 0 : 1;
    }
    return different > rows / 20;
  }
  if (expected.kind === 'value') {
    assert.deepEqual(Object.keys(ran), ['prediction']);
    expectClose(expectShape(ran['prediction'], 'float32', [rows, 1]), expected.values, 'prediction');
    return new Set(expected.values).size > rows / 2;
  }
  assert.deepEqual(Object.keys(ran), ['score', 'anomaly']);
  expectClose(expectShape(ran['score'], 'float32', [rows, 1]), expected.scores, 'score');
  const flags = expectShape(ran['anomaly'], 'bool', [rows, 1]);
  for (const [row, score] of expected.scores.entries())
    if (Math.abs(score - 1) > 1e-4) assert.equal(Boolean(flags[row]), score > 1, `row ${row}: ${score}`);
  const found = expected.scores.filter((score) => score > 1).length;
  return found > rows / 20 && found < rows - rows / 20;
}

async function expectAgreement(one: Case, seed: number): Promise<boolean> {
  const { model, bytes, examples } = make(one, seed);
  const prepared = prepare(model.preparation, examples);
  const expected = answer(model, prepared, examples, plainForward);
  return expectAnswers(await runFile(bytes, examples), expected, model);
}

for (const [seed, one] of cases.entries())
  test(`the file answers as the trainer: ${one.name}`, async () => {
    assert.ok(await expectAgreement(one, seed + 1), 'answers that are all alike test nothing');
  });

/** Every head behind every kind of input, activation and normalisation. */
const crossed = (['whole', 'texts', 'value', 'carried', 'anomaly'] as const).flatMap((head) =>
  (['single rows', 'single rows with texts', 'windows'] as const).flatMap((inputs) =>
    (['relu', 'sigmoid', 'tanh'] as const).flatMap((activation) =>
      (['standard', 'min-max', 'robust'] as const).map((normalise): Case => {
        const name = `${head}, ${inputs}, ${activation}, ${normalise}`;
        const of = { name, head, activation, normalise };
        // Values far out of a robust scale, and as many of them again as changes, leave less of single precision than 1e-5.
        const features = all.filter((feature) => normalise !== 'robust' || feature !== 'changes');
        if (inputs === 'windows') return { ...of, window: 8, features };
        return { ...of, texts: inputs === 'single rows with texts' };
      }),
    ),
  ),
);

test('the file answers as the trainer: everything with everything', async () => {
  assert.equal(crossed.length, 135);
  let telling = 0;
  for (const [at, one] of crossed.entries())
    try {
      telling += (await expectAgreement(one, at + 500)) ? 1 : 0;
    } catch (error) {
      throw new Error(one.name, { cause: error });
    }
  assert.ok(telling > 90, `${telling} of ${crossed.length} have answers that differ`);
});

test('a row alone is answered as in a batch, to the last features', async () => {
  for (const one of cases.filter(({ head }) => head === 'anomaly')) {
    const { bytes, examples } = make(one, 77);
    const batch = await runFile(bytes, examples);
    for (const row of [0, 1, 499, rows - 1]) {
      const alone = await runFile(bytes, { ...examples, at: examples.at.slice(row, row + 1) });
      expectClose(
        expectShape(alone['score'], 'float32', [1, 1]),
        Float32Array.of(Number(batch['score']?.data[row])),
        `row ${row}`,
      );
    }
  }
});

test('every file is admitted, and says what it is', () => {
  for (const [seed, one] of cases.entries()) {
    const { model, bytes } = make(one, seed + 1);
    const rules = {
      excludeOutputs: [],
      externalFiles: new Map(),
      opsetMax: opsetMaxDefault,
      memoryBounds: [],
    };
    const admitted = unwrap(admitModel(bytes, rules));
    const { numeric, categories, window } = model.preparation;
    const shape = window === null ? [-1, numeric.length] : [-1, window, numeric.length];
    assert.deepEqual(admitted.inputs, [
      ...(numeric.length > 0 ? [{ name: 'values', datatype: 'FP32', shape }] : []),
      ...(categories.length > 0
        ? [{ name: 'texts', datatype: 'BYTES', shape: [-1, categories.length] }]
        : []),
    ]);
    const read = unwrap(readModel(bytes));
    assert.equal(read.opsets.get(''), 17);
    assert.equal(read.opsets.get('ai.onnx.ml'), categories.length > 0 ? 3 : undefined);
    assert.equal(read.metadata.get('task'), 'made up', 'the caller knows the task better');
    assert.equal(read.metadata.get('seed'), '1');
    assert.equal(read.metadata.get('window'), JSON.stringify(window));
    assert.deepEqual(JSON.parse(read.metadata.get('columns') ?? ''), {
      values: numeric.map(({ name }) => name),
      texts: categories.map(({ name }) => name),
    });
    const labels = model.head.kind === 'classes' ? JSON.stringify(model.head.labels) : undefined;
    assert.equal(read.metadata.get('labels'), labels);
  }
});

test('what does nothing is not in the graph', () => {
  const operators = (one: Case): Set<string> => unwrap(readModel(make(one, 5).bytes)).operators;
  const plain = operators({ name: '', head: 'value', numeric: 1 });
  for (const operator of [':Equal', ':Max', ':Min', ':Concat', ':Reshape', ':Gather'])
    assert.ok(!plain.has(operator), operator);
  const lags = operators({ name: '', head: 'value', window: 4, features: ['lags'] });
  for (const operator of [':ReduceMean', ':Gather', ':Concat']) assert.ok(!lags.has(operator), operator);
  const carried = operators({ name: '', head: 'carried', window: 4, features: ['lags'] });
  assert.ok(carried.has(':Gather') && !carried.has(':ReduceMean'));
  const clipped = operators({ name: '', head: 'value', clip: true });
  for (const operator of [':Equal', ':Max', ':Min']) assert.ok(clipped.has(operator), operator);
});

test('the checker of the ONNX project passes every file, and sees a wrong one', async (context) => {
  const narrowed: ModelSource = {
    name: 'a sum declared narrower than it is',
    inputs: [{ name: 'x', datatype: 'FP32', shape: ['n', 3] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: ['n', 2] }],
    nodes: [{ operator: 'Add', inputs: ['x', 'x'], outputs: ['y'] }],
    initializers: [],
  };
  const seen = await checkOnnx(writeModel(narrowed));
  if (seen === null) {
    context.skip('no /usr/bin/python3 with the package onnx here');
    return;
  }
  assert.ok(!seen.ok);
  const files = cases.map((one, seed) => make(one, seed + 1).bytes);
  assert.deepEqual(await checkOnnx(...files), { ok: true }, cases.map(({ name }) => name).join('; '));
});

test('parts that do not fit each other are a bug of the caller', () => {
  const { model } = make({ name: '', head: 'value' }, 3);
  const wrong: TrainedModel[] = [
    { ...model, network: { ...model.network, layers: [] } },
    { ...model, network: { ...model.network, output: 'softmax' } },
    { ...model, head: { kind: 'classes', labels: ['a', 'b'] } },
    { ...model, head: { kind: 'value', center: 0, scale: 1, carries: 3 } },
    { ...model, preparation: { ...model.preparation, names: ['one'] } },
  ];
  for (const one of wrong) assert.throws(() => writeTrained(one, about), /invariant broken/);
});
