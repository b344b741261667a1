// Why: the agent's own count of requests is what others compare theirs with: it outlives a switch of releases.
// Trusts: staging.ts. Must never: count a probe as a request.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { writeModel } from '../../shared/onnx/writer.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { openStage, type StagedFile } from './staging.ts';

function scaling(factor: number): StagedFile[] {
  const bytes = writeModel({
    name: 'scale',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [1] }],
    nodes: [{ operator: 'Mul', inputs: ['x', 'k'], outputs: ['y'] }],
    initializers: [{ name: 'k', datatype: 'FP32', shape: [1], data: Float32Array.of(factor) }],
  });
  return [{ path: 'model.onnx', role: 'model', bytes }];
}

const input = (name: string): Tensor => ({ name, datatype: 'FP32', shape: [1], data: Float32Array.of(3) });

test('requests are counted over all releases, answered and failed apart', async () => {
  const stage = openStage();
  const { host } = stage;
  try {
    assert.deepEqual(host.requests(), { answered: 0, failed: 0 });
    assert.equal((await host.infer('scale', null, { inputs: [input('x')] })).ok, false);
    const first = await stage.serve('scale', scaling(2));
    await host.probe(first);
    for (let times = 0; times < 3; times += 1) {
      const answer = unwrap(await host.infer('scale', null, { inputs: [input('x')] }));
      assert.deepEqual([...(answer.outputs[0]?.data ?? [])], [6]);
    }
    assert.equal((await host.infer('scale', null, { inputs: [input('z')] })).ok, false);
    await stage.serve('scale', scaling(5));
    await host.unload('scale', first.manifestSha256);
    const answer = unwrap(await host.infer('scale', null, { inputs: [input('x')] }));
    assert.deepEqual([...(answer.outputs[0]?.data ?? [])], [15]);
    assert.deepEqual(host.requests(), { answered: 4, failed: 2 });
  } finally {
    await stage.close();
  }
});
