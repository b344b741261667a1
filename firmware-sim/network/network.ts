// Why: who reaches whom in the simulated world: devices, registries with a broker each, and what stands between them.
// Trusts: the world for time, faults and lives. Must never: use real time, sockets or chance, nor let anything pass
// a cut path.

import { connectBusOver } from '../../shared/host/bus-line.ts';
import type { AgentBus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import { draw } from '../chance.ts';
import type { Incarnation, World } from '../world.ts';
import {
  type ListeningBroker,
  openSimBroker,
  type SimBroker,
  type SimBrokerOptions,
  type Tampering,
} from './broker.ts';
import { createCertificates } from './certificates.ts';
import { clientDrivers } from './client.ts';
import { createWire, type Wire } from './wire.ts';

export type { SimBroker, SimBrokerOptions, Tampering } from './broker.ts';

export interface Partition {
  /** Idempotent. */
  heal(): void;
}

export interface Network {
  /** The agent's `connect` for one life of a device. */
  connect(of: Incarnation): (options: ConnectBusOptions) => AgentBus;
  /** The broker of one life of a registry; takes connections from now on. */
  openBroker(of: Incarnation, options: SimBrokerOptions): SimBroker;
  /**
   * To which registry a device's broker URL leads from now on; `registry` where nothing was said. The URL of one of several
   * regions (`REGION.sim`) leads to that one.
   */
  route(device: string, registry: string): void;
  /** Nothing passes to or from this node, or anywhere with `*`, for so long (for good where absent). */
  partition(node: string, ms?: number): Partition;
  /** Messages are changed on their way from now on, until null or `heal`. */
  tamper(change: Tampering | null): void;
  /** Ends every partition and all tampering. */
  heal(): void;
  /** To be called when a life ended (`onCut` of the world): its connections die with it. */
  cut(of: Incarnation): void;
  /** Connections that stand, for looking at. */
  connections(): { device: string; registry: string }[];
}

const firstRegistry = 'registry';

export function createNetwork(parts: { world: World }): Network {
  const { world } = parts;
  const brokers = new Map<string, ListeningBroker>();
  /** Every registry that ever listened. */
  const opened = new Set<string>();
  const routes = new Map<string, string>();
  const partitions = new Set<{ node: string }>();
  const wires = new Set<{ wire: Wire; blocked(): boolean }>();
  const certificates = createCertificates();
  const dials = new Map<string, number>();
  let tampering: Tampering | null = null;
  const tampered: Tampering = (towards, topic, payload) =>
    tampering === null ? payload : tampering(towards, topic, payload);

  const apart = (device: string, registry: string): boolean =>
    [...partitions].some(({ node }) => node === '*' || node === device || node === registry);
  const routeOf = (device: string, host: string): string => {
    const named = host.replace(/\.sim$/, '');
    return named !== firstRegistry && opened.has(named) ? named : (routes.get(device) ?? firstRegistry);
  };
  const sweep = (): void => {
    for (const one of wires) {
      if (!one.wire.client.open && !one.wire.server.open) wires.delete(one);
    }
  };

  const connectTo = (device: Incarnation, broker: ListeningBroker): Wire => {
    const number = (dials.get(device.node) ?? 0) + 1;
    dials.set(device.node, number);
    const blocked = () => apart(device.node, broker.of.node);
    const id = `${device.node} ${number}`;
    const wire = createWire({ world, id, client: device, server: broker.of, blocked });
    sweep();
    wires.add({ wire, blocked });
    broker.take(wire.server);
    return wire;
  };

  const listenerFor = (device: string, host: string): ListeningBroker | null => {
    const broker = brokers.get(routeOf(device, host));
    return broker?.of.alive === true ? broker : null;
  };

  const heal = (partition: { node: string }): void => {
    if (!partitions.delete(partition)) return;
    world.note(`network heals ${partition.node}`);
    world.mark({ node: partition.node, kind: 'link', text: 'heals' });
    for (const { wire } of wires) wire.resume();
  };

  return {
    connect: (of) => {
      const drivers = clientDrivers({
        world,
        of,
        certificates,
        blocked: (host) => apart(of.node, routeOf(of.node, host)),
        listener: (host) => {
          const broker = listenerFor(of.node, host);
          return broker === null
            ? null
            : { shown: broker.shown, connect: (device) => connectTo(device, broker) };
        },
      });
      return (options) => connectBusOver(drivers, options);
    },

    openBroker: (of, options) => {
      const broker = openSimBroker({ world, of, certificates, tampered }, options);
      brokers.set(of.node, broker);
      opened.add(of.node);
      for (const { wire } of wires) {
        if (wire.server.of.node === of.node && wire.server.of !== of) wire.reset();
      }
      return {
        ...broker,
        close: async () => {
          if (brokers.get(of.node) === broker) brokers.delete(of.node);
          await broker.close();
        },
      };
    },

    route: (device, registry) => {
      routes.set(device, registry);
      world.note(`network routes ${device} to ${registry}`);
    },

    partition: (node, ms) => {
      const partition = { node };
      const before = new Set([...wires].filter(({ blocked }) => blocked()));
      partitions.add(partition);
      world.note(`network cuts ${node}`);
      world.mark({ node, kind: 'link', text: 'cut off' });
      sweep();
      for (const one of wires) {
        if (one.blocked() && !before.has(one)) one.wire.silence(() => partitions.has(partition));
      }
      if (ms !== undefined) world.later(ms, () => heal(partition));
      return { heal: () => heal(partition) };
    },

    tamper: (change) => {
      tampering = change;
    },
    heal: () => {
      tampering = null;
      for (const partition of [...partitions]) heal(partition);
    },

    cut: (of) => {
      if (brokers.get(of.node)?.of === of) brokers.delete(of.node);
      // The process alone died, and its machine tells the others; or the machine did, and they find out.
      const told = draw(world.seed, 'network.cut', of.node, of.number) < 0.4;
      for (const { wire } of [...wires]) {
        if (wire.client.of === of || wire.server.of === of) wire.lose(of, told);
      }
      sweep();
    },

    connections: () =>
      [...wires]
        .filter(({ wire }) => wire.client.open && wire.server.open)
        .map(({ wire }) => ({ device: wire.client.of.node, registry: wire.server.of.node })),
  };
}
