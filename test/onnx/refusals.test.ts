// Why: each code of admission, with the smallest file that deserves it: what is refused is refused for its own reason,
// and the same file without that one fault is admitted. Trusts: shared/onnx's writer for what is right about them.
// Must never: load a model here.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codes, type ErrorCode } from '../../shared/kernel/codes.ts';
import type { Result } from '../../shared/kernel/result.ts';
import {
  type AdmissionRules,
  type Admitted,
  admitModel,
  opsetMaxDefault,
} from '../../shared/onnx/admission.ts';
import { parseMemory, promisedMemory } from '../../shared/onnx/memory-bounds.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { oneLine } from '../../shared/onnx/runtime-words.ts';
import { type GraphValue, type ModelSource, writeModel } from '../../shared/onnx/writer.ts';
import { modelFile } from './models.ts';

const MiB = 2 ** 20;
const value = (name: string, shape: GraphValue['shape'] = ['n', 2]): GraphValue => ({
  name,
  datatype: 'FP32',
  shape,
});
const written = (more: Partial<ModelSource> = {}): Uint8Array =>
  writeModel({
    name: 'graph',
    inputs: [value('x')],
    outputs: [value('y')],
    nodes: [{ operator: 'Relu', inputs: ['x'], outputs: ['y'] }],
    initializers: [],
    ...more,
  });
const longs = (name: string, ...values: number[]) => ({
  name,
  datatype: 'INT64' as const,
  shape: [values.length],
  data: BigInt64Array.from(values.map(BigInt)),
});
/** y = x + a constant of this many floats, filled by a node. */
const filled = (elements: number): Uint8Array =>
  written({
    initializers: [longs('shape', elements)],
    nodes: [
      { operator: 'ConstantOfShape', inputs: ['shape'], outputs: ['c'] },
      { operator: 'Add', inputs: ['x', 'c'], outputs: ['y'] },
    ],
  });
/** Further fields of ModelProto behind what is there. */
const and = (bytes: Uint8Array, more: ProtobufWriter): Uint8Array => Buffer.concat([bytes, more.finish()]);
const opset = (domain: string, version: number): ProtobufWriter =>
  new ProtobufWriter().message(8, new ProtobufWriter().string(1, domain).int(2, version));

const tensor = { name: 'w', dataType: 1, dims: [4] };
const outside = (external: Record<string, string>): Uint8Array =>
  modelFile({ initializers: [{ ...tensor, external }] });
const packed = { name: 'y', elemType: 22, shape: [1] };

function judge(bytes: Uint8Array, rules: Partial<AdmissionRules> = {}): Result<Admitted> {
  return admitModel(bytes, {
    excludeOutputs: [],
    externalFiles: new Map([['w.bin', 32]]),
    opsetMax: opsetMaxDefault,
    memoryBounds: [{ bytes: 64 * MiB, from: 'the test' }],
    ...rules,
  });
}

interface Row {
  what: string;
  code: ErrorCode;
  bytes: Uint8Array;
  rules?: Partial<AdmissionRules>;
  detail: RegExp;
}

