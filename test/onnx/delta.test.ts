// Why: a patch of a model gives back every bit of it, from the right base and from no other, whatever was done to it.
// Trusts: the real zstd. Must never: accept "about the same": bytes are compared.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemZstd as zstd } from '../../shared/host/zstd.ts';
import { applyDelta, streamDelta } from '../../shared/onnx/delta/apply.ts';
import { encodeDelta } from '../../shared/onnx/delta/encode.ts';
import { readDeltaHeader } from '../../shared/onnx/delta/header.ts';
import { identityModel } from '../registry-core/support.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const file = (path: string, bytes: Uint8Array) => ({ path, bytes });
const read = (path: string): Uint8Array => new Uint8Array(readFileSync(dataFolder('models', path)));

/** Patch from one to the other, applied; its size. */
function roundTrip(base: Uint8Array, target: Uint8Array): number {
  const patch = encodeDelta({ base: [file('base', base)], target: file('target', target), zstd });
  const made = applyDelta({ patch, bases: [base], zstd });
  assert.ok(made.ok, made.ok ? '' : made.refusal.detail);
  assert.equal(Buffer.compare(made.value, target), 0);
  return patch.length;
}

/** Numbers from a seed, the same in each run. */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Cut, longer, other bytes here and there, a part moved: what no export does, and a codec must still survive. */
function edited(bytes: Uint8Array, draw: (below: number) => number): Uint8Array {
  const at = draw(bytes.length);
  const some = new Uint8Array(1 + draw(40)).map(() => draw(256));
  switch (draw(4)) {
    case 0:
      return bytes.slice(0, at);
    case 1:
      return new Uint8Array(Buffer.concat([bytes.subarray(0, at), some, bytes.subarray(at)]));
    case 2:
      return new Uint8Array(Buffer.concat([bytes.subarray(at), bytes.subarray(0, at)]));
    default: {
      const changed = bytes.slice();
      for (let times = 1 + draw(30); times > 0; times -= 1) changed[draw(bytes.length)] = draw(256);
      return changed;
    }
  }
}

describe('deltas of made models', () => {
  const base = identityModel('a model');
  const target = identityModel('another model');

  test('of anything to anything, nothing included', () => {
    const files = [base, target, new Uint8Array(0), new Uint8Array([7]), new Uint8Array(3_000)];
    for (const from of files) for (const to of files) roundTrip(from, to);
  });

  test('without a base it is the file by itself', () => {
    const bytes = new Uint8Array(50_000).map((_, index) => index % 7);
    const patch = encodeDelta({ base: [], target: file('target', bytes), zstd });
    assert.ok(patch.length < bytes.length / 10);
    const made = applyDelta({ patch, bases: [], zstd });
    assert.deepEqual(made.ok && made.value, bytes);
  });

  test('another base is refused before a byte is given out', () => {
    const patch = encodeDelta({ base: [file('base', base)], target: file('target', target), zstd });
    for (const bases of [[target], [], [base, base], [base.slice(1)]]) {
      let given = 0;
      const sink = (chunk: Uint8Array): void => {
        given += chunk.length;
      };
      const made = streamDelta({ patch, bases, zstd, sink });
      assert.equal(made.ok ? 'ok' : made.refusal.code, 'delta-base-mismatch');
      assert.equal(given, 0);
    }
  });

  test('the header tells what it needs and makes', () => {
    const patch = encodeDelta({ base: [file('base', base)], target: file('target', target), zstd });
    const header = readDeltaHeader(patch);
    assert.ok(header.ok);
    assert.deepEqual(
      [header.value.bases.map(({ bytes }) => bytes), header.value.target.bytes],
      [[base.length], target.length],
    );
  });

  test('a patch that was changed anywhere is refused, or makes the very file', () => {
    const draw = chance(11);
    const patch = encodeDelta({ base: [file('base', base)], target: file('target', target), zstd });
    for (let round = 0; round < 600; round += 1) {
      const made = applyDelta({ patch: edited(patch, draw), bases: [base], zstd });
      if (made.ok) assert.equal(Buffer.compare(made.value, target), 0);
      else assert.match(made.refusal.code, /^delta-/);
    }
  });
});

describe('deltas of real models', { skip: dataMissing }, () => {
  const pairs: [string, string, number][] = [
    ['silero-vad/silero-v5.onnx', 'silero-vad/silero-v6.onnx', 1_600_000],
    ['silero-vad/silero-v6.onnx', 'silero-vad/silero-v5.onnx', 1_600_000],
    ['yolox-nano/yolox_nano-r2.onnx', 'yolox-nano/yolox_nano-r3.onnx', 3_000],
    ['yolox-nano/yolox_nano-r3.onnx', 'yolox-nano/yolox_nano-r2.onnx', 3_000],
    ['yolox-nano/yolox_nano-r2.onnx', 'derived-int8/yolox_nano-r2-int8qdq.onnx', 20_000],
  ];
  for (const [from, to, bytesMax] of pairs) {
    test(`${from} to ${to}: exact, at most ${bytesMax} bytes`, () => {
      const bytes = roundTrip(read(from), read(to));
      assert.ok(bytes <= bytesMax, `${bytes} bytes`);
    });
  }

  test('edited small models of several families, 80 times', () => {
    const draw = chance(5);
    const folders = ['mnist', 'sklearn'];
    const models = folders.flatMap((folder) =>
      readdirSync(dataFolder('models', folder), { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.onnx'))
        .map((name) => read(join(folder, name)))
        .filter(({ length }) => length < 100_000),
    );
    assert.ok(models.length >= 4);
    for (let round = 0; round < 80; round += 1) {
      const [one, two] = [models[draw(models.length)], models[draw(models.length)]];
      assert.ok(one && two);
      roundTrip(one, edited(two, draw));
    }
  });

  test('a real patch that was changed anywhere is refused, or makes the very file', () => {
    const base = read('yolox-nano/yolox_nano-r2.onnx');
    const target = read('yolox-nano/yolox_nano-r3.onnx');
    const patch = encodeDelta({ base: [file('base', base)], target: file('target', target), zstd });
    const draw = chance(3);
    for (let round = 0; round < 25; round += 1) {
      const made = applyDelta({ patch: edited(patch, draw), bases: [base], zstd });
      if (made.ok) assert.equal(Buffer.compare(made.value, target), 0);
      else assert.match(made.refusal.code, /^delta-/);
    }
  });
});
