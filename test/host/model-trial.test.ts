// Why: a trial finds what no parser can: a graph the runtime refuses, one that aborts, one that eats memory, one that
// never returns; and it leaves nothing behind. Trusts: the data folder's negative models.
// Must never: depend on how fast this machine is.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { systemClock } from '../../shared/host/clock.ts';
import { createModelTrial } from '../../shared/host/model-trial.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { ModelTrial, TrialModel } from '../../shared/kernel/ports.ts';
import { writeModel } from '../../shared/onnx/writer.ts';
import type { TensorSignature } from '../../shared/wire/manifest.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { graph, modelFile } from '../onnx/models.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const folder = mkdtempSync(join(tmpdir(), 'lepton-trial-test-'));
const workFolder = join(folder, 'work');
after(() => rmSync(folder, { recursive: true }));
const trial = createModelTrial(systemClock, { workFolder });
const memory = (count: number) => ({ bytes: count * 1_048_576, from: 'this test' });

const floats = (name: string, shape: number[]): TensorSignature => ({ name, datatype: 'FP32', shape });
const modelAt = (localPath: string, more: Partial<TrialModel> = {}): TrialModel => ({
  files: [{ path: 'model.onnx', localPath }],
  modelPath: 'model.onnx',
  inputs: [],
  outputs: [],
  memory: memory(700),
  timeoutMs: 60_000,
  ...more,
});
const outcomeOf = async (model: TrialModel, by: ModelTrial = trial): Promise<string[]> => {
  const outcome = await by.run(model);
  return outcome.ok ? ['passed'] : [outcome.refusal.code, outcome.refusal.detail];
};
const codeOf = async (model: TrialModel, by: ModelTrial = trial): Promise<string> =>
  (await outcomeOf(model, by))[0] ?? '';
const left = (): string[] => (existsSync(workFolder) ? readdirSync(workFolder) : []);
const written = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const good = (): TrialModel =>
  modelAt(written('good.onnx', tinyModel(2)), { inputs: [floats('x', [2])], outputs: ['y'] });

/** A program in the child's place; what it says goes to descriptor 3. */
function instead(name: string, program: string): ModelTrial {
  const path = written(`${name}.mjs`, `import { writeSync } from 'node:fs';\n${program}\n`);
  return createModelTrial(systemClock, { workFolder, entry: pathToFileURL(path) });
}

/** A loop that ends after 2^62 rounds. */
function endlessModel(): Uint8Array {
  const scalar = { elemType: 7, shape: [] };
  const flag = { elemType: 9, shape: [] };
  const float = { elemType: 1, shape: [1] };
  const body = graph({
    inputs: [
      { name: 'round', ...scalar },
      { name: 'go', ...flag },
      { name: 'a', ...float },
    ],
    outputs: [
      { name: 'goOn', ...flag },
      { name: 'b', ...float },
    ],
    nodes: [
      { opType: 'Identity', inputs: ['go'], outputs: ['goOn'] },
      { opType: 'Identity', inputs: ['a'], outputs: ['b'] },
    ],
  });
  return modelFile({
    inputs: [{ name: 'x', ...float }],
    outputs: [{ name: 'y', ...float }],
    initializers: [
      { name: 'rounds', dataType: 7, dims: [], raw: new Uint8Array(BigInt64Array.of(2n ** 62n).buffer) },
      { name: 'true', dataType: 9, dims: [], raw: Uint8Array.of(1) },
    ],
    nodes: [{ opType: 'Loop', inputs: ['rounds', 'true', 'x'], outputs: ['y'], graphs: [body] }],
  });
}
const endless = (timeoutMs: number): TrialModel =>
  modelAt(written('endless.onnx', endlessModel()), {
    inputs: [floats('x', [1])],
    outputs: ['y'],
    timeoutMs,
  });

/** Nothing in its bytes says how large the tensor is that it makes: that depends on its input. */
const secretlyGreedy = (elements: bigint): Uint8Array =>
  writeModel({
    name: 'greedy',
    inputs: [{ name: 'n', datatype: 'INT64', shape: [1] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [] }],
    initializers: [{ name: 'more', datatype: 'INT64', shape: [1], data: BigInt64Array.of(elements) }],
    nodes: [
      { operator: 'Add', inputs: ['n', 'more'], outputs: ['shape'] },
      { operator: 'ConstantOfShape', inputs: ['shape'], outputs: ['zeros'] },
      { operator: 'ReduceMax', inputs: ['zeros'], outputs: ['y'], attributes: { keepdims: { int: 0 } } },
    ],
  });
const greedy = (name: string, elements: bigint): TrialModel =>
  modelAt(written(name, secretlyGreedy(elements)), {
    inputs: [{ name: 'n', datatype: 'INT64', shape: [1] }],
    outputs: ['y'],
  });

test('a good model passes, and says what it took', async () => {
  const report = unwrap(await trial.run(good()));
  assert.equal(report.untried, null);
  assert.equal(report.runFailure, null);
  if (process.platform === 'linux') {
    assert.ok(report.peakBytes !== null && report.peakBytes > 2 ** 24 && report.peakBytes < 2 ** 28);
  }
});

