// Why: moves of devices as one part of the fleet: both ends of them, and telemetry that is carried between regions.
// Trusts: each part for its own checks. Must never: be asked for by a region that nobody joined; then it only waits.

import type { RegistryBus } from '../../shared/kernel/ports.ts';
import type { RegistryCore } from '../core.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { Tasks } from '../fleet/tasks.ts';
import type { IncomingStream, OutgoingStream } from '../regions/streams.ts';
import type { RegistryDb } from '../store/open.ts';
import type { Ingest } from '../telemetry/ingest.ts';
import type { Arrivals } from './arrivals.ts';
import { type Carrier, createCarrier } from './carrier.ts';
import type { MoveOrders } from './orders.ts';
import { createReturned } from './returned.ts';

export interface Moves extends Pick<MoveOrders, 'apply' | 'sign' | 'list'> {
  /** For the loop between regions. */
  outgoing: readonly OutgoingStream[];
  incoming: readonly IncomingStream[];
  receive: Carrier['receive'];
  deliver: Carrier['deliver'];
  /** What is kept here of a device's telemetry for other regions, and of this one's that is not stored yet. */
  eraseIn(db: RegistryDb, erased: { deviceId: string; untilMs: number }): void;
  start(bus: RegistryBus): void;
  /** Resolves when nothing that was carried waits to be stored. */
  idle(): Promise<void>;
  stop(): Promise<void>;
}

export function createMoves(
  core: RegistryCore,
  parts: {
    arrivals: Arrivals;
    orders: MoveOrders;
    events: FleetEvents;
    tasks: Tasks;
    ingest: Pick<Ingest, 'carry'>;
  },
): Moves {
  const { arrivals, orders } = parts;
  const carrier = createCarrier(core, parts);
  const returned = createReturned(core, parts);
  return {
    apply: orders.apply,
    sign: orders.sign,
    list: orders.list,
    outgoing: [arrivals.outgoing, carrier.outgoing, returned.outgoing],
    // Who left first: what it left behind comes after it.
    incoming: [orders.incoming, returned.incoming, carrier.incoming],
    receive: carrier.receive,
    deliver: carrier.deliver,
    eraseIn: carrier.eraseIn,
    start(bus) {
      carrier.start(bus);
      returned.start();
    },
    idle: returned.idle,
    async stop() {
      await returned.stop();
      carrier.stop();
    },
  };
}
