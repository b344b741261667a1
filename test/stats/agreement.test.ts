// Why: agreement says what its name says, for every comparison, on made tensors and on boxes.
// Trusts: nothing. Must never: take a missing output for agreement.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  agreementOf,
  comparedOutputs,
  differenceEdges,
  differences,
  observeDifferences,
} from '../../shared/stats/agreement.ts';
import {
  type Detection,
  decodeDetections,
  detectionAgreement,
  imageSizeOf,
  inferDetections,
  iou,
} from '../../shared/stats/detections.ts';
import type { Histogram } from '../../shared/stats/histogram.ts';
import {
  type Compare,
  type Comparison,
  compareSchema,
  detectionsSchema,
} from '../../shared/wire/manifest.ts';
import { numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';

const floats = (shape: number[], data: number[], name = 'y'): Tensor => ({
  name,
  datatype: 'FP32',
  shape,
  data: Float32Array.from(data),
});
const score = (a: Tensor[], b: Tensor[], compare?: Compare): number | null =>
  agreementOf(a, b, compare).score;

test('each comparison on its own ground', () => {
  const a = floats([2, 3], [0.1, 0.7, 0.2, 5, 4, 3]);
  const same = floats([2, 3], [0.1004, 0.7, 0.2, 5, 4, 3]);
  const swapped = floats([2, 3], [0.1, 0.2, 0.7, 5, 4, 3]);
  const table: [Compare, Tensor, number][] = [
    [{ by: 'exact' }, a, 1],
    [{ by: 'exact' }, same, 5 / 6],
    [{ by: 'absolute', tolerance: 0.001 }, same, 1],
    [{ by: 'absolute', tolerance: 0.0001 }, same, 5 / 6],
    [{ by: 'relative', tolerance: 0.001 }, same, 1],
    [{ by: 'argmax' }, same, 1],
    [{ by: 'argmax' }, swapped, 0.5],
    [{ by: 'top-k', k: 2 }, swapped, 1],
    [{ by: 'top-k', k: 1 }, swapped, 0.5],
    [{ by: 'argmax', output: 'y' }, swapped, 0.5],
  ];
  for (const [compare, other, wanted] of table) {
    const got = score([a], [other], compare);
    assert.ok(got !== null && Math.abs(got - wanted) < 1e-9, `${JSON.stringify(compare)}: ${got}`);
  }
});

test('integers, strings and halves', () => {
  const integers = (data: number[]): Tensor => ({
    name: 'label',
    datatype: 'INT64',
    shape: [data.length],
    data: BigInt64Array.from(data, BigInt),
  });
  assert.equal(score([integers([1, 2])], [integers([1, 3])], { by: 'absolute', tolerance: 5 }), 0.5);
  const texts = (data: string[]): Tensor => ({ name: 't', datatype: 'BYTES', shape: [data.length], data });
  assert.equal(score([texts(['a', 'b'])], [texts(['a', 'c'])]), 0.5);
  assert.equal(score([texts(['a'])], [texts(['a'])], { by: 'argmax' }), null);
  const halves = (data: number[]): Tensor => ({
    name: 'h',
    datatype: 'FP16',
    shape: [data.length],
    data: Uint16Array.from(data, numberToHalf),
  });
  assert.equal(score([halves([1, 2])], [halves([1.005, 2.5])]), 0.5);
});

test('what cannot be compared is no agreement', () => {
  const a = floats([2], [1, 2]);
  assert.equal(score([a], [floats([3], [1, 2, 3])]), 0, 'another shape is another answer');
  assert.equal(score([a], []), null);
  assert.equal(score([], []), null);
  assert.equal(score([a], [a], { by: 'exact', output: 'other' }), null);
  assert.equal(score([floats([2], [Number.NaN, 1])], [floats([2], [Number.NaN, 2])]), 0.5);
  assert.equal(score([a], [a], compareSchema.parse({ by: 'iou' })), null, 'no detections');
  assert.throws(() => compareSchema.parse({ by: 'vibes' }));
  assert.equal(score([a], [a], compareSchema.parse({ by: 'topk' })), 1);
});

test('the outputs that are looked at', () => {
  assert.deepEqual(comparedOutputs(undefined, ['a', 'b']), ['a', 'b']);
  assert.deepEqual(comparedOutputs({ by: 'exact', output: 'a' }, ['a', 'b']), ['a']);
  assert.deepEqual(comparedOutputs({ by: 'exact', output: 'a', outputs: ['b', 'a'] }, ['a', 'b', 'c']), [
    'a',
    'b',
  ]);
  const detections = detectionsSchema.parse({ boxes: 'b', scores: 's' });
  assert.deepEqual(comparedOutputs({ by: 'iou', detections }, ['b', 's', 'z']), ['b', 's']);
});

test('differences go where their decade is', () => {
  const histograms = new Map<string, Histogram>();
  for (const other of [1, 1.05, 3, Number.NaN, Number.POSITIVE_INFINITY])
    observeDifferences(histograms, differences([floats([1], [1])], [floats([1], [other])]));
  const counts = histograms.get('y')?.counts ?? [];
  const at = (edge: number): number => counts[differenceEdges.indexOf(edge)] ?? Number.NaN;
  assert.deepEqual([at(0), at(0.1), at(10), counts.at(-1)], [1, 1, 1, 2]);
});

const box = (x0: number, y0: number, x1: number, y1: number, label = 0, one = 0.9): Detection => ({
  x0,
  y0,
  x1,
  y1,
  label,
  score: one,
});

test('intersection over union', () => {
  assert.equal(iou(box(0, 0, 2, 2), box(0, 0, 2, 2)), 1);
  assert.equal(iou(box(0, 0, 2, 2), box(1, 0, 3, 2)), 1 / 3);
  assert.equal(iou(box(0, 0, 1, 1), box(1, 1, 2, 2)), 0);
  assert.equal(iou(box(0, 0, 0, 0), box(0, 0, 0, 0)), 0);
  assert.equal(iou(box(2, 2, 0, 0), box(0, 0, 2, 2)), 0, 'a box turned inside out');
});

const bounds = { iouMin: 0.5, scoreMin: 0.3 };

test('boxes agree as pairs of one class', () => {
  const a = [box(0, 0, 2, 2), box(10, 10, 12, 12, 1)];
  assert.equal(detectionAgreement(a, a, bounds), 1);
  assert.equal(detectionAgreement([], [], bounds), 1);
  assert.equal(detectionAgreement(a, [], bounds), 0);
  assert.equal(detectionAgreement(a, [box(0, 0, 2, 2), box(10, 10, 12, 12, 2)], bounds), 0.5);
  assert.equal(
    detectionAgreement([box(0, 0, 2, 2), box(0, 0, 2, 2)], [box(0, 0, 2, 2)], bounds),
    2 / 3,
    'no partner serves twice',
  );
});

test('boxes come out of scores beside boxes, of one row, and of a grid', () => {
  const beside = detectionsSchema.parse({ boxes: 'b', scores: 's', background: 1, scoreMin: 0.5 });
  const found = decodeDetections(
    [
      floats([1, 3, 4], [0, 0, 1, 1, 0, 0, 1, 1.05, 5, 5, 6, 6], 'b'),
      floats([1, 3, 2], [0.1, 0.9, 0.2, 0.8, 0.8, 0.2], 's'),
    ],
    beside,
  );
  assert.deepEqual(
    found?.map(({ label, y1 }) => [label, y1]),
    [[0, 1]],
    'the overlapping one is suppressed, the last is background',
  );
  const grid = detectionsSchema.parse({
    boxes: 'y',
    format: 'cxcywh',
    grid: { strides: [8, 16], imageSize: [16, 16] },
  });
  // Four cells of stride 8, one of 16; the second cell holds a box of 8 by 16 around its middle.
  const rows = Array.from({ length: 5 }, (_, index) =>
    index === 1 ? [0.5, 0.5, 0, Math.log(2), 0.9, 0.1, 0.9] : [0, 0, 0, 0, 0.1, 0.9, 0.1],
  ).flat();
  const [one, ...more] = decodeDetections([floats([1, 5, 7], rows)], grid) ?? [];
  assert.equal(more.length, 0);
  assert.ok(one);
  const near = (value: number, wanted: number): void =>
    assert.ok(Math.abs(value - wanted) < 1e-4, `${value} for ${wanted}`);
  near(one.x0, 8);
  near(one.x1, 16);
  near(one.y0, -4);
  near(one.y1, 12);
  assert.equal(one.label, 1);
  assert.equal(decodeDetections([floats([1, 4, 7], rows.slice(0, 28))], grid), null, 'not this grid');
  assert.equal(decodeDetections([floats([1, 5, 7], rows, 'z')], grid), null, 'no such output');
});

test('a layout that nobody said is found out from the shapes', () => {
  const image = (shape: number[]): Tensor =>
    floats(shape, Array(shape.reduce((a, b) => a * b, 1)).fill(0), 'image');
  assert.deepEqual(imageSizeOf([image([1, 3, 16, 32])]), [16, 32]);
  assert.deepEqual(imageSizeOf([image([1, 16, 32, 3])]), [16, 32]);
  assert.equal(imageSizeOf([image([1, 3])]), null);
  const rows = (count: number): Tensor => floats([1, count, 7], Array(count * 7).fill(0));
  assert.deepEqual(inferDetections([rows(5)], [16, 16])?.grid, { strides: [8, 16], imageSize: [16, 16] });
  assert.equal(inferDetections([rows(6)], [16, 16])?.grid, undefined);
  const beside = inferDetections(
    [floats([1, 2, 4], Array(8).fill(0), 'b'), floats([1, 2, 2], Array(4).fill(0), 's')],
    null,
  );
  assert.deepEqual([beside?.boxes, beside?.scores, beside?.background], ['b', 's', 1]);
  assert.equal(inferDetections([floats([3], [1, 2, 3])], null), null);
});

test('agreement lies between 0 and 1 and is 1 with itself', () => {
  const tensor = fc
    .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 6 }))
    .chain(([rows, width]) =>
      fc
        .array(fc.float(), { minLength: rows * width, maxLength: rows * width })
        .map((data) => floats([rows, width], data)),
    );
  const by = fc.constantFrom<Comparison>('exact', 'absolute', 'relative', 'argmax', 'top-k');
  fc.assert(
    fc.property(tensor, tensor, by, (a, b, one) => {
      assert.equal(score([a], [a], { by: one }), 1);
      const got = score([a], [b], { by: one }) ?? 0;
      assert.ok(got >= 0 && got <= 1);
    }),
  );
});
