// Why: one simulated device: the real agent core on simulated storage, network and models, with the application that
// uses it. Trusts: the core to find everything it needs behind its ports.
// Must never: help the core over a fault, or keep anything for it that is not on its disk.

import { type Core, type CoreTerms, openCore } from '../../agent/core.ts';
import { asFleetError, type FleetError } from '../../shared/kernel/errors.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import type { Labels } from '../../shared/wire/messages.ts';
import { drawInt } from '../chance.ts';
import type { MachineClocks } from '../machine/clocks.ts';
import { storedDeflate } from '../machine/deflate.ts';
import type { Patches } from '../machine/patches.ts';
import type { SimPlace } from '../machine/place.ts';
import { createSimRuntime, type RuntimeWitness, type SimRuntime } from '../machine/runtime.ts';
import type { Network } from '../network/network.ts';
import type { Incarnation, World } from '../world.ts';
import { endedProperly, nodeLog, type Reached } from './node-log.ts';
import type { SimRelease } from './publisher.ts';

export const arch = 'x64';

export interface DeviceLife {
  of: Incarnation;
  core: Core<SimRuntime>;
}

export interface DeviceNode {
  node: string;
  place: SimPlace;
  clocks: MachineClocks;
  /** Null while it is off or coming up. */
  up(): DeviceLife | null;
  /** A claim was put onto it; the next boot enrols with it. */
  give(claim: ClaimFile, again?: boolean): void;
  boot(): void;
  fail(how: 'cut' | 'exit', downMs: number | null): void;
  restart(): void;
  /** For good. */
  retire(): void;
  afterCut(): void;
}

export interface DeviceNodeParts {
  world: World;
  network: Network;
  node: string;
  place: SimPlace;
  clocks: MachineClocks;
  labels: Labels;
  timezone: string;
  terms: CoreTerms;
  /** How it makes files of others; null: it cannot. */
  patches: Patches | null;
  reached: Reached;
  releaseOf(manifestSha256: string): SimRelease | undefined;
  witness: RuntimeWitness;
  /** The application's records: how often, and told of each that was answered. */
  application: {
    everyMs: number;
    goesOn(): boolean;
    record(): Uint8Array;
    answered(body: Uint8Array): void;
  } | null;
  onBoot(of: Incarnation): void;
  /** The core serves what it had, and has not used the network yet. */
  onServing(life: { of: Incarnation; runtime: SimRuntime }): void;
  onNetwork(served: boolean): void;
  /** It does not start, for this reason; it will be started again. */
  onFault(fault: FleetError): void;
}

export function createDeviceNode(parts: DeviceNodeParts): DeviceNode {
  const { world, network, node, place, clocks, reached } = parts;
  let life: { of: Incarnation; undo: (() => Promise<void>)[] } | null = null;
  let up: DeviceLife | null = null;
  let next: { how: 'cut' | 'exit'; downMs: number | null } | null = null;
  let claim: ClaimFile | null = null;
  let reEnroll = false;
  let retired = false;
  let deaths = 0;

  async function start(of: Incarnation, undo: (() => Promise<void>)[]): Promise<void> {
    const clock = world.clock(of);
    let served = false;
    const connect = network.connect(of);
    const port = place.port(of);
    const core = await openCore<SimRuntime>(
      {
        place: port,
        ...(claim === null ? {} : { claim }),
        labels: parts.labels,
        reEnroll,
        info: () => ({ version: '0.0.0-sim', runtime: 'sim', arch }),
        timezone: parts.timezone,
        clock,
        entropy: world.entropy(of),
        deflate: storedDeflate,
        log: nodeLog(world, node, reached),
        connect: (options) => {
          parts.onNetwork(served);
          return connect(options);
        },
        runtime: (events) =>
          createSimRuntime({
            world,
            of,
            clock,
            events,
            peek: (path) => place.files.peek(path),
            rotted: (path) => place.files.rotted.has(path),
            kindOf: (sha256) => parts.releaseOf(sha256)?.kind,
            releaseOf: (sha256) => parts.releaseOf(sha256)?.releaseId ?? 'acme/unknown@1.0.0',
            witness: parts.witness,
          }),
        ...(parts.patches === null ? {} : { rebuilder: parts.patches.rebuilder(port.disk('.')) }),
        terms: parts.terms,
      },
      undo,
    );
    served = true;
    parts.onServing({ of, runtime: core.runtime });
    up = { of, core };
    void use(up);
    await core.join();
    reEnroll = false;
    world.note(`${node} has joined`);
  }

  /** The application on the device asks the models and records what it makes of the answers. */
  async function use({ of, core }: DeviceLife): Promise<void> {
    const { application } = parts;
    if (application === null) return;
    const clock = world.clock(of);
    for (;;) {
      await clock.timer(application.everyMs).done;
      if (!application.goesOn()) return;
      for (const as of core.runtime.serving.keys()) core.runtime.ask(as);
      const body = application.record();
      try {
        const recorded = await core.record(body);
        if (recorded.ok) application.answered(body);
        else reached.count('code', recorded.refusal.code);
      } catch (thrown) {
        reached.count('code', asFleetError(thrown).code);
      }
    }
  }

  function boot(): void {
    if (life?.of.alive === true || retired || world.violation() !== null) return;
    const of = world.boot(node);
    const undo: (() => Promise<void>)[] = [];
    life = { of, undo };
    parts.onBoot(of);
    start(of, undo).catch((thrown: unknown) => {
      const fault = asFleetError(thrown);
      world.note(`${node} does not start: ${fault.code} ${fault.message}`);
      reached.count('code', fault.code);
      if (fault.code === 'internal') world.violate(`${node}: ${fault.stack ?? fault.message}`);
      parts.onFault(fault);
      self.fail('exit', drawInt(5_000, 30_000, world.seed, 'supervisor', node, of.number));
    });
  }

  const self: DeviceNode = {
    node,
    place,
    clocks,
    up: () => (up?.of.alive === true ? up : null),
    give: (file, again = false) => {
      claim = file;
      reEnroll = again;
    },
    boot,
    fail: (how, downMs) => {
      if (life?.of.alive !== true) return;
      next = { how, downMs };
      world.kill(life.of);
    },
    restart: () => {
      const ending = life;
      if (ending?.of.alive !== true) return;
      up = null;
      void endedProperly(world, node, ending.undo).then(() => self.fail('exit', 1_000));
    },
    retire: () => {
      retired = true;
      self.fail('cut', null);
    },
    afterCut: () => {
      const { how, downMs } = next ?? { how: 'cut', downMs: undefined };
      next = null;
      up = null;
      deaths += 1;
      if (how === 'cut') place.cut();
      else place.exit();
      if (life !== null) network.cut(life.of);
      const drawn = drawInt(
        10,
        deaths % 3 === 0 ? 1_800_000 : 60_000,
        world.seed,
        'device-down',
        node,
        deaths,
      );
      const waitMs = downMs === undefined ? drawn : downMs;
      if (waitMs !== null) world.later(waitMs, boot);
    },
  };
  return self;
}
