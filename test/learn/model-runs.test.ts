// Why: any model can be asked from a program that must not end with it: answers are those of others, every datatype
// passes as it is, what crashes, hangs or eats memory is a refusal, and no process is left.
// Trusts: the data folder's expected values, made.ts for models that misbehave. Must never: depend on this machine's speed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { systemClock } from '../../shared/host/clock.ts';
import { type ModelRuns, type ModelRunsParts, openModelRuns } from '../../shared/host/model-runs.ts';
import { createTensorFrameReader, encodeTensorFrame } from '../../shared/host/tensor-frames.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { writeModel } from '../../shared/onnx/writer.ts';
import { compareGolden } from '../../shared/wire/golden.ts';
import { type Datatype, datatypes } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';
import { dies, forever, grows, loops, noTrap, times, whole } from '../inference/made.ts';
import type { StagedFile } from '../inference/staging.ts';
import { modelFile } from '../onnx/models.ts';
import { modelCases } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const folder = mkdtempSync(join(tmpdir(), 'lepton-runs-test-'));
after(() => rmSync(folder, { recursive: true }));
const MiB = 1024 * 1024;
const clock = systemClock;

const written = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const made = (name: string, files: StagedFile[]): string =>
  written(`${name}.onnx`, files[0]?.bytes ?? new Uint8Array());
const open = async (modelPath: string, more: Partial<ModelRunsParts> = {}): Promise<ModelRuns> =>
  unwrap(await openModelRuns({ modelPath, clock, ...more }));
const codeOf = (result: Result<unknown>): string => (result.ok ? 'answered' : result.refusal.code);

/** Processes of ours in which a model is asked; those that ended and were not waited for included. */
function children(parent = process.pid): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      return ppid === parent ? [Number(name)] : [];
    } catch (error) {
      // It ended in between.
      if (error instanceof Error && 'code' in error) return [];
      throw error;
    }
  });
}
const noProc = process.platform === 'linux' ? false : 'there is no /proc here';

test('answers of real models are those that others computed', { skip: dataMissing }, async () => {
  const wanted = ['mnist/', 'sklearn/titanic', 'sklearn/rf_iris', 'sklearn/pipeline_xgboost'];
  const cases = modelCases().filter(({ name }) => wanted.some((one) => name.startsWith(one)));
  assert.ok(cases.length >= 5, cases.map(({ name }) => name).join());
  for (const one of cases) {
    const runs = await open(one.modelPath);
    const outputs = unwrap(await runs.run(one.inputs, one.fetch));
    assert.equal(compareGolden(one.expected, outputs, one.rtol, one.atol).firstFailure, null, one.name);
    await runs.close();
  }
  assert.deepEqual(children(), []);
});

test('what cannot be fetched is left out', { skip: dataMissing }, async () => {
  const runs = await open(dataFolder('models', 'sklearn', 'rf_iris.onnx'));
  assert.deepEqual(runs.outputs, [{ name: 'output_label', datatype: 'INT64', shape: [-1] }]);
  assert.deepEqual(runs.excludedOutputs, ['output_probability']);
  const input: Tensor = { name: 'float_input', datatype: 'FP32', shape: [1, 4], data: new Float32Array(4) };
  assert.equal(unwrap(await runs.run([input])).length, 1);
  assert.equal(codeOf(await runs.run([input], ['output_probability'])), 'infer-invalid');
  await runs.close();
});

const samples: Record<Datatype, TensorData> = {
  BOOL: Uint8Array.of(0, 1),
  INT8: Int8Array.of(-128, 127),
  INT16: Int16Array.of(-32_768, 32_767),
  INT32: Int32Array.of(-(2 ** 31), 2 ** 31 - 1),
  INT64: BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n),
  UINT8: Uint8Array.of(0, 255),
  UINT16: Uint16Array.of(0, 65_535),
  UINT32: Uint32Array.of(0, 2 ** 32 - 1),
  UINT64: BigUint64Array.of(0n, 2n ** 64n - 1n),
  FP16: Uint16Array.of(0x3c00, 0xfbff),
  FP32: Float32Array.of(Number.NaN, 1e-40),
  FP64: Float64Array.of(-0, 5e-324),
  BYTES: ['', 'Zürich 漢字 😀'],
};

