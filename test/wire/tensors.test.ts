// Why: tensors keep their bytes exactly on every way through, and a shape is never believed.
// Trusts: the platform's own typed arrays as the reference. Must never: depend on the data folder.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { datatypes } from '../../shared/wire/manifest.ts';
import {
  checkTensor,
  elementBytes,
  elementCount,
  halfToNumber,
  numberToHalf,
  type Tensor,
  tensorFromBytes,
  tensorToBytes,
} from '../../shared/wire/tensors.ts';

const refusalOf = (tensor: Tensor): string => {
  const checked = checkTensor(tensor);
  return checked.ok ? 'accepted' : checked.refusal.code;
};

test('elementCount: scalars, empty shapes, and what is no shape', () => {
  assert.equal(elementCount([]), 1);
  assert.equal(elementCount([2, 3, 4]), 24);
  assert.equal(elementCount([0, 5]), 0);
  for (const shape of [
    [-1],
    [1.5],
    [Number.NaN],
    [2 ** 53],
    [2 ** 32, 2 ** 32],
    [0, 2 ** 32, 2 ** 32],
    new Array(17).fill(1),
  ]) {
    assert.equal(elementCount(shape), Number.POSITIVE_INFINITY, `[${shape.join()}]`);
  }
});

test('bytes of every datatype go there and back', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...datatypes),
      fc.uint8Array({ maxLength: 64 }),
      fc.nat(7),
      (datatype, random, shift) => {
        if (datatype === 'BYTES') return;
        const width = elementBytes(datatype);
        const count = Math.floor(random.length / width);
        const raw = datatype === 'BOOL' ? random.map((byte) => byte % 2) : random;
        // Any alignment: the bytes come from the middle of a network frame.
        const frame = new Uint8Array(shift + count * width);
        frame.set(raw.subarray(0, count * width), shift);
        const tensor = tensorFromBytes('x', datatype, [count], frame.subarray(shift));
        assert.ok(tensor.ok);
        assert.deepEqual(tensorToBytes(tensor.value), frame.slice(shift));
      },
    ),
  );
});

test('strings go there and back, and claimed lengths are not believed', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0'))),
      (strings) => {
        const bytes = tensorToBytes({ name: 'x', datatype: 'BYTES', shape: [strings.length], data: strings });
        const back = tensorFromBytes('x', 'BYTES', [strings.length], bytes);
        assert.ok(back.ok);
        assert.deepEqual(back.value.data, strings);
        assert.equal(tensorFromBytes('x', 'BYTES', [strings.length + 1], bytes).ok, false);
      },
    ),
  );
  const huge = new Uint8Array([0xff, 0xff, 0xff, 0xff, 0x61]);
  assert.equal(tensorFromBytes('x', 'BYTES', [1], huge).ok, false);
  assert.equal(tensorFromBytes('x', 'BYTES', [2 ** 52], new Uint8Array(0)).ok, false);
  assert.equal(tensorFromBytes('x', 'BYTES', [1], new Uint8Array([1, 0, 0, 0, 0xff])).ok, false, 'not UTF-8');
});

test('checkTensor refuses what does not fit together', () => {
  const good: Tensor = { name: 'x', datatype: 'FP32', shape: [2], data: new Float32Array(2) };
  assert.equal(refusalOf(good), 'accepted');
  assert.equal(refusalOf({ ...good, name: '' }), 'infer-invalid');
  assert.equal(refusalOf({ ...good, shape: [3] }), 'infer-invalid');
  assert.equal(refusalOf({ ...good, shape: [-2] }), 'infer-invalid');
  assert.equal(refusalOf({ ...good, datatype: 'FP64' }), 'infer-invalid');
  assert.equal(refusalOf({ ...good, datatype: 'BYTES' }), 'infer-invalid');
  assert.equal(refusalOf({ ...good, data: ['a', 'b'] }), 'infer-invalid');
  assert.equal(
    refusalOf({ name: 'x', datatype: 'BOOL', shape: [1], data: new Uint8Array([2]) }),
    'infer-invalid',
  );
  assert.equal(refusalOf({ name: 'x', datatype: 'BYTES', shape: [1], data: ['a\0b'] }), 'infer-invalid');
  assert.equal(refusalOf({ name: 'x', datatype: 'BYTES', shape: [1], data: ['\ud800'] }), 'infer-invalid');
  assert.equal(refusalOf({ name: 'x', datatype: 'BYTES', shape: [1], data: ['😀'] }), 'accepted');
});

test('every half-precision pattern is read and written back', () => {
  for (let bits = 0; bits < 0x1_0000; bits++) {
    const value = halfToNumber(bits);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(halfToNumber(numberToHalf(value))));
    else assert.equal(numberToHalf(value), bits, `pattern ${bits.toString(16)}`);
  }
});

test('half precision rounds to the nearest, ties to even', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0x7bfe }),
      fc.oneof(fc.constant(0.5), fc.double({ min: 0, max: 1, noNaN: true })),
      (bits, part) => {
        const low = halfToNumber(bits);
        const high = halfToNumber(bits + 1);
        const value = low + (high - low) * part;
        const half = (low + high) / 2;
        const expected = value < half ? bits : value > half ? bits + 1 : bits % 2 === 0 ? bits : bits + 1;
        assert.equal(numberToHalf(value), expected);
        assert.equal(numberToHalf(-value), expected | 0x8000);
      },
    ),
  );
  assert.equal(numberToHalf(1), 0x3c00);
  assert.equal(numberToHalf(65_504), 0x7bff);
  assert.equal(numberToHalf(65_519.99), 0x7bff);
  assert.equal(numberToHalf(65_520), 0x7c00);
});
