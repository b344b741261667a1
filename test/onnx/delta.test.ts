// Why: a patch finds what two releases have in common, wherever ONNX keeps it, and rebuilds to the bit.
// Trusts: test/onnx/delta-models.ts. Must never: accept a guess that is right only by luck; plans are looked at.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemZstd } from '../../shared/host/zstd.ts';
import { applyDelta, streamDelta } from '../../shared/onnx/delta/apply.ts';
import { readDeltaHeader } from '../../shared/onnx/delta/header.ts';
import { readLayout } from '../../shared/onnx/delta/layout.ts';
import { rint } from '../../shared/onnx/delta/numbers.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { chance } from '../support/chance.ts';
import {
  file,
  float32,
  graphMessage,
  modelBytes,
  nodeMessage,
  planOf,
  rawOf,
  roundTrip,
  type Tensor,
  tensorMessage,
  waysOf,
  weights,
} from './delta-models.ts';

const dims = [64, 512];
const count = 64 * 512;
const old = weights(1, count);
const oldModel = modelBytes([float32('w', dims, old)]);

/** Far above any tolerance, so that a patch that found nothing fails. */
const small = (patch: Uint8Array, bytesMax: number): void =>
  assert.ok(patch.length <= bytesMax, `${patch.length} bytes`);

test('a nudged tensor is differences, sparse where most of it stayed', () => {
  const next = chance(2);
  const nudged = old.map((value) => value * (1 + (next() - 0.5) * 1e-3));
  const dense = roundTrip(oldModel, modelBytes([float32('w', dims, nudged)]));
  assert.deepEqual(waysOf(dense), ['base dense']);
  small(dense, count * 2.1);
  const tuned = old.map((value, at) => (at % 4096 < 64 ? value * 1.01 : value));
  const sparse = roundTrip(oldModel, modelBytes([float32('w', dims, tuned)]));
  assert.deepEqual(waysOf(sparse), ['base sparse']);
  small(sparse, 3_000);
});

test('−0, NaNs with payloads and infinities stay what they are', () => {
  const corners = Uint32Array.of(0x80000000, 0x7fc01234, 0xffffffff, 0x7f800000, 0xff800000, 1, 0x80000001);
  const words = new Uint32Array(old.slice().buffer);
  for (let at = 0; at < words.length; at += 11) words[at] = corners[at % corners.length] as number;
  const odd = modelBytes([float32('w', dims, new Float32Array(words.buffer))]);
  roundTrip(oldModel, odd);
  roundTrip(odd, oldModel);
});

test('a tensor without a partner is its exponents; one that repeats itself is packed', () => {
  const strange = roundTrip(oldModel, modelBytes([float32('v', [100, 300], weights(9, 30_000))]));
  assert.deepEqual(waysOf(strange), ['none full']);
  small(strange, 30_000 * 3.5);
  const zeros = roundTrip(oldModel, modelBytes([float32('v', [100_000], new Float32Array(100_000))]));
  small(zeros, 400);
});

test('a renamed tensor is found by its content, and by likeness where it changed', () => {
  const same = roundTrip(oldModel, modelBytes([float32('layer.0.weight', dims, old)]));
  assert.deepEqual(waysOf(same), ['base exact']);
  const others = [2, 3, 4].map((seed) => float32(`w${seed}`, dims, weights(seed, count)));
  const nudged = old.map((value) => value * 1.0001);
  const base = modelBytes([...others, float32('w', dims, old)]);
  const alike = roundTrip(base, modelBytes([float32('layer.0.weight', dims, nudged), ...others.slice(1)]));
  assert.equal(
    planOf(alike).target[0]?.guess.kind === 'base' ? planOf(alike).target[0]?.coding : '',
    'dense',
  );
  small(alike, count * 2);
});

test('the same bytes under another type are copied', () => {
  const whole = { name: 'w', dataType: 7, dims: [count / 2], bytes: rawOf(old) };
  assert.deepEqual(waysOf(roundTrip(oldModel, modelBytes([whole]))), ['base exact']);
  assert.deepEqual(waysOf(roundTrip(modelBytes([whole]), oldModel)), ['base exact']);
  const halves = { name: 'w', dataType: 10, dims: [count * 2], bytes: rawOf(old) };
  assert.deepEqual(waysOf(roundTrip(oldModel, modelBytes([halves]))), ['base exact']);
});

