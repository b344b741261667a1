// Why: the native coder's traps stay closed: dictionaries do not outlive a call, memory is the caller's, damage is false.
// Trusts: RFC 8878 for what a frame looks like. Must never: need a data folder.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemZstd } from '../../shared/host/zstd.ts';
import { chance } from '../support/chance.ts';

const next = chance(5);
const dictionary = Uint8Array.from({ length: 200_000 }, () => Math.floor(next() * 256));
const text = dictionary.slice(50_000, 90_000);

function decoded(frame: Uint8Array, length: number, over?: Uint8Array): Uint8Array | null {
  const into = new Uint8Array(length);
  return systemZstd.decompress(frame.subarray(4), into, over) ? into : null;
}

test('frames come back at every level, with and without a dictionary', () => {
  for (const level of [1, 9, 19, 'symbols', 'text'] as const) {
    assert.deepEqual(decoded(systemZstd.compress(text, level), text.length), text);
    const over = systemZstd.compress(text, level, dictionary);
    assert.deepEqual(decoded(over, text.length, dictionary), text);
  }
});

test('the whole of a long dictionary is in reach, and no call sees that of another', () => {
  const long = Uint8Array.from({ length: 3_000_000 }, () => Math.floor(next() * 256));
  const target = Buffer.concat([new Uint8Array(1_000_000), long.subarray(0, 4_000)]);
  const over = systemZstd.compress(target, 9, long);
  assert.ok(over.length < 1_000, `${over.length} bytes`);
  assert.ok(systemZstd.compress(text, 9).length > text.length * 0.99, 'noise without its dictionary');
});

test('symbols that only differ in how common they are take what they are worth', () => {
  const symbols = Uint8Array.from({ length: 100_000 }, () => Math.floor(-Math.log2(1 - next())));
  const packed = systemZstd.compress(symbols, 'symbols').length;
  // Two bits each; level 1 finds repetitions by chance and pays for them.
  assert.ok(packed < 28_000, `${packed} bytes`);
  assert.ok(packed < systemZstd.compress(symbols, 1).length * 0.9);
});

test('damage, a wrong size and an empty frame are false, never an exception', () => {
  const frame = systemZstd.compress(text, 3);
  assert.equal(decoded(frame.subarray(0, frame.length - 1), text.length), null);
  assert.equal(decoded(frame, text.length - 1), null);
  assert.equal(decoded(frame, text.length + 1), null);
  assert.equal(decoded(new Uint8Array(4), 10), null);
  assert.equal(decoded(Buffer.concat([frame, frame.subarray(0, 4), frame.subarray(4)]), text.length), null);
});
