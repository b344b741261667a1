// Why: two models that one application uses together change together on a real agent: both, or neither.
// Trusts: real programs, models and cases. Must never: look at the registry's word alone; both models are asked.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { writeGolden } from '../../shared/wire/golden.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import { asGolden, modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { checkCase, fleetEvents, makeClaim, pushModel, rollOut, showDevice } from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

const digits = modelCase('mnist/digit4-opset8');

test('two models switch together, or go back together', { skip: dataMissing }, async () => {
  const place = workplace('together');
  try {
    const registry = await startTestRegistry(place);
    const agent = await startTestAgent(place, await makeClaim(place, registry));
    // Golden cases that no run of the model gives.
    const wrong = place.path('wrong.json');
    const golden = asGolden(digits);
    const expected = golden.expected.map((one) => ({
      ...{ name: one.name, datatype: 'FP32' as const, shape: one.shape },
      data: new Float32Array(10).fill(7),
    }));
    writeFileSync(
      wrong,
      writeGolden([{ ...golden, expected }], { dataFiles: [], inlineBytesMax: 1_000_000 }),
    );
    const older = modelCase('mnist/digit4-opset7').modelPath;
    for (const name of ['acme/left', 'acme/right']) {
      await pushModel(registry, older, `${name}@1.0.0`);
      await rollOut(place, registry, `${name}@1.0.0`);
      await pushModel(registry, digits.modelPath, `${name}@2.0.0`);
    }
    await pushModel(registry, digits.modelPath, 'acme/right@3.0.0', ['--golden', wrong]);
    await pushModel(registry, older, 'acme/left@3.0.0');
    const start = async (name: string, releases: string[]): Promise<string> => {
      const file = place.path(`${name}.json`);
      const spec = { releases, waves: [{ percent: 100, soak: '1s' }] };
      writeFileSync(
        file,
        JSON.stringify({ apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name }, spec }),
      );
      return ((await registry.lepton(['rollout', 'start', '-f', file, '--json'])).json() as { id: string })
        .id;
    };
    const status = async (id: string): Promise<RolloutStatus> =>
      (await registry.lepton(['rollout', 'status', id, '--json'])).json() as RolloutStatus;
    const served = async (): Promise<string[]> => {
      const found: string[] = [];
      for (const model of ['left', 'right']) {
        const answer = await fetch(`${agent.http}/v2/models/${model}`);
        const { versions } = (await answer.json()) as { versions: string[] };
        found.push(versions[0] ?? '-');
      }
      return found;
    };

    const good = await start('good', ['acme/left@2.0.0', 'acme/right@2.0.0']);
    // In the midst of it the device loses its power.
    await agent.daemon.stop('SIGKILL');
    await agent.restart();
    await registry.lepton(['rollout', 'watch', good]);
    assert.deepEqual([(await status(good)).state, await served()], ['succeeded', ['2.0.0', '2.0.0']]);
    for (const model of ['left', 'right']) await checkCase(agent.http, model, digits);

    const bad = await start('bad', ['acme/left@3.0.0', 'acme/right@3.0.0']);
    await registry.lepton(['rollout', 'watch', bad], 1);
    const failed = await status(bad);
    assert.equal(failed.state, 'failed');
    assert.match(failed.reason ?? '', /^gate probe of wave 0: .*probe-golden-failed/);
    assert.deepEqual(await served(), ['2.0.0', '2.0.0']);
    for (const model of ['left', 'right']) await checkCase(agent.http, model, digits);
    // Found out beside its work, in a process of its own that is gone by now.
    await until(
      'the agent tells with what it runs models',
      async () => (await deviceNow(registry, agent.id)).agent.providers !== undefined,
    );
    const device = await showDevice(registry, agent.id);
    assert.equal(device.agent.providers?.[0], 'cpu');
    const codes = (await fleetEvents(registry, agent.id)).map(({ code }) => code);
    assert.ok(codes.includes('update-parted') && codes.includes('probe-golden-failed'), codes.join());
  } finally {
    await place.close();
  }
});