test('a transposed tensor is found, with any order of its axes', () => {
  const turned = new Float32Array(count);
  for (let row = 0; row < 64; row++)
    for (let column = 0; column < 512; column++)
      turned[column * 64 + row] = old[row * 512 + column] as number;
  const patch = roundTrip(oldModel, modelBytes([float32('w', [512, 64], turned)]));
  assert.deepEqual(waysOf(patch), ['permuted exact']);
  const [a, b, c, d] = [8, 16, 4, 64];
  const moved = new Float32Array(count);
  for (let at = 0; at < count; at++) {
    const [i, j, k, l] = [
      Math.floor(at / (b * c * d)),
      Math.floor(at / (c * d)) % b,
      Math.floor(at / d) % c,
      at % d,
    ];
    moved[((k * d + l) * b + j) * a + i] = old[at] as number;
  }
  const four = modelBytes([float32('w', [a, b, c, d], old)]);
  assert.deepEqual(waysOf(roundTrip(four, modelBytes([float32('w', [c, d, b, a], moved)]))), [
    'permuted exact',
  ]);
});

test('a tensor times one number, or one for each channel, is that', () => {
  const folded = old.map((value, at) => value * (1.3 + Math.floor(at / 512) * 0.017));
  const patch = roundTrip(oldModel, modelBytes([float32('w', dims, folded)]));
  assert.match(waysOf(patch).join(), /^scaled /);
  small(patch, count);
});

