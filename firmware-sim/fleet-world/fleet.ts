// Why: one whole fleet in one world: a registry, its devices, their publisher, the network between them, and what judges
// all of it. Trusts: the seed for everything. Must never: share anything with another fleet in the same process.

import { limits } from '../../shared/kernel/limits.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import type { Labels } from '../../shared/wire/messages.ts';
import { draw } from '../chance.ts';
import type { FaultId, Faults } from '../faults.ts';
import { createFaultyWorld } from '../faulty-world.ts';
import { createClocks } from '../machine/clocks.ts';
import { createPatches } from '../machine/patches.ts';
import { createSimPlace } from '../machine/place.ts';
import { createNetwork, type Network } from '../network/network.ts';
import { createDeviceOracle, type DeviceOracle } from '../oracle/device-oracle.ts';
import { createFetchOracle } from '../oracle/fetch-oracle.ts';
import { createRegistryOracle } from '../oracle/registry-oracle.ts';
import { createTruth, type Truth } from '../oracle/truth.ts';
import type { Incarnation, World } from '../world.ts';
import { arch, createDeviceNode, type DeviceNode } from './device-node.ts';
import { createReached, type Reached } from './node-log.ts';
import { createPublisher, type Publisher } from './publisher.ts';
import { createRegistryNode, type RegistryNode, type RegistryParts } from './registry-node.ts';
import type { WorldTerms } from './terms.ts';
import { drawZone } from './windows.ts';

export interface FleetDevice {
  device: DeviceNode;
  oracle: DeviceOracle;
  /** Its registry took it out for good. */
  revoked: boolean;
  /** Its accounts cannot be checked any more: its outbox was torn, or somebody else wrote into its name. */
  unaccounted: boolean;
  /** Somebody has its key. */
  stolen: boolean;
}

export interface FleetWorld {
  world: World;
  terms: WorldTerms;
  faults: Faults;
  network: Network;
  registry: RegistryNode;
  /** A second one that is the same registry, while there is one. */
  twin: RegistryNode | null;
  devices: FleetDevice[];
  publisher: Publisher;
  truth: Truth;
  reached: Reached;
  addDevice(labels: Labels): FleetDevice;
  /** Somebody carries a new claim to a device whose registry does not know it any more. */
  enrolAgain(device: FleetDevice): void;
  addTwin(): RegistryNode;
  /** A node that is no device of ours, with the disk of one. */
  addThief(of: FleetDevice): DeviceNode;
  /** Called for each life of a registry. */
  onRegistryUp(listener: (parts: RegistryParts) => void): void;
  /** Everything works again from here on. */
  heal(): void;
}

const cutsMax = 10;
/** Many hours of a busy fleet; beyond it something turns in a circle. */
const operationsMax = 1_500_000;

