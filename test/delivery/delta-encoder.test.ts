// Why: holds the promise that encoding happens in a process that may end, hang or lie without harm to the registry.
// Trusts: the kernel for processes. Must never: leave a process behind.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { createDeltaEncoder, type DeltaEncoderOptions } from '../../shared/host/delta-encoder.ts';
import { systemZstd } from '../../shared/host/zstd.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { applyDelta } from '../../shared/onnx/delta/apply.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { temporaryFolder } from '../registry-core/support.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const fileOf = (path: string) => ({ name: path, path, sha256: sha256Hex(readFileSync(path)) });

function opened(t: TestContext, child: string | null, more: Partial<DeltaEncoderOptions> = {}) {
  const folder = temporaryFolder(t);
  const workFolder = join(folder, 'work');
  const program = join(folder, 'child.mjs');
  if (child !== null) writeFileSync(program, child);
  const entry = child === null ? {} : { entry: pathToFileURL(program) };
  const encoder = createDeltaEncoder(systemClock, { workFolder, ...entry, ...more });
  t.after(() => encoder.stop());
  const target = join(folder, 'target');
  writeFileSync(target, 'a file');
  return { encoder, workFolder, job: { bases: [], beside: [], target: fileOf(target), bytesMax: 100_000 } };
}

const codeOf = (result: { ok: boolean; refusal?: { code: string } }): string => result.refusal?.code ?? 'ok';

test('an int8 model is made from the fp32 one it came from', { skip: dataMissing }, async (t) => {
  const { encoder, workFolder } = opened(t, null);
  const base = dataFolder('models/yolox-nano/yolox_nano-r2.onnx');
  const target = dataFolder('models/derived-int8/yolox_nano-r2-int8qdq.onnx');
  const job = { bases: [fileOf(base)], beside: [], target: fileOf(target), bytesMax: 100_000 };
  const patch = unwrap(await encoder.encode(job));
  assert.ok(patch !== null && patch.length < 20_000);
  const bytes = new Uint8Array(readFileSync(target));
  const limits = { targetBytesMax: bytes.length, memoryBytesMax: Number.MAX_SAFE_INTEGER };
  const made = unwrap(
    applyDelta({ patch, bases: [new Uint8Array(readFileSync(base))], zstd: systemZstd, limits }),
  );
  assert.equal(Buffer.compare(made, bytes), 0);
  assert.equal(unwrap(await encoder.encode({ ...job, bytesMax: 100 })), null, 'no smaller than that');
  const rotten = { ...job.target, sha256: '0'.repeat(64) };
  assert.equal(codeOf(await encoder.encode({ ...job, target: rotten })), 'delta-encode-failed');
  assert.deepEqual(readdirSync(workFolder), []);
});

test('in external data tensors are found by the models that it belongs to', async (t) => {
  const { encoder, workFolder, job } = opened(t, null);
  const folder = join(workFolder, '..');
  const entry = (key: string, value: string) => new ProtobufWriter().string(1, key).string(2, value);
  const model = (name: string) => {
    const count = 20_000;
    const weights = Float32Array.from({ length: count }, (_, at) => Math.sin(at * at) / (at + 1));
    if (name === 'new') for (let at = 0; at < count; at += 1) weights[at] = (weights[at] ?? 0) * 1.0001;
    const tensor = new ProtobufWriter()
      .int(1, count)
      .int(2, 1)
      .string(8, 'w')
      .message(13, entry('location', 'w.bin'))
      .message(13, entry('length', String(count * 4)))
      .int(14, 1);
    const graph = new ProtobufWriter().int(1, 8).message(7, new ProtobufWriter().message(5, tensor));
    const [graphPath, dataPath] = [join(folder, `${name}.onnx`), join(folder, `${name}.bin`)];
    writeFileSync(graphPath, graph.finish());
    writeFileSync(dataPath, new Uint8Array(weights.buffer));
    return {
      graph: { ...fileOf(graphPath), name: 'model.onnx' },
      data: { ...fileOf(dataPath), name: 'w.bin' },
    };
  };
  const [from, to] = [model('old'), model('new')];
  const data = { ...job, target: to.data };
  const blind = unwrap(await encoder.encode({ ...data, bases: [from.data] }));
  const seeing = unwrap(
    await encoder.encode({ ...data, bases: [from.data, from.graph], beside: [to.graph] }),
  );
  assert.ok(blind !== null && seeing !== null);
  assert.ok(seeing.length < 0.7 * blind.length, `${seeing.length} of ${blind.length} bytes`);
});

test('a process that ends, lies, hangs or eats memory is a failed encoding', async (t) => {
  const say = (line: string) =>
    `import { writeSync } from 'node:fs'; writeSync(3, ${JSON.stringify(`${line}\n`)});`;
  for (const child of [
    'process.abort()',
    say('not JSON'),
    say('{"kind":"made","bytes":5000000}'),
    say('{"kind":"other"}'),
  ]) {
    const { encoder, job, workFolder } = opened(t, child);
    const outcome = await encoder.encode(job).catch((thrown: { code: string }) => thrown);
    assert.ok(
      'ok' in outcome ? codeOf(outcome) === 'delta-encode-failed' : outcome.code !== undefined,
      child,
    );
    assert.deepEqual(readdirSync(workFolder), []);
  }
  const hanging = opened(t, 'setInterval(() => 0, 1000)', { timeoutMs: 200 });
  assert.equal(codeOf(await hanging.encoder.encode(hanging.job)), 'delta-encode-failed');
  const eating = opened(t, 'const all = []; setInterval(() => all.push(Buffer.alloc(2 ** 24, 1)), 1)', {
    memoryBytesMax: 128 * 2 ** 20,
  });
  assert.equal(codeOf(await eating.encoder.encode(eating.job)), 'delta-encode-failed');
});

test('a stop ends what is under way, and what waits', async (t) => {
  const { encoder, job } = opened(t, 'setInterval(() => 0, 1000)');
  const both = [encoder.encode(job), encoder.encode(job)];
  encoder.stop();
  for (const outcome of await Promise.all(both)) assert.equal(codeOf(outcome), 'interrupted');
});
