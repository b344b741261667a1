// Why: the parts of the delta codec have a way back for every bit pattern, and compute what IEEE 754 says.
// Trusts: node:zlib's CRC-32 and TypedArrays as references. Must never: test only numbers that are likely.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 as referenceCrc32 } from 'node:zlib';
import fc from 'fast-check';
import { BitReader, BitWriter, bitPaddingBytes } from '../../shared/onnx/delta/bits.ts';
import { ByteReader, ByteWriter, crc32, DeltaFault } from '../../shared/onnx/delta/bytes.ts';
import {
  type ElementKind,
  elementBytes,
  loadElements,
  storeElements,
} from '../../shared/onnx/delta/elements.ts';
import { rint, toElement, toNumbers } from '../../shared/onnx/delta/numbers.ts';
import { addDifferences, differencesOf, symbolOf, symbolTable } from '../../shared/onnx/delta/symbols.ts';

const kinds: ElementKind[] = ['float32', 'float16', 'bfloat16', 'int8', 'int16', 'int32'];
/** Zeros of both signs, infinities, NaNs with payloads, subnormals and ends of ranges, in the high bits. */
const corners = [
  ...[0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00001, 0xffffffff, 0x7fffffff, 1, 0x80000001],
  ...[0x7c000000, 0xfc000000, 0x00010000, 0x3f800000, 0xbf800000],
];
const word = fc.oneof(fc.constantFrom(...corners), fc.integer({ min: 0, max: 2 ** 32 - 1 }));

test('every difference of every two bit patterns has a way back', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...kinds),
      fc.array(fc.tuple(word, word), { minLength: 1 }),
      (kind, pairs) => {
        const unused = 32 - elementBytes(kind) * 8;
        const base = Uint32Array.from(pairs, ([one]) => one >>> unused);
        const target = Uint32Array.from(pairs, ([, other]) => other >>> unused);
        const differences = new Int32Array(pairs.length);
        differencesOf(kind, base, target, pairs.length, differences);
        addDifferences(kind, base, differences, pairs.length);
        assert.deepEqual(base, target);
      },
    ),
    { numRuns: 500 },
  );
});

test('neighbouring floats differ by one, across zero too', () => {
  const values = Uint32Array.of(0x3f800000, 0xbf800000, 0x00000000, 0x80000000);
  const next = Uint32Array.of(0x3f800001, 0xbf800001, 0x80000000, 0x80000001);
  const differences = new Int32Array(4);
  differencesOf('float32', values, next, 4, differences);
  assert.deepEqual([...differences], [1, 1, -1, 1]);
});

test('a symbol and its raw bits are the difference', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.integer({ min: -70, max: 70 })),
      (value) => {
        const symbol = symbolOf(value);
        const rawBits = symbolTable.rawBits[symbol] as number;
        const amount = Math.abs(value);
        const raw = rawBits === 0 ? 0 : (amount & (0xffffffff >>> (32 - rawBits))) >>> 0;
        assert.equal((symbolTable.base[symbol] as number) + raw, amount);
        assert.equal(symbolTable.negative[symbol] === 1, value < 0);
        assert.ok(symbol < 256);
      },
    ),
    { numRuns: 2_000 },
  );
});

test('bits of any width come back in order, and a read past the end is noticed', () => {
  const parts = fc.array(fc.tuple(fc.integer({ min: 1, max: 29 }), word), { maxLength: 300 });
  fc.assert(
    fc.property(parts, (list) => {
      const writer = new BitWriter();
      for (const [bits, value] of list) writer.write(value & (0xffffffff >>> (32 - bits)), bits);
      const bytes = writer.finish();
      const padded = new Uint8Array(bytes.length + bitPaddingBytes);
      padded.set(bytes);
      const reader = new BitReader(padded, bytes.length);
      for (const [bits, value] of list) assert.equal(reader.read(bits), value & (0xffffffff >>> (32 - bits)));
      assert.ok(reader.finished);
      reader.read(29);
      assert.ok(reader.overrun);
    }),
  );
});

test('numbers of the patch come back; what ends too early or is too long is a fault', () => {
  fc.assert(
    fc.property(fc.array(fc.maxSafeInteger()), (values) => {
      const writer = new ByteWriter();
      for (const value of values) writer.signed(Math.trunc(value / 2)).varint(Math.abs(value));
      const reader = new ByteReader(writer.view());
      for (const value of values) {
        assert.equal(reader.signed() + 0, Math.trunc(value / 2) + 0);
        assert.equal(reader.varint(), Math.abs(value));
      }
      reader.end();
      assert.throws(() => reader.byte(), DeltaFault);
    }),
  );
  assert.throws(() => new ByteReader(new Uint8Array(9).fill(255)).varint(), DeltaFault);
  assert.throws(() => new ByteReader(Uint8Array.of(1, 2)).bytes(3), DeltaFault);
});

test('the checksum is CRC-32', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      assert.equal(crc32(bytes), referenceCrc32(bytes));
    }),
  );
});

test('elements are read at any alignment', () => {
  for (const width of [1, 2, 4] as const) {
    for (let shift = 0; shift < 4; shift++) {
      const memory = Uint8Array.from({ length: 64 }, (_, at) => at * 37);
      const bytes = memory.subarray(shift, shift + 32);
      const elements = new Uint32Array(32 / width);
      loadElements(bytes, width, elements);
      const back = new Uint8Array(32);
      storeElements(elements, width, back);
      assert.deepEqual(back, new Uint8Array(bytes));
    }
  }
});

test('nearest numbers: ties go to even, ranges end, NaN has one form', () => {
  assert.deepEqual(
    [0.5, 1.5, 2.5, -0.5, -1.5, 1e300, 3.2].map((value) => rint(value) + 0),
    [0, 2, 2, 0, -2, 1e300, 3],
  );
  assert.equal(toElement('int8', true, 127.5), 127);
  assert.equal(toElement('int8', true, -1e9), 0x80);
  assert.equal(toElement('int8', false, 300), 255);
  assert.equal(toElement('int8', true, Number.NaN), 0);
  assert.equal(toElement('int32', true, -1), 0xffffffff);
  assert.equal(toElement('int32', false, 2 ** 40), 0xffffffff);
  assert.equal(toElement('float32', true, Number.NaN), 0x7fc00000);
  assert.equal(toElement('float32', true, -0), 0x80000000);
  assert.equal(toElement('bfloat16', true, 1.00390625), 0x3f80);
  assert.equal(toElement('float16', true, 65520), 0x7c00);
  assert.equal(toElement('float16', true, -0), 0x8000);
});

test('all halves are their own nearest halves, and halfway values go to even', () => {
  const halves = Uint32Array.from({ length: 0x10000 }, (_, at) => at);
  const numbers = new Float64Array(0x10000);
  toNumbers('float16', true, halves, halves.length, numbers);
  for (const [bits, value] of numbers.entries()) {
    if (Number.isNaN(value)) continue;
    assert.equal(toElement('float16', true, value), bits);
    const next = numbers[bits + 1];
    if ((bits & 0x7fff) >= 0x7bff || next === undefined) continue;
    assert.equal(toElement('float16', true, (value + next) / 2), bits % 2 === 0 ? bits : bits + 1);
  }
});
