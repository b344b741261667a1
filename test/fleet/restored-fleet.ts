// Why: a fleet that went on after its registry's backup, and the registry that was restored from it.
// Trusts: world.ts, holder.ts. Must never: stand in for a part that is under test.

import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { dayMs, temporaryFolder } from '../registry-core/support.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { Holder } from './holder.ts';
import { openWorld, region, rolloutFile, type World } from './world.ts';

export const namespaces = ['acme', 'beta'];

export async function holdersOf(world: World, count: number): Promise<Holder[]> {
  const roots = {
    root: await world.repository.catalogueRoot(),
    regionRoot: await world.repository.regionRoot(),
  };
  return (await world.devices(count)).map((device) => new Holder(world, device, roots));
}

/** Everybody refreshes, takes its assignment and reports. */
export async function goOn(holders: Holder[]): Promise<void> {
  for (const holder of holders) {
    assert.equal((await holder.refresh(namespaces)).refusal, null);
    assert.equal(await holder.follow(), 'taken');
    await holder.world.settle();
  }
}

export const running = async (world: World, holder: Holder): Promise<string | null | undefined> =>
  (await world.view(holder.device)).models[0]?.active;

export interface Before {
  world: World;
  holders: Holder[];
  /** A batch that was stored before the backup, and one that came after it. */
  batches: Uint8Array[];
}

/** A fleet that went on after its backup, and the registry restored from that. */
export async function restored(
  t: TestContext,
  count: number,
  /** Between the backup and its first start. */
  laid: (folder: string, nowMs: number) => Promise<void> = async () => undefined,
): Promise<Before> {
  const folder = temporaryFolder(t);
  const backup = temporaryFolder(t);
  const first = await openWorld(t, { folder, chance: 'first' });
  await first.push('acme/digits@1.0.0', 1);
  const holders = await holdersOf(first, count);
  await first.start(rolloutFile('digits-1', { release: 'acme/digits@1.0.0' }));
  await goOn(holders);
  const batches: Uint8Array[] = [];
  const sent = (world: World): void => {
    const topic = deviceTopic(region, holders[0]?.device.id ?? '', 'telemetry');
    const say = world.bus.say.bind(world.bus);
    world.bus.say = (to, payload) => {
      if (to === topic) batches.push(payload);
      say(to, payload);
    };
  };
  sent(first);
  for (const holder of holders) assert.equal(await holder.send(recordsOf(3)), 'stored');
  await first.close();
  cpSync(folder, backup, { recursive: true });

  const second = await openWorld(t, { folder, chance: 'second', clock: first.clock });
  sent(second);
  for (const holder of holders) {
    holder.moveTo(second);
    holder.device.online();
  }
  await second.push('acme/digits@2.0.0', 2);
  await second.push('beta/voice@1.0.0', 1);
  await second.start(rolloutFile('digits-2', { release: 'acme/digits@2.0.0', as: 'digits' }));
  await second.start(rolloutFile('voice', { release: 'beta/voice@1.0.0' }));
  await goOn(holders);
  second.clock.advance(2 * dayMs);
  await second.repository.resign(second.clock.wall());
  for (const holder of holders) {
    assert.equal((await holder.refresh(namespaces)).refusal, null);
    assert.equal(await running(second, holder), 'acme/digits@2.0.0');
    for (const from of [3, 6]) assert.equal(await holder.send(recordsOf(3, from)), 'stored');
  }
  await second.close();

  await laid(backup, first.clock.wall());
  const world = await openWorld(t, { folder: backup, chance: 'third', clock: first.clock });
  for (const holder of holders) {
    holder.moveTo(world);
    holder.device.online();
  }
  await world.settle();
  return { world, holders, batches };
}
