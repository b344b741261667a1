// Why: what the tests of rollouts stand on: two releases of one model, and devices that run the first.
// Trusts: test/fleet/world.ts. Must never: stand in for a part that is under test.

import assert from 'node:assert/strict';
import { unwrap } from '../../shared/kernel/errors.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { type Device, openWorld, rolloutFile, type World } from '../fleet/world.ts';
import { publisherKey } from '../registry-core/support.ts';

export const v1 = 'acme/digits@1.0.0';
export const v2 = 'acme/digits@2.0.0';
export const golden = { code: 'probe-golden-failed', detail: 'case 0' };

export async function world2(t: Parameters<typeof openWorld>[0]): Promise<World> {
  const world = await openWorld(t);
  await world.push(v1, 1);
  await world.push(v2, 2);
  return world;
}

export const assigned = async (device: Device): Promise<string | null> =>
  (await device.assignment())?.releases[0]?.releaseId ?? null;
export const all = async <T, From = Device>(from: From[], get: (one: From) => Promise<T>): Promise<T[]> =>
  Promise.all(from.map(get));

/** Every device commits release 1, as the ground to stand on. */
export async function onRelease1(world: World, devices: Device[]): Promise<void> {
  await world.start(rolloutFile('digits-1', { release: v1 }));
  await all(devices, (device) => device.obey());
  await world.settle();
}

/** The publisher of `acme` says something about its releases, signed as its machine would. */
export async function say(
  world: World,
  change: { floor?: [model: string, counter: number]; withdraw?: [model: string, counter: number] },
): Promise<void> {
  const { floor, withdraw } = change;
  const { metadataVersion } = (await world.repository.publisher('acme')) ?? { metadataVersion: 0 };
  const metadata = unwrap(
    nextPublisherTargets({
      namespace: 'acme',
      current: await world.repository.file(`${metadataVersion}.acme.json`),
      add: [],
      ...(floor === undefined ? {} : { floors: new Map([floor]) }),
      ...(withdraw === undefined ? {} : { withdrawn: new Map([[withdraw[0], new Set([withdraw[1]])]]) }),
      expiresAtMs: world.clock.wall() + 365 * 86_400_000,
      signers: [publisherKey('acme')],
    }),
  );
  const taken = unwrap(await world.releases.takeStep({ namespace: 'acme', metadata, pushedBy: 'tester' }));
  assert.equal(taken.status, 'accepted');
  await world.settle();
}