test('each of the 13 datatypes passes there and back as it is', async () => {
  const nodes = datatypes.map((one) => ({
    operator: 'Identity',
    inputs: [`in${one}`],
    outputs: [`out${one}`],
  }));
  const named = (stem: string) =>
    datatypes.map((datatype) => ({ name: `${stem}${datatype}`, datatype, shape: ['n'] }));
  const model = writeModel({
    name: 'same',
    inputs: named('in'),
    outputs: named('out'),
    nodes,
    initializers: [],
  });
  const runs = await open(written('same.onnx', model));
  const inputs = datatypes.map(
    (datatype): Tensor => ({ name: `in${datatype}`, datatype, shape: [2], data: samples[datatype] }),
  );
  const outputs = unwrap(await runs.run(inputs));
  for (const [at, output] of outputs.entries())
    assert.deepEqual(output, { ...inputs[at], name: `out${output.datatype}` });
  assert.equal(outputs.length, datatypes.length);
  await runs.close();
});

test('runs that are asked at once are answered in turn; a wrong input ends nothing', async () => {
  const runs = await open(made('divides', dies(12)));
  const asked = await Promise.all([1, 2, 3, 4].map((by) => runs.run(whole(by))));
  assert.deepEqual(
    asked.map((one) => [...(unwrap(one)[0]?.data ?? [])]),
    [[12], [6], [4], [3]],
  );
  const wrong: [string, Tensor[]][] = [
    ['infer-invalid', []],
    ['infer-invalid', [{ name: 'x', datatype: 'FP32', shape: [1, 1], data: new Float32Array(1) }]],
    ['infer-invalid', [{ name: 'x', datatype: 'INT32', shape: [2, 1], data: new Int32Array(1) }]],
    ['infer-failed', [{ name: 'x', datatype: 'INT32', shape: [1, 7], data: new Int32Array(7).fill(1) }]],
  ];
  for (const [code, inputs] of wrong) assert.equal(codeOf(await runs.run(inputs)), code);
  assert.equal(codeOf(await runs.run(whole(5))), 'answered');
  await runs.close();
  await runs.close();
  assert.equal(codeOf(await runs.run(whole(5))), 'interrupted');
});

test('tensors of megabytes pass in many pieces', async () => {
  const runs = await open(made('divides', dies(12)));
  const many = 1_500_000;
  const [tensor] = unwrap(await runs.run(whole(...new Array<number>(100_000).fill(3), 4)));
  assert.equal(tensor?.data.at(-1), 3);
  const large: Tensor = {
    name: 'x',
    datatype: 'INT32',
    shape: [many, 1],
    data: new Int32Array(many).fill(6),
  };
  const [answer] = unwrap(await runs.run([large]));
  assert.ok(answer !== undefined && answer.data.length === many);
  assert.ok((answer.data as Int32Array).every((one) => one === 2));
  await runs.close();
});

test('a model that kills its process is refused from then on, and nothing is left', {
  skip: noTrap || noProc,
}, async () => {
  const runs = await open(made('dies', dies()));
  assert.equal(codeOf(await runs.run(whole(1))), 'answered');
  const crashed = await runs.run(whole(-1));
  assert.equal(codeOf(crashed), 'model-trial-crashed');
  assert.match(crashed.ok ? '' : crashed.refusal.detail, /SIGFPE.* while it ran/);
  assert.equal(codeOf(await runs.run(whole(1))), 'model-trial-crashed');
  assert.deepEqual(children(), []);
  await runs.close();
});

