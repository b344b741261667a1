// Why: a reference profile must count as a device counts, or every device drifts from its first day; and its bins must
// show changes. Trusts: the agent's own tally as the measure. Must never: compare the maker with itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { joinInputs } from '../../agent/inference/batching.ts';
import { createTally } from '../../agent/inference/tally.ts';
import { binEdges } from '../../registry/learn/bin-edges.ts';
import {
  chooseFeatures,
  chunksFor,
  createProfileMaker,
  type FeatureChoice,
} from '../../registry/learn/profile-making.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { binOf, binsOf } from '../../shared/stats/binning.ts';
import { learnedThresholds } from '../../shared/stats/drift.ts';
import { featureDrift } from '../../shared/stats/feature-drift.ts';
import { listsOf } from '../../shared/stats/measuring.ts';
import type { FeaturesStats } from '../../shared/wire/feature-stats.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import { type Profile, parseProfile } from '../../shared/wire/profile.ts';
import { numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';

const window = 100;
const signatures: { inputs: TensorSignature[]; outputs: TensorSignature[] } = {
  inputs: [
    { name: 'values', datatype: 'FP32', shape: [-1, 3] },
    { name: 'past', datatype: 'FP16', shape: [-1, window, 2] },
    { name: 'texts', datatype: 'BYTES', shape: [-1, 1] },
    { name: 'whole', datatype: 'INT64', shape: [-1, 1] },
    { name: 'on', datatype: 'BOOL', shape: [-1, 1] },
  ],
  outputs: [
    { name: 'label', datatype: 'BYTES', shape: [-1] },
    { name: 'probabilities', datatype: 'FP32', shape: [-1, 3] },
    { name: 'logits', datatype: 'FP64', shape: [-1, 4] },
    { name: 'value', datatype: 'FP32', shape: [-1] },
  ],
};

/** Numbers that repeat with the seed alone. */
const noise = (at: number): number => {
  const value = Math.sin(at * 12.9898) * 43_758.5453;
  return value - Math.floor(value);
};

function tensor(name: string, datatype: Datatype, shape: number[], from: number, count: number): Tensor {
  const at = (index: number): number => noise(from * 1_000 + index * 7.3);
  if (datatype === 'BYTES')
    return {
      name,
      datatype,
      shape,
      data: Array.from({ length: count }, (_, index) => 'abcd'[Math.floor(at(index) * 4)] ?? ''),
    };
  if (datatype === 'INT64')
    return {
      name,
      datatype,
      shape,
      data: BigInt64Array.from({ length: count }, (_, index) => BigInt(Math.floor(at(index) * 5))),
    };
  if (datatype === 'BOOL')
    return {
      name,
      datatype,
      shape,
      data: Uint8Array.from({ length: count }, (_, index) => (at(index) < 0.2 ? 1 : 0)),
    };
  if (datatype === 'FP16')
    return {
      name,
      datatype,
      shape,
      data: Uint16Array.from({ length: count }, (_, index) => numberToHalf(at(index) * 9 - 3)),
    };
  const numbers = Array.from({ length: count }, (_, index) =>
    at(index) < 0.05 ? Number.NaN : at(index) ** 3 * 40 - 5,
  );
  return {
    name,
    datatype,
    shape,
    data: datatype === 'FP64' ? Float64Array.from(numbers) : Float32Array.from(numbers),
  };
}

/** A batch holds what its rows hold alone. */
function batch(list: readonly TensorSignature[], from: number, rows: number): Tensor[] {
  const alone = Array.from({ length: rows }, (_, row) =>
    list.map(({ name, datatype, shape }, at) => {
      const filled = shape.map((size) => (size < 0 ? 1 : size));
      const count = filled.reduce((all, one) => all * one, 1);
      return tensor(name, datatype, filled, (from + row) * 50 + at, count);
    }),
  );
  return joinInputs(alone);
}

const parsed = (profile: Profile): Profile => unwrap(parseProfile(Buffer.from(JSON.stringify(profile))));

test('the maker counts what the agent counts of the same rows, one by one', () => {
  const rows = 240;
  const { features, leftOut } = chooseFeatures(signatures, {
    inputs: batch(signatures.inputs, 0, 2),
    outputs: batch(signatures.outputs, 0, 2),
  });
  assert.equal(leftOut, 0);
  const key = ({ role, tensor: name, index, of, kind }: FeatureChoice): string =>
    `${role} ${name} ${index} ${of} ${kind}`;
  assert.deepEqual(features.map(key).sort(), [
    'input on 0 value categorical',
    'input past 0 value numeric',
    'input past 1 value numeric',
    'input texts 0 value categorical',
    'input values 0 value numeric',
    'input values 1 value numeric',
    'input values 2 value numeric',
    'input whole 0 value numeric',
    'output label 0 value categorical',
    'output logits 0 max numeric',
    'output probabilities 0 max numeric',
    'output value 0 value numeric',
  ]);
  const argmax: FeatureChoice = {
    role: 'output',
    tensor: 'logits',
    index: 0,
    of: 'argmax',
    kind: 'categorical',
  };
  const maker = createProfileMaker({ ...signatures, features: [...features, argmax], rows, chunks: 8 });
  for (let from = 0; from < rows; from += 16)
    maker.add(batch(signatures.inputs, from, 16), batch(signatures.outputs, from, 16));
  const profile = parsed(maker.finish());

  const tally = createTally(profile, () => 0, listsOf([...signatures.inputs, ...signatures.outputs]));
  for (let row = 0; row < rows; row += 1)
    tally.count(batch(signatures.inputs, row, 1), batch(signatures.outputs, row, 1), 1);
  const counted = tally.take(1);
  assert.equal(counted?.rows, rows);
  for (const feature of profile.features) {
    const { role, index, of = 'value' } = feature;
    const found: FeaturesStats['features'][number] | undefined = counted?.features.find(
      (one) => one.role === role && one.tensor === feature.tensor && one.index === index && one.of === of,
    );
    const name = `${feature.tensor} ${index} ${of}`;
    assert.deepEqual(found?.counts, feature.counts, name);
    assert.equal(found?.missing, feature.missing, name);
    if (feature.kind === 'categorical') assert.equal(found?.other, feature.other, name);
    assert.equal(feature.chunks.length, 8);
    const whole = feature.kind === 'numeric' ? feature.counts : [...feature.counts, feature.other];
    const sums = whole.map((_, at) => feature.chunks.reduce((sum, chunk) => sum + (chunk[at] ?? 0), 0));
    assert.deepEqual(sums, whole, name);
    const { verdict, distances } = featureDrift(feature, {
      ...found,
      role,
      tensor: feature.tensor,
      index,
      of,
      counts: feature.counts,
      missing: feature.missing,
      other: found?.other ?? 0,
    });
    assert.equal(verdict, 'ok', name);
    assert.ok((distances?.psi ?? 1) < 1e-12);
    assert.ok(learnedThresholds(feature) !== null, name);
  }
});

test('parts are consecutive rows', () => {
  const input: TensorSignature = { name: 'x', datatype: 'FP64', shape: [-1, 1] };
  const features: FeatureChoice[] = [{ role: 'input', tensor: 'x', index: 0, of: 'value', kind: 'numeric' }];
  const maker = createProfileMaker({ inputs: [input], outputs: [], features, rows: 80, chunks: 8, bins: 8 });
  for (let from = 0; from < 80; from += 20) {
    const data = Float64Array.from({ length: 20 }, (_, row) => Math.floor((from + row) / 10));
    maker.add([{ name: 'x', datatype: 'FP64', shape: [20, 1], data }], []);
  }
  const [feature] = maker.finish().features;
  assert.deepEqual(
    feature?.chunks,
    Array.from({ length: 8 }, (_, at) =>
      Array.from({ length: 10 }, (_none, bin) => (bin === at + 1 ? 10 : 0)),
    ),
  );
});

test('edges rise, hold every value, and separate values that are common', () => {
  const value = fc.oneof(
    fc.float({ noNaN: false }),
    fc.constantFrom(0, -0, 1, 5, 5.5, Math.fround(1e-45), 3.4028234663852886e38, -3.4028234663852886e38),
  );
  fc.assert(
    fc.property(fc.array(value, { maxLength: 60 }), fc.integer({ min: 1, max: 20 }), (values, bins) => {
      const edges = binEdges(Float64Array.from(values), bins, true);
      assert.ok(edges.length >= 2 && edges.length <= bins + 1, edges.join());
      assert.ok(
        edges.every(
          (edge, at) =>
            Number.isFinite(edge) &&
            Math.fround(edge) === edge &&
            (at === 0 || edge > (edges[at - 1] ?? edge)),
        ),
        edges.join(),
      );
      const places = binsOf(edges);
      for (const one of values.filter(Number.isFinite)) {
        const place = binOf(places, one);
        assert.ok(place >= 1 && place < edges.length, `${one} in ${edges.join()}`);
      }
    }),
    { numRuns: 500 },
  );
  const counted = (values: number[], bins: number): number[] => {
    const edges = binEdges(Float64Array.from(values), bins, false);
    const counts = Array<number>(edges.length + 1).fill(0);
    for (const one of values) {
      const place = binOf(binsOf(edges), one);
      counts[place] = (counts[place] ?? 0) + 1;
    }
    return counts;
  };
  // 0 and 1 are two bins, however rare one of them is.
  assert.deepEqual(counted([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 10), [0, 1, 12, 0]);
  assert.deepEqual(counted([...Array<number>(99).fill(0), 1], 10), [0, 99, 1, 0]);
  assert.deepEqual(counted([3, 1, 2, 3], 10), [0, 1, 1, 2, 0]);
  assert.deepEqual(counted([0, 1, ...Array<number>(98).fill(2)], 10), [0, 1, 1, 98, 0]);
  // A sensor that mostly says 0: the rest still has bins of its own.
  const mostly = counted(
    [...Array<number>(500).fill(0), ...Array.from({ length: 500 }, (_, at) => at + 1)],
    10,
  );
  assert.equal(mostly[1], 500);
  assert.ok(mostly.length >= 6, mostly.join());
  // Many different values: bins of about equal counts.
  const even = counted(
    Array.from({ length: 1_000 }, (_, at) => at ** 2),
    10,
  );
  assert.deepEqual(even, [0, ...Array<number>(10).fill(100), 0]);
  const [low = 0, high = 0, ...more] = binEdges(Float64Array.of(20, 20, Number.NaN), 10, true);
  assert.ok(low < 20 && low > 19.9 && high > 20 && high < 20.1 && more.length === 0);
  assert.deepEqual(binEdges(Float64Array.of(Number.NaN), 10, true), [0, 1]);
});

test('a shift is a drift, the same distribution is none', () => {
  const input: TensorSignature = { name: 'x', datatype: 'FP32', shape: [-1, 1] };
  const features: FeatureChoice[] = [{ role: 'input', tensor: 'x', index: 0, of: 'value', kind: 'numeric' }];
  const maker = createProfileMaker({ inputs: [input], outputs: [], features, rows: 2_000 });
  const drawn = (from: number, count: number, shift: number): Tensor => {
    const data = Float32Array.from(
      { length: count },
      (_, at) => noise(from + at) + noise(from + at + 0.5) + shift,
    );
    return { name: 'x', datatype: 'FP32', shape: [count, 1], data };
  };
  maker.add([drawn(0, 2_000, 0)], []);
  const profile = parsed(maker.finish());
  const [feature] = profile.features;
  assert.ok(feature);
  assert.equal(feature.chunks.length, chunksFor(2_000));
  for (const [shift, verdict] of [
    [0, 'ok'],
    [0.6, 'drift'],
  ] as const) {
    const tally = createTally(profile, () => 0);
    tally.count([drawn(5_000, 60, shift)], [], 1);
    for (let row = 0; row < 1_000; row += 1) tally.count([drawn(6_000 + row, 1, shift)], [], 1);
    const counted = tally.take(1)?.features[0];
    assert.ok(counted);
    assert.equal(featureDrift(feature, { ...counted, other: 0 }).verdict, verdict);
  }
});

test('what is missing, rare, too long or too much', () => {
  const inputs: TensorSignature[] = [
    { name: 'texts', datatype: 'BYTES', shape: [-1, 1] },
    { name: 'gone', datatype: 'FP32', shape: [-1, 2] },
  ];
  const features: FeatureChoice[] = [
    { role: 'input', tensor: 'texts', index: 0, of: 'value', kind: 'categorical' },
    { role: 'input', tensor: 'gone', index: 0, of: 'value', kind: 'numeric' },
    { role: 'input', tensor: 'gone', index: 0, of: 'argmax', kind: 'categorical' },
    { role: 'input', tensor: 'gone', index: 7, of: 'value', kind: 'numeric' },
  ];
  const data = Array.from({ length: 1_000 }, (_, at) =>
    at % 2 === 0 ? 'often' : at % 3 === 0 ? 'x'.repeat(600) : `rare ${at}`,
  );
  const gone = new Float32Array(2_000).fill(Number.NaN);
  const maker = createProfileMaker({ inputs, outputs: [], features, rows: 1_000 });
  maker.add(
    [
      { name: 'texts', datatype: 'BYTES', shape: [1_000, 1], data },
      { name: 'gone', datatype: 'FP32', shape: [1_000, 2], data: gone },
    ],
    [],
  );
  const [texts, numbers, classes, beyond] = parsed(maker.finish()).features;
  assert.ok(texts?.kind === 'categorical' && texts.values[0] === 'often' && texts.counts[0] === 500);
  assert.equal(texts.values.length, 256);
  assert.equal(texts.counts.reduce((sum, one) => sum + one, 0) + texts.other, 1_000);
  for (const one of [numbers, classes, beyond]) {
    assert.equal(one?.missing, 1_000);
    assert.ok(one.counts.every((count) => count === 0));
  }
  // A wide model: fewer parts, so that a device reads the file.
  const many = Array.from(
    { length: 2_000 },
    (_, index): FeatureChoice => ({ role: 'input', tensor: 'x', index, of: 'value', kind: 'numeric' }),
  );
  const wide = createProfileMaker({
    inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 2_000] }],
    outputs: [],
    features: many,
    rows: 5_000,
  });
  const row = Float32Array.from({ length: 2_000 * 50 }, (_, at) => noise(at));
  for (let at = 0; at < 100; at += 1)
    wide.add([{ name: 'x', datatype: 'FP32', shape: [50, 2_000], data: row }], []);
  const profile = wide.finish();
  const text = JSON.stringify(profile);
  assert.ok(text.length < 4 * 1024 * 1024, String(text.length));
  assert.ok(profile.features.reduce((sum, { counts }) => sum + counts.length, 0) <= 65_536);
});
