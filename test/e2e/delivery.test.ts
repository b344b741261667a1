// Why: the whole way of a smaller update: the registry encodes a release against the one before it, the agent fetches
// that, rebuilds the model in a process of its own and serves it.
// Trusts: the real programs. Must never: pass where the file came as it is.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { checkCase, makeClaim, pushModel, rollOut, showDevice } from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

interface ShownVersion {
  version: string;
  deltas: { from: string; bytes: number }[];
}

test('a retrained model comes as its difference to the one before it, and is served', {
  skip: dataMissing,
}, async () => {
  const place = workplace('delivery');
  try {
    const [before, after] = [modelCase('silero-vad/one-step-v5'), modelCase('silero-vad/one-step-v6')];
    const registry = await startTestRegistry(place);
    const agent = await startTestAgent(place, await makeClaim(place, registry), 'agent');
    const active = async () => (await deviceNow(registry, agent.id)).models[0]?.active;
    const roll = async (modelPath: string, release: string): Promise<void> => {
      await pushModel(registry, modelPath, release);
      await rollOut(place, registry, release);
      await until(`${release} serves`, async () => (await active()) === release, 60_000);
      assert.equal((await showDevice(registry, agent.id)).models[0]?.active, release);
    };
    await roll(before.modelPath, 'acme/vad@1.0.0');
    await pushModel(registry, after.modelPath, 'acme/vad@2.0.0');
    const versions = async (): Promise<ShownVersion[]> =>
      (
        (await registry.lepton(['models', 'show', 'acme/vad', '--json'])).json() as {
          versions: ShownVersion[];
        }
      ).versions;
    const shown = await until(
      'the delta is made',
      async () => (await versions()).find(({ version, deltas }) => version === '2.0.0' && deltas.length > 0),
      60_000,
    );
    const [delta] = shown.deltas;
    assert.ok(delta);
    assert.ok(delta.bytes < 1_600_000, `${delta.bytes} bytes`);
    await rollOut(place, registry, 'acme/vad@2.0.0');
    await until('release 2 serves', async () => (await active()) === 'acme/vad@2.0.0', 60_000);
    const rebuilt = agent.daemon.events().filter(({ event }) => event === 'fetch.rebuilt');
    const over = rebuilt.filter(({ bases }) => (bases as string[]).length === 1);
    assert.deepEqual(
      over.map(({ byBytes }) => byBytes),
      [delta.bytes],
      JSON.stringify(rebuilt),
    );
    await checkCase(agent.http, 'vad', after);
  } finally {
    await place.close();
  }
});