test('a model that never returns is ended', { skip: noProc }, async () => {
  const runs = await open(made('loops', loops()), { timeoutMs: 3_000 });
  assert.equal(codeOf(await runs.run(times(3))), 'answered');
  const ended = await runs.run(times(forever));
  assert.deepEqual(ended, {
    ok: false,
    refusal: { code: 'model-trial-timeout', detail: 'it was not done within 3000 ms; it ran then' },
  });
  assert.equal(codeOf(await runs.run(times(3))), 'model-trial-timeout');
  assert.deepEqual(children(), []);
});

test('closing ends a run under way', { skip: noProc }, async () => {
  const runs = await open(made('loops', loops()));
  const asked = runs.run(times(forever));
  await runs.close();
  assert.equal(codeOf(await asked), 'interrupted');
  assert.deepEqual(children(), []);
});

test('memory that only a run takes', { skip: noProc }, async () => {
  const runs = await open(made('grows', grows()), { memoryBytesMax: 400 * MiB });
  assert.equal(codeOf(await runs.run(times(10))), 'answered');
  const greedy = await runs.run(times((700 * MiB) / 4));
  assert.equal(codeOf(greedy), 'model-trial-memory');
  assert.match(greedy.ok ? '' : greedy.refusal.detail, /it may take 400 MiB/);
  assert.deepEqual(children(), []);
});

test('files that are no model, or one that must not be run', { skip: dataMissing }, async () => {
  const negative = (name: string): string => dataFolder('negative', name);
  const refused = async (modelPath: string, more: Partial<ModelRunsParts> = {}): Promise<string> =>
    codeOf(await openModelRuns({ modelPath, clock, ...more }));
  assert.equal(await refused(join(folder, 'gone.onnx')), 'model-load-failed');
  assert.equal(await refused(negative('lfs-pointer_openwakeword.onnx')), 'model-not-onnx');
  assert.equal(await refused(negative('aborts-process_test_cast_FLOAT_to_INT4.onnx')), 'model-int4-output');
  assert.equal(
    await refused(negative('missing-external-data_silero_op18_ifless.onnx')),
    'model-external-data-missing',
  );
  const vgg = negative('ram-blowup_light_vgg19.onnx');
  assert.match(await refused(vgg, { memoryBytesMax: 300 * MiB }), /^model-(memory-estimate|trial-memory)$/);
  // What only the runtime finds: two matrices that do not fit.
  const unfit = modelFile({
    inputs: [{ name: 'x', elemType: 1, shape: [2, 3] }],
    outputs: [{ name: 'y', elemType: 1, shape: [2, 2] }],
    nodes: [{ opType: 'MatMul', inputs: ['x', 'x'], outputs: ['y'] }],
  });
  assert.equal(await refused(written('unfit.onnx', unfit)), 'model-invalid');
  assert.deepEqual(children(), []);
});

/** A program in the child's place; `say` writes a frame to its parent. */
function instead(name: string, program: string): Partial<ModelRunsParts> {
  const frames = new URL('../../shared/host/tensor-frames.js', import.meta.url).href;
  const path = written(
    `${name}.mjs`,
    `import { readSync, writeSync } from 'node:fs';
     import { encodeTensorFrame } from ${JSON.stringify(frames)};
     const say = (id, body, tensors = []) => {
       for (const piece of encodeTensorFrame({ id, body }, tensors).value) writeSync(3, piece);
     };
     const hear = () => readSync(0, Buffer.alloc(65536));
     ${program}\n`,
  );
  return { entry: pathToFileURL(path), timeoutMs: 20_000 };
}

