// Why: what real models do not show: every datatype through the child, external data, warm-up that fails,
// a child that hangs, a full queue. Needs no data folder.
// Trusts: test/onnx/models.ts to write what it is told. Must never: end a process that the host did not start.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { InferenceHost } from '../../agent/inference/host.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';
import { modelFile } from '../onnx/models.ts';
import { openStage, type StagedFile } from './staging.ts';

const model = (bytes: Uint8Array): StagedFile[] => [{ path: 'model.onnx', role: 'model', bytes }];
const floatInput = (values: number[]): Tensor => ({
  name: 'x',
  datatype: 'FP32',
  shape: [1, values.length],
  data: Float32Array.from(values),
});

/** TensorProto.DataType and two values at the edges of each. */
const samples: Record<Datatype, { elemType: number; data: TensorData }> = {
  BOOL: { elemType: 9, data: Uint8Array.of(0, 1) },
  INT8: { elemType: 3, data: Int8Array.of(-128, 127) },
  INT16: { elemType: 5, data: Int16Array.of(-32_768, 32_767) },
  INT32: { elemType: 6, data: Int32Array.of(-(2 ** 31), 2 ** 31 - 1) },
  INT64: { elemType: 7, data: BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n) },
  UINT8: { elemType: 2, data: Uint8Array.of(0, 255) },
  UINT16: { elemType: 4, data: Uint16Array.of(0, 65_535) },
  UINT32: { elemType: 12, data: Uint32Array.of(0, 2 ** 32 - 1) },
  UINT64: { elemType: 13, data: BigUint64Array.of(0n, 2n ** 64n - 1n) },
  FP16: { elemType: 10, data: Uint16Array.of(0x3c00, 0x7bff) },
  FP32: { elemType: 1, data: Float32Array.of(-0, 3.4e38) },
  FP64: { elemType: 11, data: Float64Array.of(5e-324, Number.NaN) },
  BYTES: { elemType: 8, data: ['', 'žluťoučký 🐴 "\\\n'] },
};

async function codeOf(asked: ReturnType<InferenceHost['infer']>): Promise<string> {
  const outcome = await asked;
  return outcome.ok ? 'answered' : outcome.refusal.code;
}

