// Why: whoever may push may send any bytes at all: admission answers each of them, soon, and takes no more memory for
// them than they are worth. Trusts: fast-check's shrinking; the seed is printed where something fails.
// Must never: measure this machine; work is bounded by counts, and the clock is only the outer guard.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AdmissionRules, admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { type Facts, inferNode } from '../../shared/onnx/shapes.ts';
import { writeModel } from '../../shared/onnx/writer.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { graph, modelFile } from './models.ts';

const rules: AdmissionRules = {
  excludeOutputs: [],
  externalFiles: new Map([['w.bin', 1_000]]),
  opsetMax: opsetMaxDefault,
  memoryBounds: [{ bytes: 2 ** 29, from: 'the test' }],
};
const refusals = new Set([
  ...[
    'model-not-onnx',
    'model-invalid',
    'model-int4-output',
    'model-output-not-tensor',
    'model-type-unsupported',
  ],
  ...['model-custom-operator', 'model-external-data-missing', 'model-opset-too-new', 'model-memory-estimate'],
]);

/** Judges; anything but an answer of admission is a failure. An admitted estimate is a number within the bound. */
function judge(bytes: Uint8Array): string {
  const judged = admitModel(bytes, rules);
  if (!judged.ok) {
    assert.ok(refusals.has(judged.refusal.code), judged.refusal.code);
    assert.ok(judged.refusal.detail.length < 2_000, 'no refusal repeats the file');
    return judged.refusal.code;
  }
  const { memoryBytesEstimate } = judged.value;
  assert.ok(memoryBytesEstimate >= 0 && memoryBytesEstimate <= 2 ** 29);
  for (const { shape } of [...judged.value.inputs, ...judged.value.outputs])
    assert.ok(shape.length <= 16 && shape.every((size) => size === -1 || size > 0));
  return 'admitted';
}

/** Every part of the format that admission looks at. */
function rich(): Uint8Array {
  const shape = { name: 's', dataType: 7, dims: [2], raw: new Uint8Array(BigInt64Array.of(20n, 30n).buffer) };
  const listed = { name: 'l', dataType: 7, dims: [1], longs: [5] };
  const outside = {
    name: 'w',
    dataType: 1,
    dims: [4],
    external: { location: 'w.bin', offset: '4', length: '16' },
  };
  const body = graph({
    nodes: [{ opType: 'ConstantOfShape', inputs: ['s'], outputs: ['y'] }],
    initializers: [listed],
  });
  return modelFile({
    opsets: [
      ['', 17],
      ['own', 1],
    ],
    inputs: [{ name: 'x', elemType: 1, shape: [1, 'n', 3] }],
    outputs: [
      { name: 'y', elemType: 1, shape: ['n'] },
      { name: 'z', elemType: 7, shape: [] },
    ],
    initializers: [shape, outside],
    nodes: [
      { opType: 'ConstantOfShape', inputs: ['s'], outputs: ['c'], tensors: [{ ...listed, name: '' }] },
      { opType: 'Tile', inputs: ['c', 's'], outputs: ['t'] },
      { opType: 'Concat', inputs: ['s', 'l'], outputs: ['sl'] },
      { opType: 'If', inputs: ['x'], outputs: ['y'], graphs: [body, body] },
      { opType: 'Gate', domain: 'own', inputs: ['x'], outputs: ['z'] },
    ],
    functions: [{ name: 'Gate', domain: 'own', nodes: [{ opType: 'Relu' }] }],
  });
}

const edits = (length: number) =>
  fc.array(fc.tuple(fc.nat(length - 1), fc.oneof(fc.nat(255), fc.constantFrom(0x7f, 0x80, 0xff))), {
    minLength: 1,
    maxLength: 6,
  });

function edited(bytes: Uint8Array, changes: readonly [at: number, byte: number][]): Uint8Array {
  const copy = bytes.slice();
  for (const [at, byte] of changes) copy[at] = byte;
  return copy;
}

test('changed bytes', () => {
  const base = rich();
  assert.equal(judge(base), 'admitted');
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(edits(base.length), (changes) => {
      const outcome = judge(edited(base, changes));
      seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
    }),
    { numRuns: 6_000 },
  );
  // The mutations reach beyond the reader: else this test would prove little.
  assert.ok(seen.size >= 5, [...seen].join(' '));
});

