// Why: the demo's releases must be what the story says: good, better, and wrong under the better one's cases.
// Trusts: ONNX Runtime for the answers. Must never: judge a model by the code that wrote it alone.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import * as ort from 'onnxruntime-node';
import {
  accuracyOf,
  classifierModel,
  classify,
  fitClassifier,
  sampleWindows,
} from '../../firmware-sim/demo/classifier.ts';
import { type DemoRelease, demoReleases } from '../../firmware-sim/demo/releases.ts';
import { channels, regimes, windowSamples } from '../../firmware-sim/sensors/machine.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { compareGolden, parseGolden } from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

async function runModel(model: Uint8Array, samples: Float32Array, windows = 1): Promise<Tensor[]> {
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 4 });
  const shape = [windows, windowSamples, channels.length];
  const ran = await session.run({ values: new ort.Tensor('float32', samples, shape) });
  await session.release();
  const { probabilities, label: regime } = ran;
  assert.ok(probabilities !== undefined && regime !== undefined);
  return [
    {
      name: 'probabilities',
      datatype: 'FP32',
      shape: [...probabilities.dims],
      data: probabilities.data as Float32Array,
    },
    { name: 'label', datatype: 'INT64', shape: [...regime.dims], data: regime.data as BigInt64Array },
  ];
}

let releases: DemoRelease[] = [];
before(async () => {
  releases = await demoReleases();
});

const versions = ['1.0.0', '2.0.0', '3.0.0'] as const;
function release(version: (typeof versions)[number]): DemoRelease {
  const found = releases.find((one) => one.version === version);
  assert.ok(found);
  return found;
}

/** Golden cases of the release that its own model fails. */
async function goldenFailures(one: DemoRelease): Promise<string[]> {
  const cases = unwrap(parseGolden(one.golden, () => null));
  assert.ok(cases.length >= 6);
  const failures: string[] = [];
  for (const { inputs, expected, rtol, atol } of cases) {
    const outputs = await runModel(one.model, inputs[0]?.data as Float32Array);
    const { firstFailure } = compareGolden(expected, outputs, rtol, atol);
    if (firstFailure !== null) failures.push(firstFailure);
  }
  return failures;
}

test('the graph computes in the runtime what the fit computed here, one window or many', async () => {
  const training = sampleWindows(150, 1);
  const windows = sampleWindows(20, 70_000);
  for (const set of ['levels', 'shape'] as const) {
    const classifier = await fitClassifier(training, set);
    const samples = Float32Array.from(windows.flatMap((window) => [...window.samples]));
    const [probabilities, regime] = await runModel(classifierModel(classifier), samples, windows.length);
    assert.deepEqual([probabilities?.shape, regime?.shape], [[20, regimes.length], [20]]);
    const expected = windows.flatMap((window) => classify(classifier, window.samples));
    const found = probabilities?.data as Float32Array;
    for (const [at, value] of expected.entries())
      assert.ok(Math.abs((found[at] ?? Number.NaN) - value) < 5e-4, `${set} ${at}: ${found[at]} ${value}`);
  }
});

test('the same code fits the same model', async () => {
  const again = await demoReleases();
  for (const [at, one] of releases.entries()) assert.deepEqual(again[at], one);
});

test('release 2 is better than release 1, and 3 worse than chance would be', async () => {
  const [good, better, wrong] = versions.map((version) => release(version).accuracy);
  assert.ok(good !== undefined && better !== undefined && wrong !== undefined);
  assert.ok(good > 0.55 && better > good + 0.15 && better > 0.85, `${good} ${better}`);
  assert.ok(wrong < 0.4, `${wrong}`);
  const training = sampleWindows(150, 1);
  const classifier = await fitClassifier(training, 'shape');
  assert.ok(accuracyOf(classifier, sampleWindows(200, 70_000)) > 0.8, 'it generalises');
});

test('all three have one signature and are admitted: the fault of the third is silent', () => {
  const [first, ...others] = releases.map(({ model }) =>
    unwrap(
      admitModel(model, {
        excludeOutputs: [],
        externalFiles: new Map(),
        opsetMax: opsetMaxDefault,
        memoryBounds: [],
      }),
    ),
  );
  for (const other of others)
    assert.deepEqual([other.inputs, other.outputs], [first?.inputs, first?.outputs]);
  assert.equal(release('2.0.0').model.length, release('3.0.0').model.length);
});

test('1 and 2 pass their golden cases, 3 fails those of 2', async () => {
  assert.deepEqual(await goldenFailures(release('1.0.0')), []);
  assert.deepEqual(await goldenFailures(release('2.0.0')), []);
  assert.deepEqual(release('3.0.0').golden, release('2.0.0').golden);
  assert.ok((await goldenFailures(release('3.0.0'))).length >= 4);
});