test('external data stands beside the model under the path it names, and its folder is gone afterwards', async () => {
  const bytes = modelFile({
    inputs: [{ name: 'x', elemType: 1, shape: [1] }],
    outputs: [{ name: 'y', elemType: 1, shape: [1] }],
    nodes: [{ opType: 'Mul', inputs: ['x', 'w'] }],
    initializers: [{ name: 'w', dataType: 1, dims: [1], external: { location: 'parts/w.bin' } }],
  });
  const files = [
    { path: 'net/model.onnx', localPath: written('a1', bytes) },
    { path: 'net/parts/w.bin', localPath: written('b2', new Uint8Array(4)) },
  ];
  // What a trial left that was killed with the machine.
  mkdirSync(join(workFolder, '4194304'), { recursive: true });
  const model = { files, modelPath: 'net/model.onnx', inputs: [floats('x', [1])], outputs: ['y'] };
  assert.deepEqual(await outcomeOf(modelAt('', model)), ['passed']);
  assert.deepEqual(left(), []);
  assert.equal(await codeOf(modelAt('', { ...model, files: files.slice(0, 1) })), 'model-invalid');
});

test('bytes that are no graph are refused; a file that is gone is no fault of the model', async () => {
  const bytes = tinyModel(2).slice();
  bytes.fill(0xff, 20, 60);
  assert.equal(await codeOf(modelAt(written('bad.onnx', bytes))), 'model-invalid');
  assert.equal(await codeOf(modelAt(join(folder, 'gone.onnx'))), 'model-load-failed');
});

test('inputs that the model does not take are no fault of the model', async () => {
  const report = unwrap(await trial.run({ ...good(), inputs: [floats('x', [7])] }));
  assert.match(report.runFailure ?? '', /dimensions/);
});

test('a model that never returns is ended', async () => {
  assert.deepEqual(await outcomeOf(endless(3_000)), [
    'model-trial-timeout',
    'it was not done within 3000 ms; it ran on zeros then',
  ]);
});

test('a stop ends the trial under way and those that wait', async () => {
  const stopped = createModelTrial(systemClock, { workFolder });
  const asked = [stopped.run(endless(60_000)), stopped.run(good())];
  stopped.stop();
  const codes = (await Promise.all(asked)).map((outcome) => (outcome.ok ? 'passed' : outcome.refusal.code));
  assert.deepEqual(codes, ['interrupted', 'interrupted']);
});

test('memory that only a run takes: by and by, or all at once', async () => {
  const [code, detail] = await outcomeOf(greedy('greedy.onnx', 400_000_000n));
  assert.equal(code, 'model-trial-memory');
  assert.match(detail ?? '', /ran on zeros; this test allows 700 MiB/);
  // More than any machine has: the runtime says so itself.
  assert.equal(await codeOf(greedy('boundless.onnx', 2n ** 50n)), 'model-trial-memory');
  assert.equal(await codeOf(greedy('modest.onnx', 1_000n)), 'passed');
});

test('a model that aborts its process, and one that eats memory', { skip: dataMissing }, async () => {
  const abort = dataFolder('negative', 'aborts-process_test_cast_FLOAT_to_INT4.onnx');
  const aborting = modelAt(abort, { inputs: [floats('input', [5, 5])], outputs: ['output'] });
  const [code, detail] = await outcomeOf(aborting);
  assert.equal(code, 'model-trial-crashed');
  assert.match(detail ?? '', /SIGABRT|134/);
  const vgg = modelAt(dataFolder('negative', 'ram-blowup_light_vgg19.onnx'), { memory: memory(300) });
  assert.equal(await codeOf(vgg), 'model-trial-memory');
  assert.equal(
    await codeOf(modelAt(dataFolder('negative', 'missing-external-data_silero_op18_ifless.onnx'))),
    'model-invalid',
  );
});

test('a machine without the runtime has not tried', async () => {
  const without = instead('without', `writeSync(3, '{"kind":"no-runtime","detail":"no such package"}\\n');`);
  assert.equal(unwrap(await without.run(good())).untried, 'no ONNX Runtime here: no such package');
});

test('a process that says anything else is not believed', async () => {
  const lines = ['"a":1}', '{"kind":"ran"}', '{"kind":"ran","runFailure":null,"peakBytes":-1}', '{}'];
  for (const line of lines) {
    const liar = instead('liar', `writeSync(3, ${JSON.stringify(`${line}\n`)}); setInterval(() => 0, 1e6);`);
    assert.equal(await codeOf(good(), liar), 'model-trial-crashed', line);
  }
  const talker = instead('talker', `for (;;) writeSync(3, '{"kind":"loaded"}\\n');`);
  assert.equal(await codeOf(good(), talker), 'model-trial-crashed');
  const silent = instead('silent', '');
  assert.deepEqual(await outcomeOf(good(), silent), [
    'model-trial-crashed',
    'its process ended (exit 0) while it was loaded',
  ]);
});

test('the process sees nothing of our environment, and is in a group of its own', async () => {
  process.env['LEPTON_TRIAL_SECRET'] = 'a token';
  const spy = instead(
    'spy',
    `const detail = JSON.stringify(Object.keys(process.env));
     writeSync(3, JSON.stringify({ kind: 'refused', code: 'model-invalid', detail }) + '\\n');`,
  );
  const [, detail] = await outcomeOf(good(), spy);
  delete process.env['LEPTON_TRIAL_SECRET'];
  const names = JSON.parse(detail ?? '[]') as string[];
  assert.ok(names.includes('ORT_DISABLE_TELEMETRY'), detail);
  // What a shell sets by itself.
  const allowed = ['MALLOC_ARENA_MAX', 'UV_THREADPOOL_SIZE', 'ORT_DISABLE_TELEMETRY', 'LD_LIBRARY_PATH'];
  const others = names.filter(
    (name) => !allowed.includes(name) && !['PWD', 'SHLVL', 'OLDPWD', '_'].includes(name),
  );
  assert.deepEqual(others, []);
});
