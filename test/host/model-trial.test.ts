// Why: a trial finds what no parser can: a graph the runtime refuses, one that aborts, one that eats memory, one that
// takes for ever; and it leaves nothing behind. Trusts: the data folder's negative models.
// Must never: depend on how fast this machine is.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { createModelTrial } from '../../shared/host/model-trial.ts';
import type { TrialModel } from '../../shared/kernel/ports.ts';
import type { TensorSignature } from '../../shared/wire/manifest.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const folder = mkdtempSync(join(tmpdir(), 'lepton-trial-test-'));
after(() => rmSync(folder, { recursive: true }));
const trial = createModelTrial(systemClock);
const mebibytes = (count: number): number => count * 1_048_576;

const floats = (name: string, shape: number[]): TensorSignature => ({ name, datatype: 'FP32', shape });
const modelAt = (localPath: string, more: Partial<TrialModel> = {}): TrialModel => ({
  files: [{ path: 'model.onnx', localPath }],
  modelPath: 'model.onnx',
  inputs: [],
  outputs: [],
  memoryBytesMax: mebibytes(700),
  timeoutMs: 60_000,
  ...more,
});
const codeOf = async (model: TrialModel): Promise<string> => {
  const outcome = await trial.run(model);
  return outcome.ok ? 'passed' : outcome.refusal.code;
};
const stray = (): string[] => readdirSync(tmpdir()).filter((name) => /^lepton-trial-(?!test-)/.test(name));
const written = (name: string, bytes: Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

test('a good model passes, and leaves no folder', async () => {
  const good = modelAt(written('good.onnx', tinyModel(2)), { inputs: [floats('x', [2])], outputs: ['y'] });
  assert.equal(await codeOf(good), 'passed');
  assert.deepEqual(stray(), []);
});

test('bytes that are no graph are refused, a file that is gone is a fault', async () => {
  const bytes = tinyModel(2).slice();
  bytes.fill(0xff, 20, 60);
  assert.equal(await codeOf(modelAt(written('bad.onnx', bytes))), 'model-invalid');
  await assert.rejects(trial.run(modelAt(join(folder, 'gone.onnx'))));
  assert.deepEqual(stray(), []);
});

test('inputs that the model does not take are no fault of the model', async () => {
  const odd = modelAt(written('odd.onnx', tinyModel(2)), { inputs: [floats('x', [7])], outputs: ['y'] });
  assert.equal(await codeOf(odd), 'passed');
});

test('a model that is not ready in time is ended', async () => {
  const late = modelAt(written('late.onnx', tinyModel(2)), { timeoutMs: 0 });
  assert.equal(await codeOf(late), 'model-load-failed');
});

test('a model that aborts its process, and one that eats memory', { skip: dataMissing }, async () => {
  const abort = dataFolder('negative', 'aborts-process_test_cast_FLOAT_to_INT4.onnx');
  assert.ok(existsSync(abort));
  const aborting = modelAt(abort, { inputs: [floats('input', [5, 5])], outputs: ['output'] });
  assert.equal(await codeOf(aborting), 'model-crashed');
  const greedy = modelAt(dataFolder('negative', 'ram-blowup_light_vgg19.onnx'), {
    memoryBytesMax: mebibytes(300),
  });
  if (process.platform === 'linux') assert.equal(await codeOf(greedy), 'model-memory-exceeded');
  assert.equal(
    await codeOf(modelAt(dataFolder('negative', 'missing-external-data_silero_op18_ifless.onnx'))),
    'model-invalid',
  );
});
