// Why: the product's first promise, with the real programs: a real model is pushed, signed, delivered
// over MQTT and answers on the device what others computed for it.
// Trusts: the expected values in the data folder. Must never: compare with anything this code computed.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { modelCase, readWav, speechStream, suiteCases } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import {
  checkCase,
  infer,
  makeClaim,
  pushModel,
  rollOut,
  showDevice,
  writeGoldenFolder,
  writeOverrides,
} from '../support/fleet.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  type Workplace,
  workplace,
} from '../support/processes.ts';

function tensorOf(outputs: Tensor[], name: string): Float32Array {
  const data = outputs.find((output) => output.name === name)?.data;
  assert.ok(data instanceof Float32Array, `no FP32 output ${name}`);
  return data;
}

describe('real models through the whole chain', { skip: dataMissing }, () => {
  let place: Workplace;
  let registry: TestRegistry;
  let agent: TestAgent;

  before(async () => {
    place = workplace('models');
    registry = await startTestRegistry(place);
    agent = await startTestAgent(place, await makeClaim(place, registry));
  });
  after(async () => place.close());

  test('silero v5: 1,875 windows with state carried by the client', async () => {
    const golden = writeGoldenFolder(place, modelCase('silero-vad/one-step-v5'));
    await pushModel(registry, dataFolder('models/silero-vad/silero-v5.onnx'), 'acme/silero-vad@5.0.0', [
      '--golden',
      golden,
    ]);
    const status = await rollOut(place, registry, 'acme/silero-vad@5.0.0');
    assert.equal(status.state, 'succeeded');
    assert.deepEqual(
      status.devices.map(({ id, state, release }) => ({ id, state, release })),
      [{ id: agent.id, state: 'committed', release: 'acme/silero-vad@5.0.0' }],
    );

    const stream = speechStream('v5');
    const samples = readWav(dataFolder('inputs/test.wav'));
    const { windowSamples, contextSamples } = stream;
    let state: Float32Array = new Float32Array(2 * 128);
    const probabilities: number[] = [];
    for (let window = 0; window < stream.probabilities.length; window += 1) {
      // Each window is prefixed with the last samples of the one before, zeros first.
      const input = new Float32Array(contextSamples + windowSamples);
      const start = window * windowSamples;
      const from = Math.max(0, start - contextSamples);
      input.set(samples.subarray(from, start + windowSamples), contextSamples - (start - from));
      const { outputs } = await infer(agent.http, 'silero-vad', [
        { name: 'input', datatype: 'FP32', shape: [1, input.length], data: input },
        { name: 'state', datatype: 'FP32', shape: [2, 1, 128], data: state },
        { name: 'sr', datatype: 'INT64', shape: [], data: BigInt64Array.of(BigInt(stream.sampleRateHz)) },
      ]);
      state = tensorOf(outputs, 'stateN');
      probabilities.push(tensorOf(outputs, 'output')[0] ?? Number.NaN);
    }
    assert.equal(probabilities.length, 1_875);
    const worst = Math.max(
      ...probabilities.map((p, index) => Math.abs(p - (stream.probabilities[index] ?? 2))),
    );
    assert.ok(worst <= stream.toleranceAbsolute, `largest difference ${worst}`);
    assert.equal(probabilities.filter((p) => p > 0.5).length, 1_457);
  });

  const delivered = [
    { release: 'acme/mnist@1.0.0', case: 'mnist/digit4-opset8' },
    { release: 'acme/ultraface@1.0.0', case: 'ultraface-rfb320/face' },
    { release: 'acme/yolox@2.0.0', case: 'yolox-nano/coco139-r2' },
    {
      release: 'acme/titanic@1.0.0',
      case: 'sklearn/titanic',
      manifest: { excludeOutputs: ['output_probability'] },
    },
  ];
  for (const one of delivered) {
    test(`${one.case} as ${one.release}`, async () => {
      const model = modelCase(one.case);
      const extra = ['--golden', writeGoldenFolder(place, model)];
      if (one.manifest !== undefined) extra.push('--manifest', writeOverrides(place, one.manifest));
      await pushModel(registry, model.modelPath, one.release, extra);
      assert.equal((await rollOut(place, registry, one.release)).state, 'succeeded');
      await checkCase(agent.http, one.release.replace(/^acme\/|@.*/g, ''), model);
    });
  }

  test('one of the upstream scikit-learn models, every row', async () => {
    const cases = suiteCases().filter((one) => one.name.startsWith('SklearnLogitisticRegressionMulti'));
    const [first] = cases;
    assert.ok(first);
    const exclude = writeOverrides(place, { excludeOutputs: ['probabilities'] });
    await pushModel(registry, first.modelPath, 'acme/logreg@1.0.0', [
      ...['--golden', writeGoldenFolder(place, first), '--manifest', exclude],
    ]);
    assert.equal((await rollOut(place, registry, 'acme/logreg@1.0.0')).state, 'succeeded');
    for (const one of cases) await checkCase(agent.http, 'logreg', one);
  });

  test('afterwards: every model serves, the device says so, and each release verifies from its root', async () => {
    const device = await showDevice(registry, agent.id);
    assert.deepEqual(
      device.models.map(({ name, state, active, lastGood }) => ({ name, state, same: active === lastGood })),
      ['logreg', 'mnist', 'silero-vad', 'titanic', 'ultraface', 'yolox'].map((name) => ({
        name,
        state: 'committed',
        same: true,
      })),
    );
    const verified = await registry.lepton(['models', 'verify', 'acme/yolox@2.0.0', '--json']);
    assert.equal((verified.json() as { verified: boolean }).verified, true);
    await registry.lepton(['models', 'pull', 'acme/yolox@2.0.0', '--out', place.path('pulled'), '--json']);
    assert.ok(readdirSync(place.path('pulled')).includes('yolox_nano-r2.onnx'));
  });
});
