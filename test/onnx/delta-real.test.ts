// Why: real releases, which nobody here made: patches rebuild to the bit in both directions and are as small as
// promised. Trusts: the data folder. Must never: measure time; `npm run bench -- delta` does, and `npm run
// delta:pairs` runs every pair.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemZstd } from '../../shared/host/zstd.ts';
import { chance, edited } from '../support/chance.ts';
import { dataMissing } from '../support/data.ts';
import { families, familyPairs, type Pair, pairOf, readModelFile } from '../support/delta-families.ts';
import { roundTrip } from './delta-models.ts';

/**
 * Bytes that the promise allows: a share of what `zstd -19 --ultra --long=27 --patch-from` 1.5.4 makes, as it was
 * measured once. The bench measures both.
 */
const promised: [base: string, target: string, zstdBytes: number, share: number][] = [
  ['silero-vad/silero-v5.onnx', 'silero-vad/silero-v6.onnx', 1_727_975, 0.91],
  ['yolox-nano/yolox_nano-r2.onnx', 'yolox-nano/yolox_nano-r3.onnx', 6_996, 0.42],
  ['yolox-nano/yolox_nano-r2.onnx', 'derived-int8/yolox_nano-r2-int8qdq.onnx', 899_297, 0.05],
  ['ultraface-rfb320/ultraface-rfb320.onnx', 'derived-int8/ultraface-rfb320-int8qdq.onnx', 211_903, 0.05],
  [
    'densenet121-synth/densenet121_synth_v1.onnx',
    'densenet121-synth/densenet121_synth_v2_headtuned.onnx',
    3_958_685,
    0.72,
  ],
];

const check = ({ base, target }: Pair): number =>
  roundTrip(readModelFile(base), readModelFile(target)).length;
const smallBytesMax = 64 * 1024;
/** Of the many small models; the rest is in `npm run delta:pairs`. */
const sampledPairs = 60;
const backEvery = 3;

describe('real models', { skip: dataMissing }, () => {
  for (const [base, target, zstdBytes, share] of promised) {
    const pair = pairOf(base, target);
    test(`${pair.name}: at most ${share} of zstd’s patch`, () => {
      const bytes = check(pair);
      assert.ok(bytes <= zstdBytes * share, `${bytes} bytes, ${(bytes / zstdBytes).toFixed(3)}`);
    });
  }

  test('back again, and between conversions: some pairs of each family', () => {
    const done = new Set(promised.map(([base, target]) => pairOf(base, target).name));
    for (const family of ['yolox', 'ultraface', 'mnist', 'light']) {
      const pairs = familyPairs(families().get(family) ?? []).filter(({ name }) => !done.has(name));
      for (const [at, pair] of pairs.entries()) if (at % backEvery === 0) check(pair);
    }
  });

  test('small models: some pairs of a family and across families, with edits and cuts', () => {
    const next = chance(11);
    const small = [...families().values()]
      .flat()
      .filter((path) => readModelFile(path).length <= smallBytesMax);
    const one = (): Uint8Array => readModelFile(small[Math.floor(next() * small.length)] ?? '');
    for (let left = sampledPairs; left > 0; left--) {
      const base = one();
      const target = next() < 0.4 ? edited(base, next) : next() < 0.5 ? edited(one(), next) : one();
      const patch = roundTrip(base, target);
      const start = base.subarray(0, 4).join() === '55,164,48,236' ? 1 : 0;
      const plain = systemZstd.compress(target, 19, base.subarray(start));
      assert.ok(patch.length <= plain.length + 64, `${patch.length} beside ${plain.length}`);
    }
  });
});
