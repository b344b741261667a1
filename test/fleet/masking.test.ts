// Why: masking rules reach every device in a signed assignment, also where the registry died in between, and their
// key reaches nobody else. Trusts: world.ts. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maskingRuleSchema } from '../../shared/wire/masking.ts';
import { openWorld } from './world.ts';

const rule = maskingRuleSchema.parse({ do: 'drop', field: 'name' });

test('rules are signed into each assignment, once', async (t) => {
  const world = await openWorld(t);
  const [device, other] = await world.devices(2);
  assert.ok(device && other);
  assert.equal((await device.assignment())?.masking, undefined);
  const before = (await device.assignment())?.epoch ?? 0;

  await world.core.masking.set([rule], false);
  await world.fleet.director.reissueChanged();
  await world.settle();
  const { masking, epoch } = (await device.assignment()) ?? {};
  assert.deepEqual(masking?.rules, [rule]);
  assert.match(masking.key, /^[0-9a-f]{64}$/);
  assert.equal(epoch, before + 1);
  assert.equal((await other.assignment())?.masking?.key, masking.key, 'one key for the region');
  assert.equal(JSON.stringify(world.core.masking.view()).includes(masking.key), false);

  await world.fleet.director.reissueChanged();
  await world.settle();
  assert.equal((await device.assignment())?.epoch, epoch, 'nothing changed');

  await world.core.masking.set([rule], true);
  await world.fleet.director.reissueChanged();
  await world.settle();
  assert.notEqual((await device.assignment())?.masking?.key, masking.key);

  await world.core.masking.set([], false);
  await world.fleet.director.reissueChanged();
  await world.settle();
  assert.equal((await device.assignment())?.masking, undefined);
});

test('rules that were set when the registry died are brought to devices at its start', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await world.core.masking.set([rule], false);
  assert.equal((await device.assignment())?.masking, undefined);
  await world.restart();
  await world.settle();
  assert.deepEqual((await device.assignment())?.masking?.rules, [rule]);
  assert.equal(world.core.masking.isPending(), false);
});
