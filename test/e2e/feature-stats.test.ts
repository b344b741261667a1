// Why: what a model got and gave on a device reaches its region as counts in the bins of its reference profile, and nothing
// else of it does. Trusts: the real CLI, registry, agent and ONNX Runtime. Must never: accept "about as many".

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemPower } from '../../shared/host/power.ts';
import { driftSchema } from '../../shared/wire/drift.ts';
import { energySchema } from '../../shared/wire/energy.ts';
import { featuresStatsSchema } from '../../shared/wire/feature-stats.ts';
import { qualitySchema } from '../../shared/wire/quality.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { infer, makeClaim, rollOut } from '../support/fleet.ts';
import { recordsNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

test('counts of inputs and outputs of a real model', { skip: dataMissing }, async () => {
  const place = workplace('feature-stats');
  try {
    const registry = await startTestRegistry(place);
    const agent = await startTestAgent(place, await makeClaim(place, registry));
    const profile = JSON.stringify({
      schemaVersion: 1,
      features: [
        {
          kind: 'numeric',
          role: 'input',
          tensor: 'Input3',
          index: 14,
          edges: [0, 0.5, 1],
          counts: [0, 9, 1, 0],
        },
        {
          ...{ kind: 'categorical', role: 'output', tensor: 'Plus214_Output_0', index: 0, of: 'argmax' },
          ...{ values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], counts: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1] },
        },
      ],
    });
    const file = place.path('profile.json');
    writeFileSync(file, profile);
    const model = dataFolder('models/mnist/mnist-opset8.onnx');
    const manifest = place.path('manifest.json');
    writeFileSync(manifest, JSON.stringify({ energy: { model: 'per-request', joules: 0.25 } }));
    const name = ['--name', 'acme/digits', '--version', '1.0.0'];
    const push = ['models', 'push', model, ...name, '--profile', file, '--manifest', manifest];
    await registry.lepton(push);
    await rollOut(place, registry, 'acme/digits@1.0.0');

    const requests = 12;
    for (let request = 0; request < requests; request += 1)
      await infer(agent.http, 'digits', [
        {
          ...{ name: 'Input3', datatype: 'FP32', shape: [1, 1, 28, 28] },
          data: new Float32Array(784).fill(request % 2 === 0 ? 0 : 0.75),
        },
      ]);
    // The window ends with the agent.
    await agent.daemon.stop();
    await agent.restart();
    const features = (records: StoredRecord[]) =>
      records.find((record) => record.data['kind'] === 'features')?.data;
    await until('the counts are stored', async () =>
      features(await recordsNow(registry, { class: 'stats' })),
    );
    const { stdout: stored } = await registry.lepton(['telemetry', 'query', '--class', 'stats', '--json']);
    const data = features(
      stored
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as StoredRecord),
    );
    const stats = featuresStatsSchema.parse(data);
    assert.deepEqual(
      [stats.model, stats.profileSha256, stats.rows, stats.seenRows],
      ['digits', sha256Hex(new TextEncoder().encode(profile)), requests, requests],
    );
    const [input, output] = stats.features;
    // 28 rows of the picture, each looked at in its 15th column.
    assert.deepEqual(input?.counts, [0, (28 * requests) / 2, (28 * requests) / 2, 0]);
    assert.equal(
      output?.counts.reduce((sum, count) => sum + count, 0),
      requests,
    );
    assert.ok(output.counts.filter((count) => count === requests / 2 || count === requests).length > 0);

    const asked = await registry.lepton(['drift', 'acme/digits', '--json']);
    const drift = driftSchema.parse(JSON.parse(asked.stdout));
    assert.equal(drift.release, 'acme/digits@1.0.0');
    const [fleet] = drift.groups;
    assert.deepEqual([fleet?.devices, fleet?.rows], [1, requests]);
    assert.deepEqual(fleet?.features[0]?.live.shares, [0, 0.5, 0.5, 0]);
    assert.equal(fleet?.features[1]?.of, 'argmax');
    assert.equal(fleet?.features[1]?.live.count, requests);
    const { stdout: table } = await registry.lepton(['drift', 'acme/digits']);
    assert.ok(table.includes('│ ██ │'), table);

    const cost = await registry.lepton(['energy', 'acme/digits', '--json']);
    const [ofRelease] = energySchema.parse(JSON.parse(cost.stdout)).releases;
    const [told, ...more] = ofRelease?.methods ?? [];
    assert.deepEqual(more, []);
    assert.equal(told?.requests, requests);
    // Where the processor counts for whoever runs the tests, its number comes first.
    if (systemPower().joules() !== null) assert.equal(told.source, 'measured');
    else assert.deepEqual([told.source, told.joulesPer1000], ['modelled', 250]);
    if (process.platform === 'linux') assert.ok(told.cpuMsPer1000 !== null);
    assert.match((await registry.lepton(['energy', 'acme/digits'])).stdout, /acme\/digits@1\.0\.0/);

    const records = ['a', 'b', 'c'].map((id) =>
      JSON.stringify({ release: 'acme/digits@1.0.0', id, prediction: id === 'c' ? 7 : 3 }),
    );
    const posted = await fetch(`${agent.http}/telemetry/v1/records`, {
      method: 'POST',
      body: records.join('\n'),
    });
    assert.ok(posted.ok, await posted.text());
    const labels = place.path('labels.csv');
    writeFileSync(labels, 'id,label\na,3\nb,5\nc,7\n');
    const found = await until('answers and labels have met', async () => {
      await registry.lepton(['labels', 'import', labels]);
      const { stdout } = await registry.lepton(['quality', 'acme/digits', '--json']);
      const [window] = qualitySchema.parse(JSON.parse(stdout)).releases[0]?.windows ?? [];
      return window?.count === 3 ? window : null;
    });
    assert.equal(found.accuracy, 2 / 3);
    assert.match((await registry.lepton(['quality', 'acme/digits'])).stdout, /0\.667/);
  } finally {
    await place.close();
  }
});
