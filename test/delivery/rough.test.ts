// Why: the small form of `npm run soak:link` and `soak:kills`: a release's successor on a device whose agent is killed and
// whose link is cut in the middle of it. Trusts: rough.ts. Must never: pass without a kill or a cut.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { dataFolder, dataMissing } from '../support/data.ts';
import { withKills } from './rough.ts';
import { open } from './rough-scene.ts';

describe('a device that dies and a link that breaks', { skip: dataMissing }, () => {
  test('kill -9 in the download of a delta and in the rebuild, and cuts besides', async () => {
    const models = dataFolder('models/silero-vad');
    const { kills, cuts, down, onceBytes, told } = await withKills({
      models: [`${models}/silero-v5.onnx`, `${models}/silero-v6.onnx`],
      kills: [0, 2],
      links: [open, { bytesPerSecond: 500_000, delayMs: 10, cutEveryMs: 1_500 }],
      seed: 3,
    });
    const story = told.join('\n');
    assert.equal(kills, 2);
    assert.ok(cuts > 0, 'the link was never cut');
    assert.ok(
      told.some((line) => line.includes('fetch.resumed')),
      story,
    );
    assert.ok(
      told.some((line) => line.includes('fetch.rebuilt')),
      story,
    );
    // Each connection costs some kilobytes of its own, of which the full size has fewer for its bytes.
    assert.ok(down < 1.25 * onceBytes, `${down} bytes for ${onceBytes}\n${story}`);
  });
});
