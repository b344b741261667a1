// Why: two commands from a table to a model on devices, with the real programs: trained, pushed, probed with the golden
// cases that training drew, rolled out, and asked by a sensor.
// Trusts: the scenario's own truth. Must never: ask anything but the agent.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { makeClaim, pushModel, rollOut } from '../support/fleet.ts';
import {
  run,
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  type Workplace,
  workplace,
} from '../support/processes.ts';

describe('from data to devices', () => {
  let place: Workplace;
  let registry: TestRegistry;
  let agent: TestAgent;
  before(async () => {
    place = workplace('trained');
    registry = await startTestRegistry(place);
    agent = await startTestAgent(place, await makeClaim(place, registry));
  });
  after(async () => place.close());

  async function done(program: 'lepton' | 'sim', args: string[]): Promise<string> {
    const finished = await run(program, args, { env: place.env, timeoutMs: 120_000 });
    assert.equal(finished.code, 0, `${program} ${args.join(' ')}\n${finished.stdout}\n${finished.stderr}`);
    return finished.stdout;
  }

  /** Trains a scenario's recipe on its data, brings it to the device and lets its sensor ask; the summary of that. */
  async function asked(scenario: string, rows: number, count: number): Promise<Record<string, unknown>> {
    const [data, recipe, out] = [
      place.path(`${scenario}.csv`),
      place.path(`${scenario}.yaml`),
      place.path(`${scenario}-model`),
    ];
    await done('sim', ['scenario', 'data', scenario, '--rows', String(rows), '--out', data]);
    await done('sim', ['scenario', 'recipe', scenario, '--out', recipe]);
    await done('lepton', ['train', data, '--recipe', recipe, '--epochs', '12', '--out', out]);
    const release = `acme/${scenario}@1.0.0`;
    await pushModel(registry, out, release);
    const status = await rollOut(place, registry, release);
    assert.equal(status.state, 'succeeded');
    const lines = await done('sim', [
      'sensor',
      scenario,
      '--agent',
      agent.http,
      '--model',
      scenario,
      '--every',
      '1ms',
      '--count',
      String(count),
      '--json',
    ]);
    return (JSON.parse(lines.trim().split('\n').at(-1) ?? '{}') as { summary: Record<string, unknown> })
      .summary;
  }

  test('finance: numbers and texts, classes', async () => {
    const summary = await asked('finance', 3_000, 200);
    const said = JSON.stringify(summary);
    assert.equal(summary['answers'], 200, said);
    assert.ok(Number(summary['accuracy']) > Number(summary['naiveAccuracy']), said);
  });

  test('energy: windows of raw values, a forecast', async () => {
    const summary = await asked('energy', 3_000, 60);
    const said = JSON.stringify(summary);
    assert.equal(summary['answers'], 60, said);
    assert.ok(Number(summary['meanAbsoluteError']) < Number(summary['naiveMeanAbsoluteError']) / 2, said);
  });
});