test('a process that says anything else is not believed, and is ended', { skip: noProc }, async () => {
  const stay = 'setInterval(() => 0, 1e6);';
  const liars = {
    bytes: `hear(); writeSync(3, Buffer.from('no frame of ours, at all')); ${stay}`,
    endless: `hear(); writeSync(3, Buffer.alloc(16, 0xff)); ${stay}`,
    message: `hear(); say(1, { kind: 'loved' }); ${stay}`,
    unasked: `say(1, { kind: 'done', peakBytes: 1 }); say(1, { kind: 'done', peakBytes: 1 }); ${stay}`,
    late: `hear(); say(1, { kind: 'done', peakBytes: 1 }); hear(); say(1, { kind: 'refused', code: 'infer-failed', detail: '' }); ${stay}`,
    empty: `hear(); say(1, { kind: 'done', peakBytes: 1 }); hear(); say(2, { kind: 'done', peakBytes: 1 }); ${stay}`,
    silent: '',
  };
  for (const [name, program] of Object.entries(liars)) {
    const modelPath = made('divides', dies(12));
    const opened = await openModelRuns({ modelPath, clock, ...instead(name, program) });
    const code = opened.ok ? codeOf(await opened.value.run(whole(1))) : opened.refusal.code;
    assert.equal(code, 'model-trial-crashed', name);
    if (opened.ok) await opened.value.close();
  }
  const without = instead(
    'without',
    `hear(); say(1, { kind: 'no-runtime', detail: 'no such package' }); ${stay}`,
  );
  const opened = await openModelRuns({ modelPath: made('divides', dies(12)), clock, ...without });
  assert.deepEqual(opened.ok || opened.refusal, {
    code: 'model-load-failed',
    detail: 'no ONNX Runtime here: no such package',
  });
  assert.deepEqual(children(), []);
});

test('its process ends with the program that asked, even one that was killed in a run', {
  skip: noProc,
}, async () => {
  const at = (path: string): string => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
  const program = written(
    'asks.mjs',
    `import { openModelRuns } from ${at('shared/host/model-runs.js')};
     import { systemClock as clock } from ${at('shared/host/clock.js')};
     import { times, forever } from ${at('test/inference/made.js')};
     const runs = await openModelRuns({ modelPath: ${JSON.stringify(made('loops', loops()))}, clock });
     void runs.value.run(times(forever));
     process.stdout.write('asked');`,
  );
  const asker = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(asker.stdout, 'data');
  const [child = 0, ...more] = children(asker.pid);
  assert.ok(child > 0 && more.length === 0, 'it has one process');
  asker.kill('SIGKILL');
  await once(asker, 'close');
  const endMs = clock.mono() + 30_000;
  const isThere = (): boolean => {
    try {
      // One that ended and that nobody waits for is a zombie of init.
      return !/\) Z /.test(readFileSync(`/proc/${child}/stat`, 'latin1'));
    } catch (error) {
      if (error instanceof Error && 'code' in error) return false;
      throw error;
    }
  };
  while (isThere()) {
    assert.ok(clock.mono() < endMs, 'it outlives its parent');
    await clock.timer(50).done;
  }
});

test('frames come in any pieces', () => {
  const tensors: Tensor[] = [
    { name: 'a', datatype: 'INT8', shape: [3], data: Int8Array.of(1, 2, 3) },
    { name: 'b', datatype: 'BYTES', shape: [1, 2], data: ['x', 'ü'] },
    { name: 'c', datatype: 'FP64', shape: [0], data: new Float64Array() },
  ];
  const one = Buffer.concat(unwrap(encodeTensorFrame({ say: 1 }, tensors)));
  const stream = Buffer.concat([one, Buffer.concat(unwrap(encodeTensorFrame({ say: 2 }, []))), one]);
  for (const size of [1, 7, one.length, one.length + 3, stream.length]) {
    const reader = createTensorFrameReader();
    const frames = [];
    for (let from = 0; from < stream.length; from += size)
      frames.push(...reader.push(stream.subarray(from, from + size)).map(unwrap));
    assert.deepEqual(frames, [
      { message: { say: 1 }, tensors },
      { message: { say: 2 }, tensors: [] },
      { message: { say: 1 }, tensors },
    ]);
  }
  const cut = Buffer.from(one);
  cut.writeUInt32LE(cut.readUInt32LE(4) + 1, 4);
  assert.equal(createTensorFrameReader().push(cut).map(codeOf).join(), 'message-malformed');
});