test('casts to half and brain floats and back are found', () => {
  const half = { name: 'w', dataType: 10, dims, bytes: rawOf(Uint16Array.from(old, halfBits)) };
  assert.deepEqual(waysOf(roundTrip(oldModel, modelBytes([half]))), ['cast exact']);
  const words = new Uint32Array(old.slice().buffer);
  const brain = Uint16Array.from(words, (bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
  const patch = roundTrip(oldModel, modelBytes([{ name: 'w', dataType: 16, dims, bytes: rawOf(brain) }]));
  assert.deepEqual(waysOf(patch), ['cast exact']);
  roundTrip(modelBytes([half]), oldModel);
});

/** By search, so that it shares nothing with the codec. */
function halfBits(value: number): number {
  const sign = value < 0 ? 0x8000 : 0;
  const amount = Math.abs(value);
  const halfValue = (bits: number): number =>
    bits < 0x400 ? bits * 2 ** -24 : ((bits & 0x3ff) + 1024) * 2 ** ((bits >>> 10) - 25);
  let [low, high] = [0, 0x7bff];
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (halfValue(middle) <= amount) low = middle;
    else high = middle;
  }
  const [below, above] = [amount - halfValue(low), halfValue(high) - amount];
  return sign | (below < above || (below === above && low % 2 === 0) ? low : high);
}

/** Weights and biases quantised for each channel, as quantisers write them. */
function quantisedModel(signed: boolean): Uint8Array {
  const scales = new Float32Array(64);
  const whole = new Int8Array(count);
  const zeros = new Int8Array(64);
  for (let channel = 0; channel < 64; channel++) {
    const row = old.subarray(channel * 512, channel * 512 + 512);
    const [least, most] = [Math.min(0, ...row), Math.max(0, ...row)];
    const scale = Math.fround(
      signed ? Math.max(most, -least) / 127 : Math.fround(Math.fround(most - least) / 255),
    );
    scales[channel] = scale;
    if (!signed) zeros[channel] = rint(-least / scale);
    for (const [at, value] of row.entries())
      whole[channel * 512 + at] =
        rint(Math.fround(value / scale)) + ((zeros[channel] as number) & (signed ? -1 : 255));
  }
  const bias = Int32Array.from(oldBias, (value, at) =>
    rint(Math.fround(value / Math.fround((scales[at] as number) * 0.37))),
  );
  const tensors: Tensor[] = [
    { ...float32('w_scale', [64], scales), field: 4 },
    { name: 'w_zero_point', dataType: signed ? 3 : 2, dims: [64], bytes: rawOf(zeros) },
    { name: 'w_quantized', dataType: signed ? 3 : 2, dims, bytes: rawOf(whole) },
    float32(
      'b_scale',
      [64],
      scales.map((scale) => scale * Math.fround(0.37)),
    ),
    { name: 'b_quantized', dataType: 6, dims: [64], bytes: rawOf(bias) },
  ];
  return modelBytes(tensors, [
    { operator: 'DequantizeLinear', inputs: ['w_quantized', 'w_scale', 'w_zero_point'], outputs: ['w'] },
    { operator: 'DequantizeLinear', inputs: ['b_quantized', 'b_scale'], outputs: ['b'] },
  ]);
}

const oldBias = weights(5, 64, 0.3);
const withBias = modelBytes([float32('w', dims, old), float32('b', [64], oldBias)]);

test('a quantised release is computed from the one it was made of, scales included', () => {
  const signed = roundTrip(withBias, quantisedModel(true));
  assert.deepEqual(
    waysOf(signed).filter((way) => !/^none/.test(way)),
    [...['table exact', 'quantised exact', 'table exact', 'quantised exact']],
  );
  small(signed, 700);
  const unsigned = roundTrip(withBias, quantisedModel(false));
  assert.ok(waysOf(unsigned).includes('quantised exact'));
  small(unsigned, 1_200);
});

test('back from a quantised release: what it remembers of the weights is saved', () => {
  const patch = roundTrip(quantisedModel(true), withBias);
  assert.ok(waysOf(patch).some((way) => way.startsWith('dequantised')));
  small(patch, count * 2.9);
});

test('tensors are found wherever ONNX keeps them', () => {
  const at = (seed: number): Tensor => float32('', [40, 50], weights(seed, 2_000));
  const attribute = (name: string, field: number, value: ProtobufWriter) => ({ name, field, value });
  const sparse = (seed: number): ProtobufWriter =>
    new ProtobufWriter()
      .message(1, tensorMessage(at(seed)))
      .message(2, tensorMessage({ ...at(seed + 1), dataType: 7 }));
  const body = graphMessage(
    [float32('inner', [40, 50], weights(10, 2_000))],
    [{ operator: 'Constant', outputs: ['c'], attributes: [attribute('value', 5, tensorMessage(at(11)))] }],
  );
  const graph = graphMessage(
    [
      float32('raw', [40, 50], weights(20, 2_000)),
      { ...float32('typed', [40, 50], weights(21, 2_000)), field: 4 },
      { name: 'doubles', dataType: 11, dims: [1_000], field: 10, bytes: rawOf(weights(22, 2_000)) },
    ],
    [
      { operator: 'If', outputs: ['i'], attributes: [attribute('then_branch', 6, body)] },
      { operator: 'Loop', outputs: ['l'], attributes: [attribute('body', 11, body)] },
      { operator: 'Constant', outputs: ['s'], attributes: [attribute('sparse_value', 22, sparse(30))] },
    ],
  ).message(15, sparse(40));
  const fn = new ProtobufWriter().message(
    7,
    nodeMessage({
      operator: 'Constant',
      outputs: ['f'],
      attributes: [attribute('value', 5, tensorMessage(at(50)))],
    }),
  );
  const training = new ProtobufWriter().message(
    1,
    graphMessage([float32('t', [40, 50], weights(60, 2_000))]),
  );
  const model = new ProtobufWriter()
    .int(1, 8)
    .message(7, graph)
    .message(20, training)
    .message(25, fn)
    .finish();
  const layout = readLayout(model);
  assert.ok(layout);
  assert.equal(layout.extents.length, 3 + 2 + 2 + 2 + 2 + 1 + 1);
  assert.equal(new Set(layout.extents.map(({ name }) => name)).size, layout.extents.length);
  for (const { offset, length } of layout.extents)
    assert.ok(offset > 0 && length === 8_000 && offset + length <= model.length);
  const shifted = new ProtobufWriter().string(2, 'another producer').finish();
  assert.ok(roundTrip(model, Buffer.concat([shifted, model])).length < 400);
});

test('padded varints, unknown fields and whatever else surrounds the numbers survive', () => {
  const raw = rawOf(old);
  // raw_data with a length of five bytes, where three do, and a field that no schema names.
  const length = Uint8Array.of(
    (raw.length & 127) | 128,
    ((raw.length >> 7) & 127) | 128,
    ((raw.length >> 14) & 127) | 128,
    128,
    0,
  );
  const inner = Buffer.concat([
    new ProtobufWriter().int(1, 64).int(1, 512).int(2, 1).string(8, 'w').string(99, 'unknown').finish(),
    Uint8Array.of(9 * 8 + 2),
    length,
    raw,
  ]);
  const odd = new ProtobufWriter().int(1, 8).message(7, new ProtobufWriter().bytes(5, inner)).finish();
  assert.deepEqual(waysOf(roundTrip(oldModel, odd)), ['base exact']);
  assert.deepEqual(waysOf(roundTrip(odd, oldModel)), ['base exact']);
});

test('external data: its model tells what lies in it, and tensors are found across files', () => {
  const external = (offset: number): ProtobufWriter => {
    const entry = (key: string, value: string): ProtobufWriter =>
      new ProtobufWriter().string(1, key).string(2, value);
    return new ProtobufWriter()
      .int(1, 64)
      .int(1, 512)
      .int(2, 1)
      .string(8, 'w')
      .message(13, entry('location', 'w.bin'))
      .message(13, entry('offset', String(offset)))
      .message(13, entry('length', String(count * 4)))
      .int(14, 1);
  };
  const modelOf = (offset: number): Uint8Array =>
    new ProtobufWriter()
      .int(1, 8)
      .message(7, new ProtobufWriter().message(5, external(offset)))
      .finish();
  const nudged = old.map((value) => value * 1.0001);
  const data = (values: Float32Array, before: number): Uint8Array =>
    Buffer.concat([new Uint8Array(before), rawOf(values), new Uint8Array(7)]);
  const base = [file(modelOf(64), 'net/model.onnx'), file(data(old, 64), 'net/w.bin')];
  const target = file(data(nudged, 4096), 'net/w.bin');
  const patch = roundTrip(base, target, [file(modelOf(4096), 'net/model.onnx')]);
  assert.deepEqual(waysOf(patch), ['base dense']);
  small(patch, count * 2);
  // From data beside the model to data inside, and back.
  assert.deepEqual(waysOf(roundTrip(base, oldModel)), ['base exact']);
  const out = roundTrip([file(oldModel)], file(data(old, 64), 'w.bin'), [file(modelOf(64))]);
  assert.deepEqual(waysOf(out), ['base exact']);
});

test('a tensor that grew is coded over the one of its name', () => {
  const grown = new Float32Array(count + 5 * 512);
  grown.set(old.subarray(0, 512 * 10));
  grown.set(weights(77, 5 * 512), 512 * 10);
  grown.set(old.subarray(512 * 10), 512 * 15);
  const patch = roundTrip(oldModel, modelBytes([float32('w', [69, 512], grown)]));
  assert.deepEqual(waysOf(patch), ['base patched']);
  small(patch, 5 * 512 * 4 + 500);
});

test('files that are no models, empty ones, and a base that looks like a zstd dictionary', () => {
  const text = Buffer.from('not a model, but the same words again and again. '.repeat(40));
  const noise = rawOf(weights(3, 5_000));
  const dictionary = Buffer.concat([Uint8Array.of(0x37, 0xa4, 0x30, 0xec), text]);
  const files = [text, noise, dictionary, new Uint8Array(0), Uint8Array.of(1), oldModel.subarray(0, 100_000)];
  for (const base of files) for (const target of files) roundTrip(base, target);
  roundTrip([], file(oldModel));
  small(roundTrip(dictionary, Buffer.concat([text, dictionary])), 200);
  small(roundTrip(oldModel, oldModel.subarray(0, 100_000)), 400);
});

test('the header tells what is needed and what comes out', () => {
  const target = modelBytes([float32('w', dims, weights(4, count))]);
  const patch = roundTrip(oldModel, target);
  const header = readDeltaHeader(patch);
  assert.ok(header.ok);
  assert.deepEqual(header.value.bases, [
    { digestStart: sha256Hex(oldModel).slice(0, 32), bytes: oldModel.length },
  ]);
  assert.deepEqual(header.value.target, { sha256: sha256Hex(target), bytes: target.length });
  assert.ok(header.value.memoryBytesMax > oldModel.length + patch.length);
});

test('a wrong base is refused before anything is written', () => {
  const target = modelBytes([
    float32(
      'w',
      dims,
      old.map((value) => value * 1.0001),
    ),
  ]);
  const patch = roundTrip(oldModel, target);
  const flipped = oldModel.slice();
  flipped[5_000] = (flipped[5_000] as number) ^ 1;
  for (const bases of [[flipped], [target], [oldModel.subarray(1)], [], [oldModel, oldModel]]) {
    let chunks = 0;
    const done = streamDelta({ patch, bases, zstd: systemZstd, sink: () => (chunks += 1) });
    assert.equal(done.ok ? '' : done.refusal.code, 'delta-base-mismatch');
    assert.equal(chunks, 0);
  }
});

test('the sink gets the file in order; limits are held before the bases are looked at', () => {
  const target = modelBytes([
    float32(
      'w',
      dims,
      old.map((value) => value * 1.0001),
    ),
  ]);
  const patch = roundTrip(oldModel, target);
  const chunks: Uint8Array[] = [];
  const done = streamDelta({
    patch,
    bases: [oldModel],
    zstd: systemZstd,
    sink: (chunk) => chunks.push(chunk.slice()),
  });
  assert.ok(done.ok);
  assert.equal(Buffer.compare(Buffer.concat(chunks), target), 0);
  for (const limits of [
    { targetBytesMax: target.length - 1, memoryBytesMax: 2 ** 40 },
    { targetBytesMax: target.length, memoryBytesMax: 2 ** 20 },
  ]) {
    const refused = applyDelta({ patch, bases: [], zstd: systemZstd, limits });
    assert.equal(refused.ok ? '' : refused.refusal.code, 'delta-too-large');
  }
});
