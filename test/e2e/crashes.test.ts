// Why: power loss and crashes of the real programs: what was fetched is not fetched again, what serves goes on.
// Trusts: the registry's own counter of bytes served. Must never: end a process kindly where it says kill -9.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { modelCase } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import {
  checkCase,
  makeClaim,
  pushModel,
  rollOut,
  showDevice,
  startRollout,
  writeGoldenFolder,
} from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

async function bytesServed(http: string): Promise<number> {
  const text = await (await fetch(`${http}/metrics`)).text();
  const match = /^lepton_fetch_bytes_total (\d+)$/m.exec(text);
  assert.ok(match, text);
  return Number(match[1]);
}

/** Size of the largest file that is still being fetched. */
function partialBytes(state: string): number {
  const folder = join(state, 'blobs');
  if (!existsSync(folder)) return 0;
  const sizes = readdirSync(folder)
    .filter((name) => name.endsWith('.unverified'))
    // It may be renamed between the two calls.
    .map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0);
  return Math.max(0, ...sizes);
}

describe('crashes of the real programs', { skip: dataMissing }, () => {
  test('kill -9 of the agent in mid-fetch: it resumes and commits', async () => {
    const place = workplace('resume');
    try {
      const registry = await startTestRegistry(place);
      const agent = await startTestAgent(place, await makeClaim(place, registry));
      const model = dataFolder('models/densenet121-synth/densenet121_synth_v1.onnx');
      const modelBytes = statSync(model).size;
      await pushModel(registry, model, 'acme/densenet@1.0.0');
      const servedBefore = await bytesServed(registry.http);
      const id = await startRollout(place, registry, 'acme/densenet@1.0.0');

      for (const share of [0.2, 0.5]) {
        const reached = await until(`${share} of the model is fetched`, () => {
          const bytes = partialBytes(agent.state);
          return bytes > share * modelBytes ? bytes : null;
        });
        await agent.daemon.stop('SIGKILL');
        assert.ok(reached < modelBytes, 'the kill came after the fetch: the test proves nothing');
        assert.ok(partialBytes(agent.state) > 0, 'the partial file is gone');
        await agent.restart();
      }

      await registry.lepton(['rollout', 'watch', id]);
      const device = await showDevice(registry, agent.id);
      assert.equal(device.models[0]?.state, 'committed');
      assert.ok(
        agent.daemon.events().some((line) => line['event'] === 'fetch.resumed'),
        'the agent never said that it resumed',
      );
      const served = (await bytesServed(registry.http)) - servedBefore;
      // It may have come compressed: then that is what must not be sent twice.
      const ways = agent.daemon.events().filter((line) => line['event'] === 'fetch.rebuilt');
      const fileBytes = Number(ways.find((line) => line['bytes'] === modelBytes)?.['byBytes'] ?? modelBytes);
      assert.ok(served >= fileBytes, `only ${served} bytes were served: the counter is wrong`);
      assert.ok(served < 1.1 * fileBytes, `${served} bytes served for a file of ${fileBytes}`);
    } finally {
      await place.close();
    }
  });

  test('kill -9 of the registry: agents go on serving, and reconnect on the same port', async () => {
    const place = workplace('registry-crash');
    try {
      const registry = await startTestRegistry(place);
      const agent = await startTestAgent(place, await makeClaim(place, registry));
      const digit = modelCase('mnist/digit4-opset8');
      await pushModel(registry, digit.modelPath, 'acme/mnist@1.0.0', [
        '--golden',
        writeGoldenFolder(place, digit),
      ]);
      await rollOut(place, registry, 'acme/mnist@1.0.0');
      const before = { ...registry.daemon.ready };

      await registry.daemon.stop('SIGKILL');
      for (let request = 0; request < 20; request += 1) await checkCase(agent.http, 'mnist', digit);
      await agent.daemon.stop('SIGKILL');
      await agent.restart();
      await until('the agent serves again, without a registry', async () => {
        const ready = await fetch(`${agent.http}/v2/models/mnist/ready`);
        await ready.arrayBuffer();
        return ready.ok;
      });
      await checkCase(agent.http, 'mnist', digit);

      await registry.restart();
      assert.deepEqual(registry.daemon.ready, before);
      await until(
        'the agent is online again',
        async () => (await deviceNow(registry, agent.id)).presence === 'online',
      );
      const other = modelCase('mnist/digit4-opset7');
      await pushModel(registry, other.modelPath, 'acme/mnist@2.0.0', [
        '--golden',
        writeGoldenFolder(place, other),
      ]);
      assert.equal((await rollOut(place, registry, 'acme/mnist@2.0.0')).state, 'succeeded');
      await checkCase(agent.http, 'mnist', other);
    } finally {
      await place.close();
    }
  });
});