export function createFleetWorld(
  seed: number,
  terms: WorldTerms,
  options: { only?: readonly FaultId[]; trace: boolean },
): FleetWorld {
  const { world, faults, nodes, clocks } = createFaultyWorld({
    ...{ seed, operationsMax, cutsMax, ...options },
    originMs: terms.originMs,
  });
  const network = createNetwork({ world });
  const truth = createTruth(world);
  const reached = createReached();
  const publisher = createPublisher(world, arch);
  const patches = createPatches(seed);
  const registryPatches = terms.encodes ? patches : null;
  const listeners = new Set<(parts: RegistryParts) => void>();
  const devices: FleetDevice[] = [];
  let healed = false;
  let thieves = 0;

  function clocksOf(node: string, isDevice: boolean) {
    const own = createClocks(world, { node, driftPpmMax: isDevice ? 200 : 20, faults: isDevice });
    clocks.set(node, own);
    return own;
  }

  function makeRegistry(node: string): RegistryNode {
    const place = createSimPlace(world, { node });
    const oracle = createRegistryOracle({ world, node, place, truth, reached });
    const made = createRegistryNode({
      world,
      network,
      node,
      place,
      clocks: clocksOf(node, false),
      limits: terms.registry,
      patches: registryPatches,
      reached,
      watched: (bus) => oracle.watched(bus),
      onReport: (deviceId) => oracle.reported(deviceId),
      onUp: (parts) => {
        for (const listener of listeners) listener(parts);
      },
    });
    nodes.set(node, {
      afterCut: () => made.afterCut(),
    });
    return made;
  }

  function addDevice(labels: Labels): FleetDevice {
    const node = `device-${devices.length + 1}`;
    const drawn = terms.windowed ? drawZone(seed, node) : 'UTC';
    const timezone = terms.zones?.[devices.length % terms.zones.length] ?? drawn;
    let present: Incarnation | null = null;
    const place = createSimPlace(world, {
      node,
      rots: (path) => path.startsWith('blobs/') && !path.endsWith('.unverified'),
      tears: (file) => file === 'state.sqlite' || file === 'outbox.sqlite',
      onCommit: (file) => oracle.committed(file),
      onAppend: (path, live) => fetched(path, live),
    });
    const fetched = createFetchOracle({
      world,
      node,
      truth,
      publisher,
      isRotted: (path) => place.files.rotted.has(path),
    });
    const oracle: DeviceOracle = createDeviceOracle({
      world,
      node,
      place,
      truth,
      publisher,
      reached,
      timezone,
      journalWritesMax: terms.device.update.journalWritesMax,
      outboxBytesMax: terms.device.outbox?.outboxBytesMax ?? limits.outboxBytesMax,
      faults: () => faults.fired().length,
      alive: (of) => of.alive,
      present: () => present,
    });
    let records = 0;
    let faultsAtBoot = 0;
    const device = createDeviceNode({
      world,
      network,
      node,
      place,
      clocks: clocksOf(node, true),
      labels,
      timezone,
      terms: terms.device,
      patches: draw(seed, 'rebuilds', node) < 0.9 ? patches : null,
      reached,
      releaseOf: publisher.ofManifest,
      witness: oracle.witness,
      application: {
        everyMs: terms.recordEveryMs,
        goesOn: () => !healed,
        record: () => {
          records += 1;
          return new TextEncoder().encode(`{"id":"${node}-${records}"}\n`);
        },
        answered: (body) => {
          const { id } = JSON.parse(new TextDecoder().decode(body)) as { id: string };
          truth.answered(node, id);
        },
      },
      onBoot: (of) => {
        present = of;
        faultsAtBoot = faults.fired().length;
        if (place.wasTorn('outbox.sqlite')) made.unaccounted = true;
      },
      onServing: (life) => oracle.serving(life, faultsAtBoot),
      onNetwork: (served) => oracle.network(served),
      onFault: ({ code }) => {
        // The registry does not know the claim any more, or it is used up: somebody brings another one.
        if (code.startsWith('claim-') || code === 'enrolment-required') giveClaim(made);
      },
    });
    nodes.set(node, {
      afterCut: () => {
        device.afterCut();
        oracle.afterCut();
      },
    });
    const made: FleetDevice = { device, oracle, revoked: false, unaccounted: false, stolen: false };
    devices.push(made);
    return made;
  }

  /** An operator makes a claim and carries it to the device, which is switched on with it. */
  function giveClaim(to: FleetDevice, again = false, tries = 40): void {
    const up = self.registry.up();
    if (up === null) {
      if (tries > 0) world.later(20_000, () => giveClaim(to, again, tries - 1));
      return;
    }
    let done = false;
    const carry = (claim: ClaimFile): void => {
      done = true;
      to.device.give(claim, again);
      if (again) to.device.fail('exit', 1_000);
      else to.device.boot();
    };
    up.fleet.claims
      .create({ labels: {}, uses: 1, ttlMs: 86_400_000, createdBy: 'operator' })
      .then(carry, (thrown: unknown) => world.note(`no claim: ${String(thrown)}`));
    world.later(20_000, () => {
      if (!done && tries > 0) giveClaim(to, again, tries - 1);
    });
  }

  const self: FleetWorld = {
    world,
    terms,
    faults,
    network,
    registry: makeRegistry('registry'),
    twin: null,
    devices,
    publisher,
    truth,
    reached,
    addDevice: (labels) => {
      const made = addDevice(labels);
      giveClaim(made);
      return made;
    },
    enrolAgain: (device) => giveClaim(device, true),
    addTwin: () => {
      const twin = makeRegistry('registry-b');
      twin.place.load(self.registry.backup());
      self.twin = twin;
      truth.forked();
      return twin;
    },
    addThief: (of) => {
      thieves += 1;
      const node = `thief-${thieves}`;
      const place = createSimPlace(world, { node });
      place.load(of.device.place.image());
      const none = (): void => undefined;
      const thief = createDeviceNode({
        world,
        network,
        node,
        place,
        clocks: clocksOf(node, false),
        labels: {},
        timezone: 'UTC',
        terms: terms.device,
        patches,
        reached,
        releaseOf: publisher.ofManifest,
        witness: {
          loading: none,
          probing: none,
          shadowing: none,
          activating: none,
          deactivating: none,
          serves: none,
          wrongBytes: none,
        },
        application: null,
        onBoot: none,
        onServing: none,
        onNetwork: none,
        onFault: none,
      });
      nodes.set(node, { afterCut: () => thief.afterCut() });
      return thief;
    },
    onRegistryUp: (listener) => void listeners.add(listener),
    heal: () => {
      healed = true;
      faults.end();
      network.heal();
      world.note('everything heals');
      world.mark({ node: 'world', kind: 'step', text: 'everything heals' });
      self.registry.boot();
      for (const { device, revoked } of devices) if (!revoked) device.boot();
    },
  };
  return self;
}
