// Why: holds what is counted of a request, bin by bin. Trusts: nothing. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTallies } from '../../agent/inference/tallies.ts';
import { createTally, type Tally } from '../../agent/inference/tally.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { featuresStatsSchema } from '../../shared/wire/feature-stats.ts';
import { profileSchema } from '../../shared/wire/profile.ts';
import { numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';

const still = (): number => 0;
const floats = (name: string, shape: number[], ...data: number[]): Tensor => ({
  ...{ name, datatype: 'FP32', shape },
  data: Float32Array.from(data),
});
const numeric = (tensor: string, index: number, edges: number[], more: object = {}) => ({
  ...{ kind: 'numeric', role: 'input', tensor, index, edges, counts: Array(edges.length + 1).fill(0) },
  ...more,
});
const profile = (...features: object[]) => profileSchema.parse({ schemaVersion: 1, features });

test('numbers fall into under, bins and over; the last edge belongs to the last bin', () => {
  const tally = createTally(profile(numeric('x', 0, [0, 1, 2])), still);
  for (const value of [-1, 0, 0.5, 1, 2, 3, Number.NaN, Number.POSITIVE_INFINITY])
    tally.count([floats('x', [1, 1], value)], [], 1);
  const window = tally.take(1_000);
  assert.deepEqual(window?.features, [
    { role: 'input', tensor: 'x', index: 0, of: 'value', counts: [1, 2, 2, 2], missing: 1 },
  ]);
  assert.deepEqual([window.rows, window.seenRows, window.windowMs], [8, 8, 1_000]);
  featuresStatsSchema.parse({ ...window, model: 'm', profileSha256: '0'.repeat(64) });
  assert.equal(tally.take(1_000), null, 'the next window begins empty');
});

test('rows of a batch count each, at their place on the last axis; a place that is not there is missing', () => {
  const tally = createTally(profile(numeric('x', 1, [0, 10]), numeric('x', 5, [0, 10])), still);
  tally.count([floats('x', [3, 2], 1, 5, 1, 50, 1, -5)], [], 1);
  const window = tally.take(1);
  assert.deepEqual(
    [window?.rows, window?.features.map(({ counts, missing }) => [counts, missing])],
    [
      3,
      [
        [[1, 1, 1], 0],
        [[0, 0, 0], 1],
      ],
    ],
  );
});

test('a classifier: its class and how sure it is', () => {
  const output = { role: 'output', tensor: 'y', index: 0 };
  const tally = createTally(
    profile(
      { ...output, kind: 'categorical', of: 'argmax', values: [0, 1], counts: [0, 0] },
      { ...output, kind: 'numeric', of: 'max', edges: [0, 0.5, 1], counts: [0, 0, 0, 0] },
    ),
    still,
  );
  for (const row of [
    [0.1, 0.2, 0.7],
    [0.2, 0.45, 0.35],
    [0.9, 0.1, 0],
  ])
    tally.count([], [floats('y', [1, 3], ...row)], 1);
  const [classes, confidence] = tally.take(1)?.features ?? [];
  assert.deepEqual([classes?.counts, classes?.other], [[1, 1], 1]);
  assert.deepEqual(confidence?.counts, [0, 1, 2, 0]);
});

test('strings, booleans, halves and wide integers', () => {
  const tally = createTally(
    profile(
      { kind: 'categorical', role: 'input', tensor: 's', index: 0, values: ['a'], counts: [0] },
      { kind: 'categorical', role: 'input', tensor: 'b', index: 0, values: [0, 1], counts: [0, 0] },
      numeric('h', 0, [0, 2]),
      numeric('i', 0, [0, 2]),
    ),
    still,
  );
  tally.count(
    [
      { name: 's', datatype: 'BYTES', shape: [2, 1], data: ['a', 'z'] },
      { name: 'b', datatype: 'BOOL', shape: [1], data: Uint8Array.of(1) },
      { name: 'h', datatype: 'FP16', shape: [1], data: Uint16Array.of(0x3c00) },
      { name: 'i', datatype: 'INT64', shape: [1], data: BigInt64Array.of(-3n) },
    ],
    [],
    1,
  );
  assert.deepEqual(
    tally.take(1)?.features.map(({ tensor, counts, other }) => [tensor, counts, other]),
    [
      ['s', [1], 1],
      ['b', [0, 1], 0],
      ['h', [0, 1, 0], undefined],
      ['i', [1, 0, 0], undefined],
    ],
  );
});

test('counting that costs too much of the time stops for a while, and says so', () => {
  let nowMs = 0;
  // Each look at the clock takes 1 ms: counting costs as much as running.
  const tally = createTally(profile(numeric('x', 0, [0, 1])), () => (nowMs += 1));
  for (let request = 0; request < 100; request += 1) tally.count([floats('x', [1, 1], 0.5)], [], 1);
  const window = tally.take(1);
  assert.equal(window?.seenRows, 100);
  assert.ok(window.rows >= 5 && window.rows <= 15, `${window.rows} rows`);
});

test('a row without any number has no class and no confidence; a row of the lowest has its first', () => {
  const output = { role: 'output', tensor: 'y', index: 0 };
  const tally = createTally(
    profile(
      { ...output, kind: 'categorical', of: 'argmax', values: [0, 1], counts: [0, 0] },
      { ...output, kind: 'numeric', of: 'max', edges: [0, 1], counts: [0, 0, 0] },
    ),
    still,
  );
  const [none, lowest] = [Number.NaN, Number.NEGATIVE_INFINITY];
  tally.count([], [floats('y', [3, 2], none, none, lowest, lowest, none, 0.5)], 1);
  assert.deepEqual(
    tally.take(1)?.features.map(({ counts, missing }) => [counts, missing]),
    [
      [[1, 1], 1],
      [[1, 1, 0], 1],
    ],
  );
});

test('a list has a value for each row, where a vector has one at the place', () => {
  const features = profile({
    kind: 'categorical',
    role: 'output',
    tensor: 'label',
    index: 0,
    values: ['a', 'b'],
    counts: [0, 0],
  });
  const labels: Tensor = { name: 'label', datatype: 'BYTES', shape: [3], data: ['b', 'a', 'b'] };
  const counted = (lists: string[]) => {
    const tally = createTally(features, still, new Set(lists));
    tally.count([floats('x', [3, 1], 1, 2, 3)], [labels], 1);
    return tally.take(1)?.features[0]?.counts;
  };
  assert.deepEqual(
    [counted(['label']), counted([])],
    [
      [1, 2],
      [0, 1],
    ],
  );
});

test('values of a profile as tensors of less precision hold them', () => {
  const category = { kind: 'categorical', role: 'input', index: 0, values: [0.1, 0.2], counts: [0, 0] };
  const tally = createTally(profile({ ...category, tensor: 'f' }, { ...category, tensor: 'h' }), still);
  const half: Tensor = {
    name: 'h',
    datatype: 'FP16',
    shape: [2, 1],
    data: Uint16Array.of(numberToHalf(0.2), 0),
  };
  tally.count([floats('f', [2, 1], 0.1, 0.3), half], [], 1);
  assert.deepEqual(
    tally.take(1)?.features.map(({ counts, other }) => [counts, other]),
    [
      [[1, 0], 1],
      [[0, 1], 1],
    ],
  );
});

test('one count during which the processor was taken away does not stop the counting', () => {
  let nowMs = 0;
  let tickMs = 0.001;
  const tally = createTally(profile(numeric('x', 0, [0, 1])), () => (nowMs += tickMs));
  for (let request = 0; request < 100; request += 1) {
    tickMs = request === 50 ? 500 : 0.001;
    tally.count([floats('x', [1, 1], 0.5)], [], 0.1);
  }
  assert.equal(tally.take(1)?.rows, 100);
});

const anySignature = { inputs: [], outputs: [] };

/** A profile's file as a manifest names it, and tallies on a disk that holds it. */
function talliesOf(text: string) {
  const bytes = Buffer.from(text);
  const file = {
    ...{ path: 'profile.json', role: 'profile' as const },
    ...{ sha256: sha256Hex(bytes), bytes: bytes.length },
  };
  const reasons: string[] = [];
  const tallies = createTallies({
    clock: systemClock,
    disk: { read: async (path) => (path === `blobs/${file.sha256}` ? bytes : null) },
    log: { emit: (_level, event, fields) => void reasons.push(`${event} ${String(fields?.['detail'])}`) },
  });
  const open = (as: string, releaseId: string) =>
    tallies.open(as, releaseId, { files: [file] }, anySignature);
  return { tallies, open, reasons };
}

/** What `open` says of this profile, and the records of one request. */
async function recordsOf(text: string, width: number) {
  const { tallies, open, reasons } = talliesOf(text);
  const tally = await open('b', 'a/b@1.0.0');
  tally?.count([floats('x', [1, width], ...Array(width).fill(0.5))], [], 1);
  return { reasons, records: tallies.take().map(({ data }) => featuresStatsSchema.parse(data)) };
}

test('models and releases are counted apart; one that was unloaded is told of once more, one that came back goes on', async () => {
  const { tallies, open } = talliesOf(
    JSON.stringify({ schemaVersion: 1, features: [numeric('x', 0, [0, 1])] }),
  );
  const names = [
    ['m', 'a/b@1.0.0'],
    ['m', 'a/b@2.0.0'],
    ['n', 'a/b@2.0.0'],
  ] as const;
  const opened: Tally[] = [];
  for (const [as, releaseId] of names) {
    const tally = await open(as, releaseId);
    assert.ok(tally !== null);
    opened.push(tally);
  }
  const [old, next] = opened;
  assert.ok(old !== undefined && next !== undefined);
  const told = () =>
    tallies.take().map(({ release, data }) => [data['model'], release, featuresStatsSchema.parse(data).rows]);
  for (const [at, tally] of opened.entries())
    for (let request = 0; request <= at; request += 1) tally.count([floats('x', [1, 1], 0.5)], [], 1);
  tallies.close(old);
  tallies.close(next);
  assert.equal(await open('m', 'a/b@2.0.0'), next);
  assert.deepEqual(
    told(),
    names.map((name, at) => [...name, at + 1]),
  );
  // Nothing takes of the one that is gone any more.
  for (const tally of opened) tally.count([floats('x', [1, 1], 0.5)], [], 1);
  assert.deepEqual(
    told(),
    names.slice(1).map((name) => [...name, 1]),
  );
});

test('a window of many features goes into records that the outbox takes; rows and time stand in one', async () => {
  const width = 3_000;
  const features = Array.from({ length: width }, (_, index) => numeric('x', index, [0, 1]));
  const { records } = await recordsOf(JSON.stringify({ schemaVersion: 1, features }), width);
  assert.ok(records.length > 1);
  for (const record of records) assert.ok(Buffer.byteLength(JSON.stringify(record)) < limits.recordBytesMax);
  assert.deepEqual(
    records.flatMap((record) => record.features.map(({ index }) => index)),
    features.map(({ index }) => index),
  );
  assert.deepEqual(
    records.map(({ rows, seenRows }) => [rows, seenRows]),
    records.map((_, at) => (at === 0 ? [1, 1] : [0, 0])),
  );
  assert.ok(records.slice(1).every(({ windowMs }) => windowMs === 0));
});

test('a profile that is torn, or has more counts than a device keeps, is not counted and is told', async () => {
  const edges = Array.from({ length: 4_000 }, (_, at) => at);
  const many = Array.from({ length: 17 }, (_, index) => numeric('x', index, edges));
  for (const text of [
    '{"schemaVersion": 1, "features": [',
    JSON.stringify({ schemaVersion: 1, features: many }),
  ]) {
    const { reasons, records } = await recordsOf(text, 1);
    assert.match(reasons.join(), /^inference\.profile\.unusable /);
    assert.equal(reasons.length, 1);
    assert.deepEqual(records, []);
  }
});

test('of a large tensor some places are looked at, spread over all', () => {
  const tally = createTally(profile(numeric('x', 0, [0, 1, 2])), still);
  const data = Array.from({ length: 10_000 }, (_, at) => (at < 5_000 ? 0.5 : 1.5));
  tally.count([floats('x', [1, 10_000, 1], ...data)], [], 1);
  assert.deepEqual(tally.take(1)?.features[0]?.counts, [0, 32, 32, 0]);
});
