// Why: the real cases that other tests rely on are read as they stand, and survive JSON exactly.
// Trusts: the data folder's README. Must never: run a model.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { compareGolden, parseGolden } from '../../shared/wire/golden.ts';
import { encodeInferRequest, parseInferRequest } from '../../shared/wire/oip-json.ts';
import { checkTensor } from '../../shared/wire/tensors.ts';
import { goldenFile, modelCase, modelCases, readWav, speechStream, suiteCases } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

test('every case has its model, and tensors that fill their shapes', { skip: dataMissing }, () => {
  const cases = [...modelCases(), ...suiteCases()];
  assert.ok(modelCases().length >= 20);
  assert.ok(suiteCases().length >= 31);
  assert.equal(new Set(cases.map(({ name }) => name)).size, cases.length, 'names are unique');
  for (const one of cases) {
    assert.ok(existsSync(one.modelPath), one.modelPath);
    for (const tensor of [...one.inputs, ...one.expected])
      assert.ok(checkTensor(tensor).ok, `${one.name} ${tensor.name}`);
    assert.deepEqual(
      one.expected.map(({ name }) => name),
      one.fetch,
    );
  }
});

test('real requests are the same after JSON: floats, strings, int64 and a missing value', {
  skip: dataMissing,
}, () => {
  for (const one of [...modelCases(), ...suiteCases().slice(0, 50)]) {
    const parsed = parseInferRequest(encodeInferRequest({ inputs: one.inputs }));
    assert.ok(parsed.ok, one.name);
    assert.deepEqual(parsed.value.inputs, one.inputs, one.name);
  }
  const age = modelCase('sklearn/titanic').inputs.find(({ name }) => name === 'age');
  assert.ok(age !== undefined && (age.data as Float32Array).some(Number.isNaN), 'a passenger of unknown age');
});

test('a golden file made of cases passes on its own answers and fails on another model’s', {
  skip: dataMissing,
}, () => {
  const r2 = modelCase('yolox-nano/coco139-r2');
  const good = modelCase('derived-int8/yolox-coco139-int8qdq');
  const bad = modelCase('derived-int8/yolox-coco139-int8qdq-BAD-pertensor');
  const golden = parseGolden(goldenFile([r2]), () => null);
  assert.ok(golden.ok);
  const [first] = golden.value;
  assert.ok(first !== undefined);
  assert.equal(compareGolden(first.expected, r2.expected, first.rtol, first.atol).passed, true);
  assert.equal(compareGolden(first.expected, bad.expected, first.rtol, first.atol).passed, false);
  assert.equal(bad.approximate && good.approximate && !r2.approximate, true);
});

test('the speech stream and its recording', { skip: dataMissing }, () => {
  const stream = speechStream('v5');
  assert.equal(stream.probabilities.length, 1875);
  assert.equal(stream.probabilities.filter((probability) => probability > 0.5).length, stream.speechWindows);
  const samples = readWav(dataFolder('inputs', 'test.wav'));
  assert.equal(Math.ceil(samples.length / stream.windowSamples), 1875);
  assert.ok(samples.some((sample) => sample !== 0) && samples.every((sample) => Math.abs(sample) <= 1));
});
