// Why: the wire format reads back what was written and survives any bytes.
// Trusts: fast-check's shrinking. Must never: need a file from outside.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ProtobufFault, ProtobufReader, ProtobufWriter } from '../../shared/onnx/protobuf.ts';

test('integers, strings and messages come back as written', () => {
  const field = fc.integer({ min: 1, max: 2 ** 29 - 1 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(field, fc.oneof(fc.maxSafeInteger(), fc.string(), fc.uint8Array()))),
      (fields) => {
        const writer = new ProtobufWriter();
        for (const [number, value] of fields) {
          if (typeof value === 'number') writer.int(number, value);
          else if (typeof value === 'string') writer.string(number, value);
          else writer.message(number, new ProtobufWriter().bytes(1, value));
        }
        const reader = new ProtobufReader(writer.finish());
        for (const [number, value] of fields) {
          assert.ok(reader.next());
          assert.equal(reader.field, number);
          if (typeof value === 'number') assert.equal(reader.int(), value);
          else if (typeof value === 'string') assert.equal(reader.string(), value);
          else {
            const inner = reader.message();
            assert.ok(inner.next());
            assert.deepEqual(inner.bytes(), value);
            assert.equal(inner.next(), false);
          }
        }
        assert.equal(reader.next(), false);
      },
    ),
  );
});

test('bytes are views of the file, not copies', () => {
  const file = new ProtobufWriter().bytes(9, new Uint8Array(1000)).finish();
  const reader = new ProtobufReader(file);
  reader.next();
  assert.equal(reader.bytes().buffer, file.buffer);
});

test('repeated integers, packed and not', () => {
  const file = new ProtobufWriter()
    .int(1, 5)
    .bytes(1, Uint8Array.of(7, 0xac, 0x02))
    .int(1, -1)
    .finish();
  const reader = new ProtobufReader(file);
  const values: number[] = [];
  while (reader.next()) reader.ints(values);
  assert.deepEqual(values, [5, 7, 300, -1]);
});

test('every truncation and every wrong field is a fault of its own class', () => {
  const faults: [string, number[]][] = [
    ['a length beyond the end', [0x0a, 0x05, 1]],
    ['a length of 2^63', [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]],
    ['a number of eleven bytes', [0x08, ...new Array(10).fill(0x80), 1]],
    ['a number that ends', [0x08, 0x80]],
    ['field zero', [0x00, 0x01]],
    ['a group', [0x0b, 0x0c]],
    ['a fixed64 that ends', [0x09, 1, 2, 3]],
    ['a fixed32 that ends', [0x0d, 1]],
  ];
  for (const [name, bytes] of faults) {
    assert.throws(
      () => {
        const reader = new ProtobufReader(Uint8Array.from(bytes));
        while (reader.next()) reader.skip();
      },
      ProtobufFault,
      name,
    );
  }
  const reader = new ProtobufReader(Uint8Array.of(0x0a, 0x01, 0xff));
  reader.next();
  assert.throws(() => reader.int(), ProtobufFault, 'another type');
  assert.throws(() => reader.string(), ProtobufFault, 'not UTF-8');
});

test('any bytes at all either read or fault', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const reader = new ProtobufReader(bytes);
      try {
        while (reader.next()) reader.skip();
      } catch (error) {
        assert.ok(error instanceof ProtobufFault);
      }
    }),
    { numRuns: 2_000 },
  );
});
