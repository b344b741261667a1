// Why: what a question is answered with is what was stored, whatever the bytes look like and whatever was asked for.
// Trusts: fast-check, and `JSON.parse`. Must never: compare the lines with another way of making the same lines.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { recordLines } from '../../registry/telemetry/record-lines.ts';
import { plainOf, recordsIn } from '../../registry/telemetry/sealed-records.ts';

const place = { deviceId: 'ab'.repeat(16), epoch: 3, sequence: 12, class: 'app' as const };

const record = fc.record(
  {
    timeMs: fc.oneof(fc.maxSafeNat(), fc.integer({ min: -5_000, max: 20_000 })),
    release: fc.constantFrom(null, 'acme/pump@1.0.0', 'acme/pump@1.0.1', 'acme/pump@1.0'),
    data: fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()).map((data) => JSON.stringify(data)),
  },
  { noNullPrototype: true },
);

const wanted = fc.record({
  first: fc.nat(12),
  limit: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constant(Number.POSITIVE_INFINITY)),
  sinceMs: fc.constantFrom(Number.NEGATIVE_INFINITY, 0, 5_000),
  untilMs: fc.constantFrom(5_000, 15_000, Number.POSITIVE_INFINITY),
  release: fc.constantFrom(null, 'acme/pump@1.0.0', 'acme/pump@1.0'),
});

test('stored records come back as they were, as records and as lines', () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 25 }), wanted, (records, asked) => {
      const plain = plainOf(records);
      assert.deepEqual(recordsIn(plain), records);
      const expected = records
        .map(({ timeMs, release, data }, index) => {
          const { deviceId: device, epoch, sequence, class: kind } = place;
          return { device, epoch, sequence, index, class: kind, timeMs, release, data: JSON.parse(data) };
        })
        .filter(({ index }) => index >= asked.first)
        .filter(({ timeMs }) => timeMs >= asked.sinceMs && timeMs < asked.untilMs)
        .filter(({ release }) => asked.release === null || release === asked.release)
        .slice(0, asked.limit);
      const found = recordLines(plain, place, asked);
      const lines = new TextDecoder('utf-8', { fatal: true }).decode(found.lines).split('\n');
      assert.equal(lines.pop(), '');
      assert.equal(found.records, expected.length);
      assert.deepEqual(
        lines.map((line) => JSON.parse(line)),
        expected,
      );
    }),
  );
});
