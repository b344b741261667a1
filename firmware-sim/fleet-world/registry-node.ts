// Why: one simulated registry: the real core, fleet, rollouts and ingest on simulated storage and network, with its
// crashes, its backups and its restarts. Trusts: the cores to find everything they need behind their ports.
// Must never: help a core over a fault, or keep anything for it that is not on its disk.

import { type Abroad, createAbroad } from '../../registry/abroad.ts';
import type { RegistryCore } from '../../registry/core.ts';
import { createFleet, type Fleet } from '../../registry/fleet/fleet.ts';
import type { FleetLimits } from '../../registry/fleet/limits.ts';
import { brokerTerms, goToWork, keepCertified, openRegistryCore } from '../../registry/open-core.ts';
import type { BeginJoining } from '../../registry/regions/joining.ts';
import { type RegionLimits, regionLimits } from '../../registry/regions/limits.ts';
import type { OwnDoor } from '../../registry/regions/members.ts';
import type { RegionRollouts } from '../../registry/regions/region-rollouts.ts';
import type { Regions } from '../../registry/regions/regions.ts';
import { createRollouts, type Rollouts } from '../../registry/rollout/rollouts.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type {
  BusMessage,
  DoorHandler,
  Place,
  RegionLine,
  RegistryBus,
  SqlTx,
} from '../../shared/kernel/ports.ts';
import type { Invitation } from '../../shared/wire/regions.ts';
import { filterMatches } from '../../shared/wire/topics.ts';
import { drawInt } from '../chance.ts';
import type { MachineClocks } from '../machine/clocks.ts';
import { storedDeflate } from '../machine/deflate.ts';
import type { Patches } from '../machine/patches.ts';
import type { PlaceImage, SimPlace } from '../machine/place.ts';
import type { Network, SimBroker } from '../network/network.ts';
import type { Incarnation, World } from '../world.ts';
import { endedProperly, nodeLog, type Reached } from './node-log.ts';

export const region = 'sim';

/** What a registry needs to be one of several regions. */
export interface RegionSeat {
  region: string;
  /** Its line to the doors of the others, for one life. */
  line(of: Incarnation): RegionLine;
  door: OwnDoor;
  /** For its first start; null: it is the home of the others. */
  invitation(): Invitation | null;
  /** What its door answers from now on. */
  serve(of: Incarnation, handler: DoorHandler): void;
  limits: Partial<RegionLimits>;
}

/** A registry that is up. */
export interface RegistryParts {
  of: Incarnation;
  core: RegistryCore;
  fleet: Fleet;
  rollouts: Rollouts;
  broker: SimBroker;
  bus: RegistryBus;
  /** Null where it is alone. */
  regions: Regions | null;
  regionRollouts: RegionRollouts | null;
  /** Calls whatever listens on this topic, as a message from the bus would. */
  inject(topic: string, payload: Uint8Array): void;
}

export interface RegistryNode {
  node: string;
  place: SimPlace;
  clocks: MachineClocks;
  /** Null while it is down or coming up. */
  up(): RegistryParts | null;
  boot(): void;
  /** The power fails, or the process ends by itself; it comes back after so long, or never. */
  fail(how: 'cut' | 'exit', downMs: number | null): void;
  /** Ends properly and starts again. */
  restart(): void;
  /** What a backup of this moment would hold. */
  backup(): PlaceImage;
  /** Comes back on the content of an older backup. */
  restoreFrom(image: PlaceImage, downMs: number): void;
  /** Called by the world when its power failed. */
  afterCut(): void;
}

export interface RegistryNodeParts {
  world: World;
  network: Network;
  node: string;
  place: SimPlace;
  clocks: MachineClocks;
  limits: FleetLimits;
  /** Absent: it is alone, in region `sim`. */
  seat?: RegionSeat;
  /** What it makes smaller files with; null: it makes none. */
  patches: Patches | null;
  reached: Reached;
  /** Wraps the bus, to see what is published. */
  watched(bus: RegistryBus, of: Incarnation): RegistryBus;
  onUp(parts: RegistryParts): void;
  /** A report of this device was taken. */
  onReport(deviceId: string): void;
}

function joiningOf(seat: RegionSeat, of: Incarnation): BeginJoining | null {
  const invitation = seat.invitation();
  if (invitation === null) return null;
  return async () => ({
    invitation,
    homeUrl: null,
    line: seat.line(of),
    ownUrl: seat.door.url() ?? '',
    limits: { ...regionLimits, ...seat.limits },
  });
}

/** As registry.ts does it on a real machine. */
async function goAbroad(
  seat: RegionSeat,
  of: Incarnation,
  core: RegistryCore,
  parts: { fleet: Fleet; rollouts: Rollouts; place: Place },
  closers: (() => Promise<void>)[],
): Promise<Abroad> {
  const { fleet, rollouts, place } = parts;
  const abroad = createAbroad(core, {
    ...{ fleet, rollouts, line: seat.line(of), door: seat.door, disk: place.disk('mirror') },
    ...{ overrides: new Map(), limits: seat.limits },
  });
  closers.push(() => abroad.stop());
  seat.serve(of, abroad.regions.handler);
  await abroad.start();
  return abroad;
}

