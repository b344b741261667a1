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
import { createRegistryNode, type RegistryNode } from '../fleet-world/registry-node.ts';
import { createClocks } from '../machine/clocks.ts';
import { createSimPlace, type PlaceImage, type SimPlace } from '../machine/place.ts';
import { createDoors, type Doors } from '../network/doors.ts';
import { createNetwork } from '../network/network.ts';
import { createAuditOracle } from '../oracle/audit-oracle.ts';
import { createOrderOracle } from '../oracle/order-oracle.ts';
import { readable } from '../oracle/region-accounts.ts';
import { createRegionOracle, type RegionOracle } from '../oracle/region-oracle.ts';
import { createRegionTruths, type RegionTruths } from '../oracle/region-truths.ts';
import { createRegistryOracle, registryFile } from '../oracle/registry-oracle.ts';
import type { World } from '../world.ts';
import { addRegionDevice, type RegionDevice } from './devices.ts';
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
  /** It comes back on an older disk. */
  restoreFrom(image: PlaceImage): void;
}

export interface RegionsWorld {
  world: World;
  faults: Faults;
  doors: Doors;
  reached: Reached;
  publisher: Publisher;
  holders: Holders;
  regions: SimRegion[];
  devices: RegionDevice[];
  truths: RegionTruths;
  /** Starts the first region: it is home. */
  first(): SimRegion;
  /** Starts a region with an invitation. */
  join(invitation: Invitation): SimRegion;
  addDevice(region: SimRegion): RegionDevice;
  heal(): void;
}

const cutsMax = 8;
const operationsMax = 1_500_000;

export function createRegionsWorld(
  seed: number,
  options: { only?: readonly FaultId[]; trace: boolean },
): RegionsWorld {
  const { world, faults, nodes, clocks } = createFaultyWorld({ seed, operationsMax, cutsMax, ...options });
  const reached = createReached();
  const publisher = createPublisher(world, arch);
  const doors = createDoors(world);
  const regions: SimRegion[] = [];
  const devices: RegionDevice[] = [];
  const network = createNetwork({ world });
  const truths = createRegionTruths(world);
  const orders = createOrderOracle(world, reached);
  const audits = createAuditOracle(world);
  let healed = false;
  doors.onCarried((carried) => {
    const why = readable(carried);
    if (why !== null) world.violate(why);
    orders.heard(carried.from, carried.to);
  });
  const limits = {
    ...fleetLimits,
    rolloutStepEveryMs: drawInt(5, 60, seed, 'step') * 1_000,
    auditHeadEveryMs: drawInt(30, 300, seed, 'heads') * 1_000,
  };
  const regionLimits = {
    roundEveryMs: drawInt(6, 45, seed, 'round') * 1_000,
    roundEveryMaxMs: 120_000,
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
    let lastChanges = -1;
    const place = createSimPlace(world, {
      node: name,
      onCommit: (file) => {
        if (file !== registryFile) return;
        place.look(file, (db) => {
          // Most transactions only read.
          const changes = db.get<{ n: number }>('SELECT total_changes() AS n')?.n ?? 0;
          if (changes === lastChanges) return;
          lastChanges = changes;
          oracle.committed(db);
          orders.committed(name, db);
          audits.committed(name, db);
        });
      },
    });
    const truth = truths.of(name);
    const registryOracle = createRegistryOracle({ world, node: name, place, truth, reached });
    const oracle = createRegionOracle({ world, node: name, place, publisher, reached });
    const publicKey = Buffer.from(publicKeyOf(drawBytes(32, seed, 'door', name))).toString('hex');
    const url = `https://${name}.sim:9443`;
    const node = createRegistryNode({
      world,
      network,
      node: name,
      place,
      clocks: own,
      limits,
      patches: null,
      reached,
      watched: (bus) => registryOracle.watched(bus),
      onReport: (deviceId) => registryOracle.reported(deviceId),
      seat: {
        region: name,
        line: (of) => doors.line(of, publicKey),
        door: { url: () => url, publicKey },
        invitation: () => invitation,
        serve: (of, handler) => doors.serve(of, { url, publicKey, handler }),
        limits: regionLimits,
      },
      onUp: () => undefined,
    });
    nodes.set(name, {
      afterCut: () => {
        node.afterCut();
        oracle.afterCut();
        // Another connection counts from zero.
        lastChanges = -1;
      },
    });
    const region: SimRegion = {
      ...{ name, node, place, oracle, url, publicKey, lost: false },
      restoreFrom(image) {
        oracle.restored();
        orders.restored(name);
        audits.restored(name);
        truth.forked();
        node.restoreFrom(image, 5_000);
      },
    };
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
    devices,
    truths,
    first: () => add('home', null),
    join: (invitation) => add(invitation.region, invitation),
    addDevice(region) {
      const made = addRegionDevice(
        {
          ...{ world, network, publisher, reached, truths, nodes },
          clocksOf(node) {
            const own = createClocks(world, { node, driftPpmMax: 200, faults: false });
            clocks.set(node, own);
            return own;
          },
          faults: () => faults.fired().length,
          isHealed: () => healed,
          up: (name) => regions.find((one) => one.name === name && !one.lost)?.node.up() ?? null,
        },
        region.name,
        devices.filter(({ device }) => device.node.startsWith(`${region.name}-`)).length + 1,
      );
      devices.push(made);
      made.giveClaim(region.name);
      return made;
    },
    heal() {
      healed = true;
      faults.end();
      doors.heal();
      network.heal();
      world.note('everything heals');
      world.mark({ node: 'world', kind: 'step', text: 'everything heals' });
      for (const { node, lost } of regions) if (!lost) node.boot();
      for (const { device, region } of devices) if (region() !== null) device.boot();
    },
  };
}
