// Why: rules for samples reach the devices that are to run the model, in a signed assignment, also where the registry
// died in between. Trusts: world.ts. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampleRulesSchema } from '../../shared/wire/sample-rules.ts';
import { type Device, openWorld, rolloutFile, type World } from './world.ts';

const rules = sampleRulesSchema.parse({ randomShare: 0.125, perHourMax: 5 });
const asked = [{ model: 'acme/digits', randomShare: 0.125, perHourMax: 5, bytesMax: 65_536 }];

async function withRelease(world: World): Promise<[Device, Device]> {
  const [device] = await world.devices(1, { site: 'a' });
  const [other] = await world.devices(1, { site: 'b' });
  assert.ok(device && other);
  await world.push('acme/digits@1.0.0', 1);
  const selector = { matchLabels: { site: 'a' } };
  await world.start(rolloutFile('first', { release: 'acme/digits@1.0.0', selector }));
  await world.settle();
  assert.equal((await device.assignment())?.releases.length, 1);
  return [device, other];
}

test('rules are signed into the assignments of devices that run the model, once', async (t) => {
  const world = await openWorld(t);
  const { sampling } = world.core;
  const [device, other] = await withRelease(world);
  const change = async (...args: Parameters<typeof sampling.set>): Promise<void> => {
    await sampling.set(...args);
    await world.fleet.director.reissueChanged();
    await world.settle();
  };
  const before = (await device.assignment())?.epoch ?? 0;
  const elsewhere = (await other.assignment())?.epoch;
  await change('acme/digits', rules, 'alice');
  assert.deepEqual((await device.assignment())?.samples, asked);
  assert.equal((await device.assignment())?.epoch, before + 1);
  assert.equal((await other.assignment())?.samples, undefined);
  assert.equal((await other.assignment())?.epoch, elsewhere, 'nothing changed for it');
  const { setAtMs, ...view } = await sampling.view('acme/digits');
  assert.deepEqual(view, { model: 'acme/digits', rules, setBy: 'alice' });
  assert.ok(setAtMs !== null);

  await change('acme/fan', rules, 'alice');
  assert.equal((await device.assignment())?.epoch, before + 1, 'another model');
  await change('acme/digits', null, 'bob');
  assert.equal((await device.assignment())?.samples, undefined);
  assert.equal((await sampling.view('acme/digits')).rules, null);
  assert.equal(await sampling.isPending(), false);
});

test('rules that were set or cleared when the registry died are brought to devices at its start', async (t) => {
  const world = await openWorld(t);
  const [device] = await withRelease(world);
  await world.core.sampling.set('acme/digits', rules, 'alice');
  assert.equal((await device.assignment())?.samples, undefined);
  await world.restart();
  assert.deepEqual((await device.assignment())?.samples, asked);
  assert.equal(await world.core.sampling.isPending(), false);
  await world.core.sampling.set('acme/digits', null, 'alice');
  await world.restart();
  assert.equal((await device.assignment())?.samples, undefined);
});
