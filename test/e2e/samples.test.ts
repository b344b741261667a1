// Why: a request that a device is not sure of reaches a person, without what may not leave the device, and comes out as a
// row for training. Trusts: the real CLI, registry, agent and ONNX Runtime. Must never: look for a sample by its place.

import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  sampleEntrySchema,
  sampleListSchema,
  sampleRowSchema,
  sampleShownSchema,
  samplesStatsSchema,
} from '../../shared/wire/samples.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { modelCase } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { makeClaim, rollOut } from '../support/fleet.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

test('samples of a real model: kept, masked, reviewed, exported, erased', { skip: dataMissing }, async () => {
  const place = workplace('samples');
  try {
    const registry = await startTestRegistry(place);
    const agent = await startTestAgent(place, await makeClaim(place, registry));
    const profile = place.path('profile.json');
    const pixel = {
      kind: 'numeric',
      role: 'input',
      tensor: 'Input3',
      index: 0,
      edges: [0, 255],
      counts: [0, 9, 0],
    };
    writeFileSync(profile, JSON.stringify({ schemaVersion: 1, features: [pixel] }));
    const model = dataFolder('models/mnist/mnist-opset8.onnx');
    const name = ['--name', 'acme/digits', '--version', '1.0.0', '--profile', profile];
    await registry.lepton(['models', 'push', model, ...name]);

    const api = async (method: string, path: string, body?: object): Promise<string> => {
      const headers = { authorization: `Bearer ${registry.token}`, 'content-type': 'application/json' };
      const sent = body === undefined ? {} : { body: JSON.stringify(body) };
      const answer = await fetch(`${registry.http}/api/v1${path}`, { method, headers, ...sent });
      const text = await answer.text();
      assert.equal(answer.status, 200, text);
      return text;
    };
    await api('PUT', '/masking', {
      rules: [
        { do: 'drop', field: 'id' },
        { do: 'round', field: 'inputs.Input3', to: 0.5 },
      ],
    });
    const rules = place.path('rules.yaml');
    writeFileSync(
      rules,
      'apiVersion: lepton/v1\nkind: SampleRules\n' +
        'rules:\n  lowConfidence: {below: 0.2}\n  outOfRange: true\n  perHourMax: 2\n',
    );
    const set = await registry.lepton(['samples', 'rules', 'acme/digits', '-f', rules]);
    assert.match(set.stdout, /confidence below 0\.2\n[\s\S]*at most 2 an hour/);
    // Before the release: the assignment that names it names the rules.
    await rollOut(place, registry, 'acme/digits@1.0.0');

    const digit = Array.from(modelCase('mnist/digit4-opset8').inputs[0]?.data ?? [], Number);
    const ask = async (id: string, data: number[]): Promise<void> => {
      const inputs = [{ name: 'Input3', datatype: 'FP32', shape: [1, 1, 28, 28], data }];
      const body = JSON.stringify({ id, inputs });
      const answer = await fetch(`${agent.http}/v2/models/digits/infer`, { method: 'POST', body });
      assert.equal(answer.status, 200, await answer.text());
    };
    const all = (pixel: number): number[] => Array<number>(784).fill(pixel);
    await ask('sure', digit);
    await ask('grey', all(0.25));
    await ask('sure', digit);
    await ask('outside', all(300.25));
    await ask('too many', all(0.25));
    // What is open goes out, and the window ends, with the agent.
    await agent.daemon.stop();
    await agent.restart();
    const [second, first] = await until('the samples are stored', async () => {
      const { samples } = sampleListSchema.parse(JSON.parse(await api('GET', '/samples?model=acme/digits')));
      return samples.length > 1 ? samples : null;
    });
    assert.ok(first && second);
    assert.deepEqual([first.reasons, first.state], [['low-confidence'], 'waiting']);
    assert.ok(second.reasons.includes('out-of-range'));
    const counted = await until('the counts are stored', async () => {
      const records = (await api('GET', '/telemetry?class=stats')).split('\n').filter((line) => line !== '');
      return records
        .map((line) => (JSON.parse(line) as StoredRecord).data)
        .find(({ kind }) => kind === 'samples');
    });
    const { kept, over, tooLarge } = samplesStatsSchema.parse(counted);
    assert.deepEqual([kept, over, tooLarge], [2, 1, 0]);

    const json = async (...args: string[]): Promise<unknown> =>
      (await registry.lepton(['samples', ...args, '--json'])).json();
    const shown = sampleShownSchema.parse(JSON.parse(await api('GET', `/samples/${first.id}`)));
    assert.equal(shown.requestId, null, 'masked');
    const [input] = shown.inputs;
    assert.deepEqual([input?.name, input?.shape], ['Input3', [1, 1, 28, 28]]);
    assert.deepEqual([...new Set(input?.data)], [0.5], 'rounded, on the device');
    assert.equal(shown.outputs[0]?.data.length, 10);
    assert.ok(shown.confidence !== null && shown.confidence > 0.1 && shown.confidence < 0.2);
    assert.match(
      (await registry.lepton(['samples', 'show', first.id])).stdout,
      /Input3 FP32\[1,1,28,28\]: 0\.5 0\.5/,
    );

    const accept = ['--accept', '7', '--comment', 'clearly'];
    const accepted = sampleEntrySchema.parse(await json('review', first.id, ...accept));
    assert.deepEqual([accepted.state, accepted.label, accepted.reviewer], ['accepted', '7', 'admin']);
    await api('POST', `/samples/${second.id}/review`, { decision: 'reject' });
    await registry.lepton(['samples', 'review', first.id], 2);
    const table = await registry.lepton(['samples', 'list', '--state', 'accepted']);
    assert.ok(table.stdout.includes(first.id) && !table.stdout.includes(second.id), table.stdout);

    const out = place.path('dataset.ndjson');
    const exported = await json('export', 'acme/digits', '-o', out);
    assert.deepEqual(exported, { model: 'acme/digits', file: out, format: 'ndjson', samples: 1, erased: 0 });
    const row = sampleRowSchema.parse(JSON.parse(readFileSync(out, 'utf8')));
    assert.deepEqual([row.target, row.inputs], ['7', shown.inputs]);
    assert.equal(statSync(out).mode & 0o077, 0);
    const refused = await registry.lepton(
      ['samples', 'export', 'acme/digits', '-o', out, '--format', 'csv'],
      2,
    );
    assert.match(refused.stderr, /\[1, 1, 28, 28\], which is no row/);

    await api('POST', `/devices/${first.device}/telemetry/erasure`, {});
    const empty = await json('export', 'acme/digits', '-o', out);
    assert.deepEqual(empty, { model: 'acme/digits', file: out, format: 'ndjson', samples: 0, erased: 1 });
    assert.equal(readFileSync(out, 'utf8'), '');
    const cleared = await registry.lepton(['samples', 'rules', 'acme/digits', '--clear']);
    assert.match(cleared.stdout, /no samples are kept/);
  } finally {
    await place.close();
  }
});
