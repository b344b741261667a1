// Why: a site never has more devices under way than its operator bears, whatever is reported in whatever order.
// Trusts: test/fleet/world.ts. Must never: check prose; states and assignments only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Room, roomFor } from '../../registry/rollout/disruption.ts';
import type { DeviceFact } from '../../registry/rollout/facts.ts';
import type { Outcome } from '../../registry/rollout/members.ts';
import { type Device, rolloutFile, type World } from '../fleet/world.ts';
import { assigned, v1, world2 } from './ground.ts';

async function underWay(devices: Device[]): Promise<number> {
  const got = await Promise.all(devices.map(assigned));
  return devices.filter(({ models }, at) => got[at] === v1 && models.get('digits')?.active !== v1).length;
}

async function obeyOne(world: World, devices: Device[]): Promise<void> {
  for (const device of devices) {
    if ((await assigned(device)) !== v1 || device.models.get('digits')?.active === v1) continue;
    await device.obey();
    await world.settle();
    return;
  }
}

test('site by site, so many devices of each at a time, until all have it', async (t) => {
  const world = await world2(t);
  const a = await world.devices(3, { site: 'a' });
  const b = await world.devices(3, { site: 'b' });
  const disruption = { label: 'site', maxUnavailable: 2, maxSites: 1 };
  const id = await world.start(rolloutFile('sites', { release: v1, disruption }));
  for (let round = 0; round < 6; round += 1) {
    const [atA, atB] = [await underWay(a), await underWay(b)];
    assert.ok(atA <= 2 && atB <= 2, `${atA} ${atB}`);
    assert.ok(atA === 0 || atB === 0, 'both sites at the same time');
    assert.ok(atA + atB > 0, 'nobody is under way');
    await obeyOne(world, [...a, ...b]);
  }
  assert.equal((await world.status(id)).state, 'succeeded');
});

test('one that is away waits its turn behind those that are there, and explain says what a device waits for', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3, { site: 'a' });
  const [away, ...there] = devices;
  assert.ok(away);
  away.offline();
  await world.settle();
  const disruption = { label: 'site', maxUnavailable: 1 };
  const id = await world.start(rolloutFile('one', { release: v1, disruption }));
  const said = await world.rollouts.explain(id, away.id);
  assert.ok(said.ok);
  assert.match(said.value.devices[0]?.waitsFor ?? '', /site a/);
  for (const _ of there) {
    assert.equal(await assigned(away), null);
    await obeyOne(world, there);
  }
  assert.equal(await assigned(away), v1);
  assert.equal(await underWay(devices), 1);
});

test('a device on which another rollout is at work is counted, and is not taken as well', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(2, { site: 'a' });
  const disruption = { label: 'site', maxUnavailable: 1 };
  await world.start(rolloutFile('other', { release: v1, as: 'other' }));
  const id = await world.start(rolloutFile('bound', { release: v1, disruption }));
  const own = async () =>
    (await Promise.all(devices.map((device) => device.assignment()))).filter((assignment) =>
      assignment?.releases.some(({ as }) => as === 'digits'),
    ).length;
  assert.equal(await own(), 0);
  await devices[0]?.obey();
  await world.settle();
  assert.equal(await own(), 0, 'the second is still under way');
  await devices[1]?.obey();
  await world.settle();
  assert.equal(await own(), 1);
  for (const device of devices) {
    await device.obey();
    await world.settle();
  }
  await devices[0]?.obey();
  await devices[1]?.obey();
  await world.settle();
  assert.equal((await world.status(id)).state, 'succeeded');
});