describe('inference host on made models', () => {
  test('every datatype goes to the child and back without a change', async () => {
    const stage = openStage();
    after(() => stage.close());
    for (const [datatype, { elemType, data }] of Object.entries(samples) as [
      Datatype,
      (typeof samples)[Datatype],
    ][]) {
      const shape = [2];
      const bytes = modelFile({
        inputs: [{ name: 'x', elemType, shape: ['n'] }],
        outputs: [{ name: 'y', elemType, shape: ['n'] }],
      });
      const as = datatype.toLowerCase();
      const release = await stage.serve(as, model(bytes));
      const answer = unwrap(
        await stage.host.infer(as, null, { inputs: [{ name: 'x', datatype, shape, data }] }),
      );
      assert.deepEqual(answer.outputs, [{ name: 'y', datatype, shape, data }], datatype);
      const empty = data.slice(0, 0);
      const none = unwrap(
        await stage.host.infer(as, null, { inputs: [{ name: 'x', datatype, shape: [0], data: empty }] }),
      );
      assert.deepEqual(
        none.outputs,
        [{ name: 'y', datatype, shape: [0], data: empty }],
        `${datatype}, no elements`,
      );
      await stage.host.deactivate(as);
      await stage.host.unload(as, release.manifestSha256);
    }
  });

  test('external data stands beside its model under the path the model names, and is gone afterwards', async () => {
    const stage = openStage();
    after(() => stage.close());
    const weights = Buffer.alloc(8);
    weights.writeFloatLE(2, 0);
    weights.writeFloatLE(-3, 4);
    const bytes = modelFile({
      inputs: [{ name: 'x', elemType: 1, shape: [1, 2] }],
      outputs: [{ name: 'y', elemType: 1, shape: [1, 2] }],
      nodes: [{ opType: 'Mul', inputs: ['x', 'w'] }],
      initializers: [
        { name: 'w', dataType: 1, dims: [1, 2], external: { location: 'parts/w.bin', length: '8' } },
      ],
    });
    await stage.serve('external', [
      { path: 'net/model.onnx', role: 'model', bytes },
      { path: 'net/parts/w.bin', role: 'external-data', bytes: weights },
    ]);
    const answer = unwrap(await stage.host.infer('external', null, { inputs: [floatInput([10, 10])] }));
    assert.deepEqual(answer.outputs[0]?.data, Float32Array.of(20, -30));
    const work = join(stage.folder, 'work');
    assert.deepEqual(existsSync(work) ? readdirSync(work) : [], []);
  });

  test('a graph that the runtime does not take is refused with its reason, and nothing stays behind', async () => {
    const stage = openStage();
    after(() => stage.close());
    // Passes admission (its domain is built in), but there is no such operator.
    const outcome = await stage.host.load(
      stage.stage('broken', model(modelFile({ nodes: [{ opType: 'NoSuchThing' }] }))),
    );
    assert.ok(!outcome.ok);
    assert.equal(outcome.refusal.code, 'model-invalid');
    assert.match(outcome.refusal.detail, /NoSuchThing/);
    assert.deepEqual(stage.host.models(), []);
    const release = stage.stage('gone', model(modelFile()));
    const lost = await stage.host.load({ ...release, manifestSha256: '0'.repeat(64) });
    assert.equal(lost.ok ? '' : lost.refusal.code, 'model-load-failed');
  });

  test('a child that hangs is ended at its deadline: 504 for the one, an answer for those that follow', async () => {
    const stage = openStage({ deadlineMs: 700 });
    after(() => stage.close());
    await stage.serve('slow', model(modelFile()));
    const pid = stage.host.models()[0]?.pid;
    assert.ok(pid);
    process.kill(pid, 'SIGSTOP');
    assert.equal(
      await codeOf(stage.host.infer('slow', null, { inputs: [floatInput([1])] })),
      'infer-deadline',
    );
    assert.equal(await codeOf(stage.host.infer('slow', null, { inputs: [floatInput([1])] })), 'answered');
    assert.notEqual(stage.host.models()[0]?.pid, pid);
    const health = unwrap(await stage.host.healthy('slow'));
    assert.deepEqual([health.requests, health.errors], [2, 1]);
  });

  test('a full queue refuses, and does not wait', async () => {
    const stage = openStage({ deadlineMs: 1_500, queueMax: 3 });
    after(() => stage.close());
    await stage.serve('busy', model(modelFile()));
    const pid = stage.host.models()[0]?.pid;
    assert.ok(pid);
    process.kill(pid, 'SIGSTOP');
    const asked = Array.from({ length: 6 }, () =>
      codeOf(stage.host.infer('busy', null, { inputs: [floatInput([1])] })),
    );
    assert.equal(await Promise.race(asked), 'infer-queue-full');
    process.kill(pid, 'SIGCONT');
    assert.deepEqual((await Promise.all(asked)).sort(), [
      'answered',
      'answered',
      'answered',
      'answered',
      'infer-queue-full',
      'infer-queue-full',
    ]);
  });

  test('what the runtime refuses in mid-run is an error of the request, and the child goes on', async () => {
    const stage = openStage();
    after(() => stage.close());
    const bytes = modelFile({
      inputs: [
        { name: 'x', elemType: 1, shape: ['n'] },
        { name: 'i', elemType: 7, shape: ['m'] },
      ],
      outputs: [{ name: 'y', elemType: 1, shape: ['m'] }],
      nodes: [{ opType: 'Gather', inputs: ['x', 'i'] }],
    });
    await stage.serve('gather', model(bytes));
    const ask = (index: bigint) =>
      stage.host.infer('gather', null, {
        inputs: [
          { name: 'x', datatype: 'FP32', shape: [2], data: Float32Array.of(5, 6) },
          { name: 'i', datatype: 'INT64', shape: [1], data: BigInt64Array.of(index) },
        ],
      });
    const pid = stage.host.models()[0]?.pid;
    assert.equal(await codeOf(ask(7n)), 'infer-failed');
    assert.deepEqual(unwrap(await ask(1n)).outputs[0]?.data, Float32Array.of(6));
    assert.equal(stage.host.models()[0]?.pid, pid);
  });

  test('unloading while it loads ends the load', async () => {
    const stage = openStage();
    after(() => stage.close());
    const release = stage.stage('hasty', model(modelFile()));
    const loading = stage.host.load(release);
    await stage.host.unload('hasty', release.manifestSha256);
    const outcome = await loading;
    assert.equal(outcome.ok ? 'loaded' : outcome.refusal.code, 'update-superseded');
    assert.equal((await stage.host.load(release)).ok, true, 'and it can be loaded again');
  });
});
