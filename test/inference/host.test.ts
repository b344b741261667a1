// Why: the inference host on real models in real child processes: right answers, and its failures.
// Trusts: the data folder. Must never: end a process that the host under test did not start.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { startModelProcess } from '../../agent/inference/process.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { compareGolden, writeGolden } from '../../shared/wire/golden.ts';
import { asGolden, goldenFile, modelCase } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { openStage, type Stage } from './staging.ts';

const negative = (name: string): string => dataFolder('negative', name);

/** Waits for a condition that another process brings about. */
async function until(what: string, condition: () => boolean): Promise<void> {
  const endMs = systemClock.mono() + 20_000;
  while (!condition()) {
    assert.ok(systemClock.mono() < endMs, `never: ${what}`);
    await systemClock.timer(5).done;
  }
}

describe('inference host', { skip: dataMissing }, () => {
  let stage: Stage;
  before(() => {
    stage = openStage();
  });
  after(() => stage.close());

  const refusalOf = async (model: string, manifest: object = {}): Promise<string> => {
    const outcome = await stage.host.load(stage.stage('refused', model, manifest));
    return outcome.ok ? 'loaded' : outcome.refusal.code;
  };

  test('models that cannot be served are refused before they are loaded', async () => {
    assert.equal(
      await refusalOf(negative('aborts-process_test_cast_FLOAT_to_INT4.onnx')),
      'model-int4-output',
    );
    assert.equal(await refusalOf(negative('lfs-pointer_openwakeword.onnx')), 'model-not-onnx');
    assert.equal(
      await refusalOf(negative('missing-external-data_silero_op18_ifless.onnx')),
      'model-external-data-missing',
    );
    assert.equal(await refusalOf(negative('zipmap-output_rf_iris.onnx')), 'model-output-not-tensor');
  });

  test('a ZipMap output that is excluded does not keep the labels from being served', async () => {
    const release = await stage.serve('iris', negative('zipmap-output_rf_iris.onnx'), {
      excludeOutputs: ['output_probability'],
    });
    const { inputs, expected, rtol, atol } = modelCase('sklearn/rf_iris-150');
    const answer = unwrap(await stage.host.infer('iris', null, { inputs }));
    assert.deepEqual(compareGolden(expected, answer.outputs, rtol, atol), {
      passed: true,
      firstFailure: null,
    });
    assert.equal(answer.releaseId, release.releaseId);
  });

  test('a 4-bit output forced past admission kills its child, not this process', async () => {
    const child = startModelProcess(systemClock);
    const loaded = await child.ask(
      {
        kind: 'load',
        modelPath: negative('aborts-process_test_cast_FLOAT_to_INT4.onnx'),
        external: null,
        threads: 1,
        providers: ['cpu'],
      },
      [],
      20_000,
    );
    assert.ok(loaded.ok);
    const data = new Float32Array(25);
    const outcome = await child.ask(
      { kind: 'run', outputs: ['output'] },
      [{ name: 'input', datatype: 'FP32', shape: [5, 5], data }],
      20_000,
    );
    assert.equal(outcome.ok ? 'answered' : outcome.refusal.code, 'model-crashed');
    assert.match((await child.exited).reason, /SIGABRT|134/);
  });

  test('a small file that needs a gigabyte: its child shows it, this process does not', async () => {
    const before = process.memoryUsage.rss();
    const release = stage.stage('greedy', negative('ram-blowup_light_vgg19.onnx'));
    const probed = await stage.host.probe(release);
    const grown = process.memoryUsage.rss() - before;
    assert.ok(grown < 150e6, `grew by ${grown} bytes`);
    assert.ok(
      !probed.ok || probed.value.memoryBytesPeak > 500e6,
      'either it is refused or its hunger is evidence',
    );
    await stage.host.unload('greedy', release.manifestSha256);
  });

  test('a child ends when the process that started it is killed', async () => {
    const entry = new URL('../../agent/inference/process.js', import.meta.url);
    const clock = new URL('../../shared/host/clock.js', import.meta.url);
    const script = `
      const { startModelProcess } = await import(${JSON.stringify(entry.href)});
      const { systemClock } = await import(${JSON.stringify(clock.href)});
      const child = startModelProcess(systemClock);
      await child.ask({ kind: 'memory' }, [], 20_000);
      console.log(child.pid);
    `;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString('utf8'));
    assert.ok(pid > 0);
    const isAlive = (): boolean => {
      try {
        return process.kill(pid, 0);
      } catch (error) {
        assert.ok(error instanceof Error);
        return false;
      }
    };
    assert.equal(isAlive(), true);
    parent.kill('SIGKILL');
    await until('the child saw it', () => !isAlive());
  });

  test('requests that do not fit the signature never reach the runtime', async () => {
    await stage.serve('mnist', modelCase('mnist/digit4-opset8').modelPath);
    const zeros = new Float32Array(784);
    const input = { name: 'Input3', datatype: 'FP32' as const, shape: [1, 1, 28, 28], data: zeros };
    const codeOf = async (call: Parameters<typeof stage.host.infer>[2]): Promise<string> => {
      const outcome = await stage.host.infer('mnist', null, call);
      return outcome.ok ? 'answered' : outcome.refusal.code;
    };
    assert.equal(await codeOf({ inputs: [input] }), 'answered');
    assert.equal(await codeOf({ inputs: [] }), 'infer-invalid');
    assert.equal(await codeOf({ inputs: [input, input] }), 'infer-invalid');
    assert.equal(await codeOf({ inputs: [{ ...input, name: 'nobody' }] }), 'infer-invalid');
    assert.equal(await codeOf({ inputs: [{ ...input, shape: [784] }] }), 'infer-invalid');
    assert.equal(await codeOf({ inputs: [{ ...input, shape: [1, 1, 14, 56] }] }), 'infer-invalid');
    assert.equal(
      await codeOf({ inputs: [{ ...input, datatype: 'FP64', data: new Float64Array(784) }] }),
      'infer-invalid',
    );
    assert.equal(await codeOf({ inputs: [input], outputs: ['nobody'] }), 'infer-invalid');
    const unknown = await stage.host.infer('nobody', null, { inputs: [input] });
    assert.equal(unknown.ok ? '' : unknown.refusal.code, 'infer-unknown-model');
    const otherVersion = await stage.host.infer('mnist', '9.9.9', { inputs: [input] });
    assert.equal(otherVersion.ok ? '' : otherVersion.refusal.code, 'infer-unknown-model');
    const health = unwrap(await stage.host.healthy('mnist'));
    assert.deepEqual(
      [health.requests, health.errors],
      [1, 0],
      'refused requests say nothing about the release',
    );
  });

  test('a killed child: the request under way is answered, the child comes back', async () => {
    const yolox = modelCase('yolox-nano/coco139-r2');
    await stage.serve('yolox', yolox.modelPath);
    const pid = stage.host.models().find(({ as }) => as === 'yolox')?.pid;
    assert.ok(pid);
    const asked = stage.host.infer('yolox', null, { inputs: yolox.inputs });
    process.kill(pid, 'SIGKILL');
    const answer = unwrap(await asked);
    assert.equal(compareGolden(yolox.expected, answer.outputs, yolox.rtol, yolox.atol).passed, true);
    const after = stage.host.models().find(({ as }) => as === 'yolox');
    assert.equal(after?.ready, true);
    assert.notEqual(after?.pid, pid);
    assert.ok(
      stage.events.some(({ event, fields }) => event === 'inference.child.exited' && fields['pid'] === pid),
    );
  });

  test('a child that keeps dying is not restarted in a hurry, and is refused with its reason meanwhile', async () => {
    const mnist = modelCase('mnist/digit4-opset8');
    await stage.serve('fragile', mnist.modelPath);
    const view = () => stage.host.models().find(({ as }) => as === 'fragile');
    for (let death = 0; death < 3; death++) {
      await until('the child is there', () => view()?.ready === true);
      const pid = view()?.pid;
      assert.ok(pid);
      process.kill(pid, 'SIGKILL');
      await until('the death was seen', () => view()?.pid !== pid);
    }
    assert.equal(view()?.ready, false);
    const refused = await stage.host.infer('fragile', null, { inputs: mnist.inputs });
    assert.equal(refused.ok ? '' : refused.refusal.code, 'model-crash-loop');
    const healthy = await stage.host.healthy('fragile');
    assert.equal(healthy.ok ? '' : healthy.refusal.code, 'model-crash-loop');
    await until('it came back', () => view()?.ready === true);
    assert.equal((await stage.host.infer('fragile', null, { inputs: mnist.inputs })).ok, true);
  });

  test('probe: golden cases pass, a wrong one is named, and the evidence has latency and memory', async () => {
    const mnist = modelCase('mnist/digit4-opset8');
    const model = { path: 'model.onnx', role: 'model' as const, bytes: readFileSync(mnist.modelPath) };
    const good = stage.stage('probed', [
      model,
      { path: 'golden.json', role: 'golden', bytes: goldenFile([mnist]) },
    ]);
    const evidence = unwrap(await stage.host.probe(good));
    assert.deepEqual([evidence.goldenCases, evidence.goldenPassed, evidence.firstFailure], [1, 1, null]);
    assert.ok(evidence.latencyP95Ms >= evidence.latencyP50Ms && evidence.latencyP50Ms > 0);
    assert.ok(
      evidence.memoryBytesPeak > 30e6 && evidence.memoryBytesPeak < 200e6,
      `${evidence.memoryBytesPeak} bytes`,
    );

    const wrong = asGolden(mnist);
    const expected = wrong.expected.map((tensor) => ({
      ...tensor,
      data: Float32Array.from(tensor.data as Float32Array),
    }));
    if (expected[0]) expected[0].data[3] = 1e6;
    const bytes = writeGolden([asGolden(mnist), { ...wrong, expected }]);
    const bad = stage.stage('probed', [model, { path: 'golden.json', role: 'golden', bytes }]);
    const failed = unwrap(await stage.host.probe(bad));
    assert.deepEqual([failed.goldenCases, failed.goldenPassed], [2, 1]);
    assert.match(failed.firstFailure ?? '', /^case 1: .*\[3\]/);
  });

  test('probe: a sequence carries the state that the manifest declares', async () => {
    const step = modelCase('silero-vad/one-step-v5');
    const model = { path: 'model.onnx', role: 'model' as const, bytes: readFileSync(step.modelPath) };
    const stateless = step.inputs.filter(({ name }) => name !== 'state');
    // Two steps: the second's right answer comes from the first's state.
    await stage.serve('vad', [model]);
    const first = unwrap(await stage.host.infer('vad', null, { inputs: step.inputs }));
    const carried = first.outputs.find(({ name }) => name === 'stateN');
    assert.ok(carried);
    const second = unwrap(
      await stage.host.infer('vad', null, { inputs: [...stateless, { ...carried, name: 'state' }] }),
    );
    const output = (answer: typeof first) => answer.outputs.filter(({ name }) => name === 'output');
    assert.notDeepEqual(output(second)[0]?.data, output(first)[0]?.data);
    const cases = [first, second].map((answer) => ({
      inputs: stateless,
      expected: output(answer),
      rtol: 0,
      atol: 1e-5,
      sequence: 'one',
    }));
    const files = [model, { path: 'golden.json', role: 'golden' as const, bytes: writeGolden(cases) }];
    const declared = stage.stage('vad', files, { state: [{ output: 'stateN', input: 'state' }] });
    const evidence = unwrap(await stage.host.probe(declared));
    assert.deepEqual([evidence.goldenPassed, evidence.firstFailure], [2, null]);
    const forgotten = unwrap(await stage.host.probe(stage.stage('vad', files)));
    assert.equal(forgotten.goldenPassed, 0, 'without the declaration the state input is missing');
  });

  test('activate moves requests to the new release and drains the old; unload never ends what serves', async () => {
    const [seven, eight] = [modelCase('mnist/digit4-opset7'), modelCase('mnist/digit4-opset8')];
    const old = await stage.serve('switched', seven.modelPath);
    const next = stage.stage('switched', eight.modelPath);
    unwrap(await stage.host.load(next));
    const before = Array.from({ length: 20 }, () =>
      stage.host.infer('switched', null, { inputs: seven.inputs }),
    );
    let drained = 0;
    for (const asked of before) void asked.then(() => drained++);
    const switched = stage.host.activate('switched', next.manifestSha256);
    const later = stage.host.infer('switched', null, { inputs: eight.inputs });
    unwrap(await switched);
    assert.equal(drained, 20, 'the old release had answered everybody when the switch was done');
    for (const asked of before) assert.equal(unwrap(await asked).releaseId, old.releaseId);
    assert.equal(unwrap(await later).releaseId, next.releaseId);
    await stage.host.unload('switched', next.manifestSha256);
    assert.equal((await stage.host.infer('switched', null, { inputs: eight.inputs })).ok, true);
    unwrap(await stage.host.activate('switched', old.manifestSha256));
    await stage.host.unload('switched', next.manifestSha256);
    assert.equal(
      unwrap(await stage.host.infer('switched', null, { inputs: eight.inputs })).releaseId,
      old.releaseId,
    );
    await stage.host.deactivate('switched');
    await stage.host.deactivate('switched');
    const gone = await stage.host.infer('switched', null, { inputs: eight.inputs });
    assert.equal(gone.ok ? '' : gone.refusal.code, 'infer-unknown-model');
    const absent = await stage.host.activate('switched', next.manifestSha256);
    assert.equal(absent.ok ? '' : absent.refusal.code, 'infer-not-ready');
  });
});