test('the room of a wave is held by one of another wave that is away: it says so', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3, { site: 'a' });
  const disruption = { label: 'site', maxUnavailable: 1 };
  const deadlines = { unreachable: { after: '30m' } };
  const waves = [{ count: 1 }, { percent: 100 }];
  const id = await world.start(rolloutFile('held', { release: v1, waves, disruption, deadlines }));
  const got = await Promise.all(devices.map(assigned));
  const canary = devices[got.indexOf(v1)];
  assert.ok(canary);
  const standing = async (status: string): Promise<void> => {
    await world.store.tx((db) =>
      db.sql.run('UPDATE devices SET status = ? WHERE device_id = ?', status, canary.id),
    );
    await world.restart();
  };
  // Taken out, the canary proves nothing and is not waited for; back in, it has the release assigned and is away.
  await standing('quarantined');
  assert.equal((await world.status(id)).waves[0]?.state, 'passed');
  await standing('active');
  canary.offline();
  await world.pass(31 * 60_000);
  for (const device of devices) if (device !== canary) device.online();
  await obeyOne(
    world,
    devices.filter((device) => device !== canary),
  );
  const status = await world.status(id);
  assert.equal(status.state, 'running');
  assert.match(status.reason ?? '', /^waiting for 1 unreachable device, which takes up the room of 1 other$/);
});

const kinds = ['waiting', 'working', 'committed', 'failed', 'unreachable', 'ignored'] as const;

test('whatever is under way: the bound holds, and there is room where nobody is', () => {
  const one = fc.record({
    site: fc.constantFrom('', 'a', 'b', 'c'),
    kind: fc.constantFrom(...kinds),
    busyElsewhere: fc.boolean(),
    wave: fc.nat(1),
  });
  fc.assert(
    fc.property(
      fc.array(one, { minLength: 1, maxLength: 30 }),
      fc.integer({ min: 1, max: 3 }),
      fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
      (all, maxUnavailable, maxSites) => {
        const parts = all.map(({ site, kind, busyElsewhere, wave }, at) => ({
          device: { id: `d${at}`, site, busyElsewhere, active: true, behind: null } as DeviceFact,
          member: { wave, step: kind === 'waiting' ? ('waiting' as const) : ('assigned' as const) },
          outcome: { kind, state: 'pending', reason: null, untilMs: null } as Outcome,
        }));
        const disruption = { label: 'site', maxUnavailable, ...(maxSites === undefined ? {} : { maxSites }) };
        const isBusy = ({ device, outcome }: (typeof parts)[number]): boolean =>
          device.busyElsewhere || outcome.kind === 'working' || outcome.kind === 'unreachable';
        const busyIn = (site: string): number =>
          parts.filter((part) => part.device.site === site && isBusy(part)).length;
        const room: Room = roomFor(disruption, 0, parts);
        const waiting = parts.filter(({ member }) => member.step === 'waiting' && member.wave === 0);
        const taken = waiting.filter(({ device }) => room.take(device));
        for (const site of ['', 'a', 'b', 'c']) {
          const here = taken.filter(({ device }) => device.site === site).length;
          if (here > 0) assert.ok(busyIn(site) + here <= maxUnavailable);
          assert.ok(!taken.some(({ device }) => device.busyElsewhere));
        }
        const sites = new Set(taken.map(({ device }) => device.site));
        for (const site of ['', 'a', 'b', 'c']) if (busyIn(site) > 0) sites.add(site);
        const before = ['', 'a', 'b', 'c'].filter((site) => busyIn(site) > 0).length;
        if (maxSites !== undefined) assert.ok(sites.size <= Math.max(maxSites, before));
        // To join another rollout at a site is to begin there: the bound holds for that as well.
        const ownAt = new Set(
          parts
            .filter(
              ({ member, outcome }) => member.step === 'assigned' && /working|unreach/.test(outcome.kind),
            )
            .map(({ device }) => device.site),
        );
        const begins = taken.filter(({ device }) => !ownAt.has(device.site)).length > 0;
        if (maxSites !== undefined && begins) assert.ok(before <= maxSites);
        if (parts.every((part) => !isBusy(part)) && waiting.length > 0) assert.ok(taken.length > 0);
      },
    ),
    { numRuns: 2_000 },
  );
});