const rows: Row[] = [
  {
    what: 'a Git LFS pointer',
    code: 'model-not-onnx',
    bytes: Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 133\n'),
    detail: /git lfs pull/,
  },
  { what: 'nothing', code: 'model-not-onnx', bytes: new Uint8Array(0), detail: /empty/ },
  { what: 'half a file', code: 'model-not-onnx', bytes: written().subarray(0, 60), detail: /ends inside/ },
  {
    what: 'two graphs, which the runtime would take for one',
    code: 'model-not-onnx',
    bytes: Buffer.concat([written(), written()]),
    detail: /two graphs/,
  },
  { what: 'no opset', code: 'model-invalid', bytes: modelFile({ opsets: [] }), detail: /operator set/ },
  {
    what: 'an excluded output that is not there',
    code: 'model-invalid',
    bytes: written(),
    rules: { excludeOutputs: ['z'] },
    detail: /"z"/,
  },
  {
    what: 'a tensor outside that has another length than its shape',
    code: 'model-invalid',
    bytes: outside({ location: 'w.bin', length: '8' }),
    detail: /16 bytes has 8 bytes/,
  },
  {
    what: 'a path out of the folder',
    code: 'model-invalid',
    bytes: outside({ location: '../../etc/shadow' }),
    detail: /leaves/,
  },
  {
    what: 'a 4-bit output',
    code: 'model-int4-output',
    bytes: modelFile({ outputs: [packed] }),
    detail: /int4/,
  },
  {
    what: 'a 4-bit output that is excluded',
    code: 'model-int4-output',
    bytes: modelFile({ outputs: [packed, { name: 'z', elemType: 1, shape: [1] }] }),
    rules: { excludeOutputs: ['y'] },
    detail: /int4/,
  },
  {
    what: 'a map as an output',
    code: 'model-output-not-tensor',
    bytes: modelFile({ outputs: [{ name: 'y', kindField: 5 }] }),
    detail: /kind map/,
  },
  {
    what: 'complex numbers',
    code: 'model-type-unsupported',
    bytes: modelFile({ inputs: [{ name: 'x', elemType: 14, shape: [1] }] }),
    detail: /type 14/,
  },
  {
    what: 'more dimensions than a request can have',
    code: 'model-type-unsupported',
    bytes: written({ inputs: [value('x', Array<number>(17).fill(1))] }),
    detail: /17 dimensions/,
  },
  {
    what: 'a name longer than a request can have',
    code: 'model-type-unsupported',
    bytes: written({
      inputs: [value('x'.repeat(513))],
      nodes: [{ operator: 'Relu', inputs: ['x'.repeat(513)], outputs: ['y'] }],
    }),
    detail: /513 characters/,
  },
  {
    what: 'an operator of somebody’s own',
    code: 'model-custom-operator',
    bytes: and(modelFile({ nodes: [{ opType: 'Magic', domain: 'acme' }] }), opset('acme', 1)),
    detail: /acme:Magic/,
  },
  {
    what: 'external data that is not there',
    code: 'model-external-data-missing',
    bytes: outside({ location: 'v.bin' }),
    detail: /"v.bin"/,
  },
  {
    what: 'external data that ends before its tensor does',
    code: 'model-external-data-missing',
    bytes: outside({ location: 'w.bin', offset: '20', length: '16' }),
    detail: /byte 36 of "w.bin", which has 32/,
  },
  {
    what: 'the same, where only the shape says its length',
    code: 'model-external-data-missing',
    bytes: outside({ location: 'w.bin', offset: '20' }),
    detail: /byte 36/,
  },
  {
    what: 'an offset beyond all numbers',
    code: 'model-not-onnx',
    bytes: outside({ location: 'w.bin', offset: '18446744073709551615' }),
    detail: /offset/,
  },
  { what: 'an opset of tomorrow', code: 'model-opset-too-new', bytes: written({ opset: 27 }), detail: /27/ },
  {
    what: 'an opset of tomorrow in another domain',
    code: 'model-opset-too-new',
    bytes: and(written(), opset('ai.onnx.ml', 9)),
    detail: /ai\.onnx\.ml/,
  },
  {
    what: 'a constant that a node fills',
    code: 'model-memory-estimate',
    bytes: filled(17 * MiB),
    detail: /at least 69 MiB; the test is 64 MiB/,
  },
  {
    what: 'an input larger than all memory',
    code: 'model-memory-estimate',
    bytes: written({ inputs: [value('x', [2 ** 40, 2 ** 40])] }),
    detail: /at least/,
  },
];

for (const { what, code, bytes, rules, detail } of rows) {
  test(`${code}: ${what}`, () => {
    const judged = judge(bytes, rules);
    assert.ok(!judged.ok, 'it was admitted');
    assert.equal(judged.refusal.code, code);
    assert.match(judged.refusal.detail, detail);
    assert.ok(
      codes[code].http >= 400 && codes[code].http < 500,
      'a refusal of the model, not a fault of ours',
    );
  });
}

test('every code of admission has a row', () => {
  const missing = Object.keys(codes).filter(
    (code) => code.startsWith('model-') && !rows.some((row) => row.code === code),
  );
  // Those that only loading and running find.
  assert.deepEqual(missing.sort(), [
    'model-crash-loop',
    'model-crashed',
    'model-load-failed',
    'model-memory-exceeded',
    'model-trial-crashed',
    'model-trial-memory',
    'model-trial-timeout',
  ]);
});

test('without the fault the same files are admitted', () => {
  for (const bytes of [
    written(),
    written({ opset: opsetMaxDefault }),
    written({ inputs: [value('x', Array<number>(16).fill(1))] }),
    outside({ location: 'w.bin', offset: '16', length: '16' }),
    outside({ location: './w.bin', offset: '16' }),
    and(written(), opset('acme', 1)),
    filled(15 * MiB),
  ]) {
    const judged = judge(bytes);
    assert.ok(judged.ok, judged.ok ? '' : judged.refusal.detail);
  }
});

test('the smallest bound counts, and the refusal names who set it', () => {
  const memoryBounds = [
    promisedMemory({ requires: { memoryMiB: 100 }, limits: { memoryMiB: 1 } }),
    { bytes: 50 * MiB, from: '--model-memory-max' },
  ];
  const judged = judge(filled(15 * MiB), { memoryBounds });
  assert.match(judged.ok ? '' : judged.refusal.detail, /61 MiB; --model-memory-max is 50 MiB/);
  assert.deepEqual(promisedMemory({ limits: { memoryMiB: 3 } }), {
    bytes: 3 * MiB,
    from: 'limits.memoryMiB of the manifest',
  });
  assert.equal(promisedMemory({}).bytes, 512 * MiB);
  assert.equal(parseMemory('512', '--model-memory-max'), 512 * MiB);
  for (const text of ['0', '-1', '1.5', '12345678', '64MiB', ''])
    assert.throws(() => parseMemory(text, '--model-memory-max'), { code: 'config-invalid' }, text);
});

test('what ONNX Runtime says is one line without what a terminal would obey', () => {
  const words = '\u001b[1;31m2026 [E:onnxruntime:]\u001b[m  two\n lines\u0007\u009b31m\u0000 é';
  assert.equal(oneLine(words), '2026 [E:onnxruntime:] two lines31m é');
  assert.equal(oneLine(new Error('x'.repeat(700))).length, 601);
});