test('bytes that are cut, repeated, or moved', () => {
  const base = rich();
  fc.assert(
    fc.property(fc.nat(base.length), fc.nat(base.length), fc.nat(base.length), (a, b, c) => {
      const [from, to] = a < b ? [a, b] : [b, a];
      const piece = base.subarray(from, to);
      judge(base.subarray(0, a));
      judge(Buffer.concat([base.subarray(0, from), base.subarray(to)]));
      judge(Buffer.concat([base.subarray(0, c), piece, base.subarray(c)]));
    }),
    { numRuns: 2_000 },
  );
});

test('changed bytes of real models', { skip: dataMissing }, () => {
  for (const path of ['models/mnist/mnist-opset8.onnx', 'negative/ram-blowup_light_vgg19.onnx']) {
    const base = new Uint8Array(readFileSync(dataFolder(path)));
    fc.assert(
      fc.property(edits(base.length), (changes) => {
        judge(edited(base, changes));
      }),
      { numRuns: 1_000 },
    );
  }
});

/** A length-delimited field by hand: `declared` may be a lie. */
function field(number: number, content: Uint8Array, declared = content.length): Uint8Array {
  const head = new ProtobufWriter().int(number, declared).finish();
  // The same varints as those of an integer field, with the wire type of bytes.
  head[0] = (head[0] ?? 0) | 2;
  return Buffer.concat([head, content]);
}
const framed = (graphBytes: Uint8Array): Uint8Array =>
  Buffer.concat([
    new ProtobufWriter().int(1, 8).message(8, new ProtobufWriter().int(2, 17)).finish(),
    field(7, graphBytes),
  ]);
const repeated = (bytes: Uint8Array, times: number): Uint8Array => Buffer.alloc(bytes.length * times, bytes);

/** Runs where what it holds can be seen: the heap it leaves behind at its largest. */
function heapTaken(work: () => void): number {
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  work();
  return process.memoryUsage().heapUsed - before;
}

test('varints without an end, and lengths beyond the file', () => {
  const endless = new Uint8Array(1_000_000).fill(0xff);
  assert.equal(judge(endless), 'model-not-onnx');
  assert.equal(judge(framed(endless)), 'model-not-onnx');
  for (const declared of [2 ** 31, 2 ** 32 + 1, 2 ** 52]) {
    assert.equal(judge(field(7, new Uint8Array(4), declared)), 'model-not-onnx', `${declared}`);
    assert.equal(judge(framed(field(5, new Uint8Array(4), declared))), 'model-not-onnx', `${declared}`);
  }
  // Ten bytes and more for a small number: legal to ten, no further.
  const long = (count: number) => Uint8Array.of(0x08, ...Array<number>(count - 1).fill(0x88), 0x00);
  assert.equal(judge(long(11)), 'model-not-onnx');
});

test('graphs and branches without an end', () => {
  let inner = graph({});
  for (let depth = 0; depth < 200; depth++) inner = graph({ nodes: [{ opType: 'If', graphs: [inner] }] });
  assert.equal(judge(modelFile({ nodes: [{ opType: 'If', graphs: [inner] }] })), 'model-not-onnx');
  // Raw nesting of any field, a hundred thousand deep: each level is a graph in an attribute in a node.
  let bytes: Uint8Array = new Uint8Array(0);
  for (let depth = 0; depth < 3_000; depth++) bytes = field(1, field(5, field(6, bytes)));
  assert.equal(judge(framed(bytes)), 'model-not-onnx');
  // Types in types: sequences of sequences are stepped over, not followed.
  let type: Uint8Array = new Uint8Array(0);
  for (let depth = 0; depth < 3_000; depth++) type = field(4, field(1, type));
  const output = field(12, Buffer.concat([field(1, Buffer.from('y')), field(2, type)]));
  assert.equal(judge(framed(output)), 'model-output-not-tensor');
});

