// Why: a client never notices that a release was switched: no request fails, and each answer is that of the release
// it names. Trusts: swap-load.ts. Must never: time anything; `npm run soak` does.

import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { after, test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { openStage, startHttp } from './staging.ts';
import { askOver, question, startSwapLoad } from './swap-load.ts';

const connections = 16;
const durationMs = 3_000;

test('sixteen connections while two releases take turns', { skip: dataMissing }, async () => {
  const stage = openStage();
  const http = await startHttp(stage);
  after(async () => {
    await http.close();
    await stage.close();
  });
  const [old, next] = [modelCase('silero-vad/one-step-v5'), modelCase('silero-vad/one-step-v6')];
  const asked = question(`${http.url}/v2/models/vad/infer`, old.inputs);
  const own = new Map<string, Buffer>();
  const agent = new Agent({ keepAlive: true });
  const releases = [];
  for (const { modelPath } of [old, next]) {
    const release = await stage.serve('vad', modelPath);
    const { status, release: label, body } = await askOver(agent, asked);
    assert.deepEqual([status, label], [200, release.releaseId]);
    own.set(label, body);
    releases.push(release);
  }
  agent.destroy();
  const [a, b] = [...own.values()];
  assert.ok(a && b && !a.equals(b), 'their answers can be told apart');
  const counted = stage.host.requests().answered;

  const load = startSwapLoad(asked, own, connections);
  const endMs = systemClock.mono() + durationMs;
  let swaps = 0;
  for (; swaps < 2 || systemClock.mono() < endMs; swaps++) {
    const [from, to] = [releases[(swaps + 1) % 2], releases[swaps % 2]];
    assert.ok(from && to);
    unwrap(await stage.host.load(to));
    unwrap(await stage.host.activate('vad', to.manifestSha256));
    await stage.host.unload('vad', from.manifestSha256);
    const before = load.answered();
    while (load.answered() < before + connections) await systemClock.timer(5).done;
  }
  const { problems, byRelease, samples } = await load.stop();
  assert.deepEqual(problems, []);
  assert.deepEqual([...byRelease.keys()].sort(), releases.map(({ releaseId }) => releaseId).sort());
  assert.deepEqual(stage.host.requests(), { answered: counted + samples.length, failed: 0 });
});
