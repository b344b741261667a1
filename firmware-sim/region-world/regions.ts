// Why: several regions of one company in one world: a registry each with its own storage, clock and power, the lines
// between them, one publisher and the holders of the offline keys. Trusts: the seed for everything.
// Must never: share anything with another world in the same process.

import { fleetLimits } from '../../registry/fleet/limits.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import type { Invitation } from '../../shared/wire/regions.ts';
import { drawBytes, drawInt } from '../chance.ts';
import type { FaultId, Faults } from '../faults.ts';
import { createFaultyWorld } from '../faulty-world.ts';
import { arch } from '../fleet-world/device-node.ts';
import { createReached, type Reached } from '../fleet-world/node-log.ts';
import { createPublisher, type Publisher } from '../fleet-world/publisher.ts';
import { createRegistryNode, type RegistryNode, type RegistryParts } from '../fleet-world/registry-node.ts';
import { createClocks } from '../machine/clocks.ts';
import { createSimPlace, type SimPlace } from '../machine/place.ts';
import { createDoors, type Doors } from '../network/doors.ts';
import { createNetwork } from '../network/network.ts';
import { createRegionOracle, type RegionOracle } from '../oracle/region-oracle.ts';
import type { World } from '../world.ts';
import { createHolders, type Holders } from './holders.ts';

export interface SimRegion {
  name: string;
  node: RegistryNode;
  place: SimPlace;
  oracle: RegionOracle;
  url: string;
  publicKey: string;
  /** Its disk is gone for good: it never comes back. */
  lost: boolean;
}

export interface RegionsWorld {
  world: World;
  faults: Faults;
  doors: Doors;
  reached: Reached;
  publisher: Publisher;
  holders: Holders;
  regions: SimRegion[];
  /** Starts the first region: it is home. */
  first(): SimRegion;
  /** Starts a region with an invitation. */
  join(invitation: Invitation): SimRegion;
  onUp(listener: (region: SimRegion, parts: RegistryParts) => void): void;
  heal(): void;
}

const cutsMax = 8;
const operationsMax = 1_000_000;

export function createRegionsWorld(
  seed: number,
  options: { only?: readonly FaultId[]; trace: boolean },
): RegionsWorld {
  const { world, faults, nodes, clocks } = createFaultyWorld({ seed, operationsMax, cutsMax, ...options });
  const reached = createReached();
  const publisher = createPublisher(world, arch);
  const doors = createDoors(world);
  const regions: SimRegion[] = [];
  const listeners: ((region: SimRegion, parts: RegistryParts) => void)[] = [];
  const limits = {
    ...fleetLimits,
    rolloutStepEveryMs: drawInt(5, 60, seed, 'step') * 1_000,
  };
  const regionLimits = {
    roundEveryMs: drawInt(2, 30, seed, 'round') * 1_000,
    roundEveryMaxMs: 60_000,
    askTimeoutMs: 10_000,
    // Small, so that files of some hundred bytes come in parts.
    partBytes: 2 ** drawInt(7, 12, seed, 'part'),
    pageItems: 2 ** drawInt(0, 6, seed, 'page'),
    filesAtOnce: drawInt(1, 4, seed, 'files'),
    refusedRetryMs: 120_000,
    damagedRetryMs: 30_000,
  };

  function add(name: string, invitation: Invitation | null): SimRegion {
    const own = createClocks(world, { node: name, driftPpmMax: 20, faults: false });
    clocks.set(name, own);
    const place = createSimPlace(world, { node: name, onCommit: (file) => oracle.committed(file) });
    const oracle = createRegionOracle({ world, node: name, place, publisher, reached });
    const publicKey = Buffer.from(publicKeyOf(drawBytes(32, seed, 'door', name))).toString('hex');
    const url = `https://${name}.sim:9443`;
    const node = createRegistryNode({
      world,
      network: createNetwork({ world }),
      node: name,
      place,
      clocks: own,
      limits,
      patches: null,
      reached,
      watched: (bus) => bus,
      onReport: () => undefined,
      seat: {
        region: name,
        line: (of) => doors.line(of, publicKey),
        door: { url: () => url, publicKey },
        invitation: () => invitation,
        serve: (of, handler) => doors.serve(of, { url, publicKey, handler }),
        limits: regionLimits,
      },
      onUp: (parts) => {
        for (const listener of listeners) listener(region, parts);
      },
    });
    nodes.set(name, {
      afterCut: () => {
        node.afterCut();
        oracle.afterCut();
      },
    });
    const region: SimRegion = { name, node, place, oracle, url, publicKey, lost: false };
    regions.push(region);
    node.boot();
    return region;
  }

  return {
    world,
    faults,
    doors,
    reached,
    publisher,
    holders: createHolders(seed, (sha256) => regions.some(({ oracle }) => oracle.hadRoot(sha256))),
    regions,
    first: () => add('home', null),
    join: (invitation) => add(invitation.region, invitation),
    onUp: (listener) => void listeners.push(listener),
    heal() {
      faults.end();
      doors.heal();
      world.note('everything heals');
      world.mark({ node: 'world', kind: 'step', text: 'everything heals' });
      for (const { node, lost } of regions) if (!lost) node.boot();
    },
  };
}