const forgetIncarnation = (file: string, db: SqlTx): void => {
  if (file === 'registry.sqlite') db.run("DELETE FROM settings WHERE key = 'incarnation'");
};

export function createRegistryNode(parts: RegistryNodeParts): RegistryNode {
  const { world, network, node, place, clocks, limits, patches, reached, seat } = parts;
  // Alone, each is the same registry for its devices; one of several is reached under its own name.
  const host = seat === undefined ? 'registry.sim' : `${node}.sim`;
  let life: { of: Incarnation; closers: (() => Promise<void>)[] } | null = null;
  let up: RegistryParts | null = null;
  /** How it dies next, and what follows. Null: by chance, at an operation. */
  let next: { how: 'cut' | 'exit'; downMs: number | null; image: PlaceImage | null } | null = null;
  let deaths = 0;

  async function start(of: Incarnation, closers: (() => Promise<void>)[]): Promise<void> {
    const clock = world.clock(of);
    const entropy = world.entropy(of);
    const log = nodeLog(world, node, reached, (event, fields) => {
      if (event === 'report.accepted') parts.onReport(String(fields['deviceId']));
    });
    const port = place.port(of);
    const core = await openRegistryCore(
      {
        place: port,
        region: seat?.region ?? region,
        ...(seat === undefined ? {} : { joining: joiningOf(seat, of) }),
        hosts: [host],
        version: '0.0.0-sim',
        deflate: storedDeflate,
        ...(patches === null
          ? {}
          : {
              delta: { encoder: patches.encoder(world, of, port.disk('blobs')), pathOf: (sha256) => sha256 },
            }),
        limits,
        clock,
        entropy,
        log,
      },
      closers,
    );
    core.addresses.mqtt = `mqtts://${host}:8883`;
    const fleet = createFleet(core);
    const rollouts = createRollouts(core, fleet);
    const { options, opened } = brokerTerms(core, fleet);
    const broker = network.openBroker(of, options);
    keepCertified(core, broker, closers);
    const listeners = new Set<{ filter: string; handler: (message: BusMessage) => void }>();
    const watched = parts.watched(broker.bus, of);
    const bus: RegistryBus = {
      ...watched,
      subscribe: (filter, handler) => {
        listeners.add({ filter, handler });
        return watched.subscribe(filter, handler);
      },
    };
    await goToWork(core, { fleet, rollouts, bus }, closers);
    const abroad =
      seat === undefined ? null : await goAbroad(seat, of, core, { fleet, rollouts, place: port }, closers);
    opened();
    up = {
      of,
      core,
      fleet,
      rollouts,
      broker,
      bus,
      regions: abroad?.regions ?? null,
      regionRollouts: abroad?.regionRollouts ?? null,
      inject: (topic, payload) => {
        for (const { filter, handler } of listeners) {
          if (filterMatches(filter, topic)) handler({ topic, payload, retained: false });
        }
      },
    };
    world.note(`${node} is up`);
    parts.onUp(up);
  }

  function boot(): void {
    if (life?.of.alive === true) return;
    const of = world.boot(node);
    const closers: (() => Promise<void>)[] = [];
    life = { of, closers };
    start(of, closers).catch((thrown: unknown) => {
      const fault = asFleetError(thrown);
      world.note(`${node} does not start: ${fault.code} ${fault.message}`);
      reached.count('code', fault.code);
      if (fault.code === 'internal') world.violate(`${node}: ${fault.stack ?? fault.message}`);
      // As a supervisor does it.
      self.fail('exit', 10_000);
    });
  }

  const self: RegistryNode = {
    node,
    place,
    clocks,
    up: () => (up?.of.alive === true ? up : null),
    boot,
    fail: (how, downMs) => {
      if (life?.of.alive !== true) return;
      next = { how, downMs, image: null };
      world.kill(life.of);
    },
    restart: () => {
      const ending = life;
      if (ending?.of.alive !== true) return;
      up = null;
      void endedProperly(world, node, ending.closers).then(() => self.fail('exit', 1_000));
    },
    backup: () => place.image(),
    restoreFrom: (image, downMs) => {
      if (life?.of.alive !== true) return;
      next = { how: 'cut', downMs, image };
      world.kill(life.of);
    },
    afterCut: () => {
      const { how, downMs, image } = next ?? { how: 'cut', downMs: undefined, image: null };
      next = null;
      up = null;
      deaths += 1;
      if (how === 'cut') place.cut();
      else place.exit();
      // Lists to other regions begin anew, as `lepton backup restore` has it.
      if (image !== null) place.load(image, seat === undefined ? undefined : forgetIncarnation);
      if (life !== null) network.cut(life.of);
      const drawn = drawInt(50, 600_000, world.seed, 'registry-down', node, deaths);
      const waitMs = downMs === undefined ? drawn : downMs;
      if (waitMs !== null) world.later(waitMs, boot);
    },
  };
  return self;
}