test('millions of parts in few bytes', () => {
  const graphs: [what: string, bytes: Uint8Array][] = [
    ['nodes', repeated(field(1, new Uint8Array(0)), 1_500_000)],
    ['initializers', repeated(field(5, new Uint8Array(0)), 1_500_000)],
    ['inputs', repeated(field(11, new Uint8Array(0)), 1_500_000)],
    ['inputs of a node', field(1, repeated(field(1, new Uint8Array(0)), 1_500_000))],
    ['attributes of a node', field(1, repeated(field(5, new Uint8Array(0)), 1_500_000))],
    ['dimensions of a tensor', field(5, repeated(Uint8Array.of(0x08, 0x01), 1_500_000))],
    ['packed dimensions', field(5, field(1, new Uint8Array(3_000_000).fill(1)))],
    ['numbers of an attribute', field(1, field(5, field(8, new Uint8Array(3_000_000).fill(1))))],
    [
      'numbers of a shape',
      field(5, Buffer.concat([Uint8Array.of(0x10, 7), field(7, new Uint8Array(3_000_000))])),
    ],
    ['fields of no meaning', repeated(Uint8Array.of(0x78, 0x01), 1_500_000)],
  ];
  for (const [what, bytes] of graphs) {
    const taken = heapTaken(() => judge(framed(bytes)));
    assert.ok(taken < 300e6, `${what}: ${taken} bytes of heap`);
  }
});

test('names of megabytes', () => {
  const name = Buffer.alloc(40_000_000, 'a');
  const value = field(12, Buffer.concat([field(1, name), field(2, field(1, Uint8Array.of(0x08, 0x01)))]));
  assert.equal(judge(framed(value)), 'model-not-onnx');
  assert.equal(judge(framed(field(1, field(4, name)))), 'model-not-onnx');
  // Descriptions and metadata may be long: nobody reads them.
  const described = new ProtobufWriter().bytes(6, name);
  described.message(14, new ProtobufWriter().string(1, 'k').bytes(2, name));
  assert.equal(judge(Buffer.concat([rich(), described.finish()])), 'admitted');
});

test('shapes of any size, and constants that make one another', () => {
  const size = fc.oneof(
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    fc.bigInt({ min: -2n, max: 4_000n }),
  );
  const operators = [
    'Expand',
    'Tile',
    'Reshape',
    'Add',
    'Mul',
    'Sub',
    'Div',
    'Pow',
    'Gather',
    'Squeeze',
    'Unsqueeze',
  ];
  const more = [
    'Concat',
    'Pad',
    'OneHot',
    'Range',
    'Resize',
    'MatMul',
    'Shape',
    'Size',
    'Cast',
    'Transpose',
    'Where',
  ];
  const node = fc.record({
    operator: fc.constantFrom(...operators, ...more, 'ConstantOfShape', 'Upsample', 'Gemm', 'Flatten'),
    from: fc.array(fc.nat(), { minLength: 1, maxLength: 4 }),
    axis: fc.integer({ min: -70, max: 70 }),
  });
  fc.assert(
    fc.property(
      fc.array(fc.array(size, { maxLength: 20 }), { minLength: 1, maxLength: 3 }),
      fc.array(node, { minLength: 1, maxLength: 40 }),
      (shapes, nodes) => {
        const names = shapes.map((_, index) => `s${index}`);
        const made = nodes.map(({ operator, from, axis }, index) => {
          const inputs = from.map((at) => names[at % names.length] ?? '');
          names.push(`v${index}`);
          const attributes = { axis: { int: axis }, axes: { ints: [axis] }, to: { int: 7 } };
          return { operator, inputs, outputs: [`v${index}`], attributes };
        });
        judge(
          writeModel({
            name: 'any',
            inputs: [],
            outputs: [{ name: `v${nodes.length - 1}`, datatype: 'FP32', shape: ['n'] }],
            initializers: shapes.map((values, index) => ({
              name: `s${index}`,
              datatype: 'INT64',
              shape: [values.length],
              data: BigInt64Array.from(values),
            })),
            nodes: made,
          }),
        );
      },
    ),
    { numRuns: 2_000 },
  );
});

test('what is known of a value stays small, however long the chain that makes it', () => {
  const operators =
    'Unsqueeze Concat Tile Gather Reshape Expand Range Add Mul Shape Pad OneHot Squeeze ConstantOfShape';
  for (const operator of operators.split(' ')) {
    const start = { dims: [2], bits: 64, numbers: [0, 1], constant: true, madeBytes: 0 };
    let facts: Facts = start;
    for (let step = 0; step < 300; step++) {
      const node = { operator, inputs: ['a', 'b', 'a'], outputs: ['c'], attributes: new Map(), graphs: [] };
      facts = inferNode(node, [facts, step % 2 === 0 ? start : facts, facts])[0] ?? start;
      assert.ok((facts.dims?.length ?? 0) <= 64, operator);
      assert.ok((facts.numbers?.length ?? 0) <= 64, operator);
    }
  }
});
