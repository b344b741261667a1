// Why: what the core does about moves between regions: it loads the parts for one only where there was an order or something
// of an earlier region is left, and makes the switch itself: out of the old region, one commit, into the new one.
// Trusts: the mover for orders; the parts of a line to end when told. Must never: let the switch stop what serves, or leave
// the device without a line to one of the two regions.

import type { AgentBus, ConnectBusOptions } from '../shared/host/mqtt.ts';
import { asFleetError, invariant } from '../shared/kernel/errors.ts';
import type { Clock, Deflate, Entropy, Log, Place } from '../shared/kernel/ports.ts';
import type { Refusal } from '../shared/kernel/result.ts';
import { checkAssignment } from '../shared/trust/assignment.ts';
import type { RegionRoot } from '../shared/trust/region.ts';
import type { Assignment, Envelope, ReportedModel } from '../shared/wire/messages.ts';
import type { AgentInfo } from './bus/reports.ts';
import type { Mover } from './move/mover.ts';
import { inTheMiddle } from './move/quiet.ts';
import type { Carried } from './telemetry/carried.ts';
import type { OpenedTelemetry } from './telemetry/open.ts';
import type { OutboxLimits } from './telemetry/outbox-port.ts';
import type { Authority } from './trust/authority.ts';
import type { Identity } from './trust/identity.ts';
import type { Keeper, NextRegion } from './trust/keeper.ts';
import { type Moves, outboxFileOf } from './trust/moves.ts';
import { heldEnvelope } from './trust/trust-store.ts';

export interface MovingParts {
  place: Place;
  keeper: Keeper;
  telemetry: OpenedTelemetry;
  useRules(assignment: Assignment | null): void;
  authority(): Authority | null;
  identity(): Identity | null;
  models(): ReportedModel[];
  agent(): AgentInfo;
  timezone: string;
  remember(refusal: Refusal, fingerprint: string): void;
  /** What a report says changed. */
  changed(): void;
  /** Ends the line. */
  leave(): Promise<void>;
  /** Begins another one: as who the device is now, where `next` is not null, else as before. */
  arrive(next: Identity | null): Promise<void>;
  connect(options: ConnectBusOptions): AgentBus;
  terms: { outbox?: Partial<OutboxLimits>; batchAgeMs?: number; carriedAnswerMs?: number };
  clock: Clock;
  entropy: Entropy;
  deflate: Deflate;
  log: Log;
}

export interface Moving {
  /** An order that came, unchecked; returns at once. */
  ordered(envelope: Envelope): void;
  /** A model changed its state. */
  look(): void;
  /** Goes on with an order that was taken before the start. */
  resume(): void;
  /** The first assignment of the region that the device came to, while none is in force. */
  arrival(): Assignment | null;
  /** Opens what is left of earlier regions; files that no move knows any more go. */
  open(): Promise<void>;
  /** The device has just come to another region: its telemetry goes there from now on, what it had is carried. Idempotent. */
  enter(identity: Identity, authority: Authority): Promise<void>;
  carried(): Carried | null;
  stop(): Promise<void>;
}

const againMs = 5_000;

let carriedModule: Promise<typeof import('./telemetry/carried.ts')> | null = null;
let moverModule: Promise<typeof import('./move/mover.ts')> | null = null;
const loadCarried = () => (carriedModule ??= import('./telemetry/carried.ts'));
const loadMover = () => (moverModule ??= import('./move/mover.ts'));

/** Loads what is otherwise loaded when a device first needs it: for a world that has no files to load it from. */
export async function loadMoving(): Promise<void> {
  await Promise.all([loadCarried(), loadMover()]);
}

export function createMoving(parts: MovingParts): Moving {
  const { place, keeper, clock, entropy, deflate, log } = parts;
  let carried: Carried | null = null;
  let mover: Promise<Mover> | null = null;
  let stopped = false;
  let wake: () => void = () => undefined;
  const stopping = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const moves = (): Moves => keeper.held().moves;

  function failed(while_: string, thrown: unknown): void {
    const fault = asFleetError(thrown);
    log.emit('error', 'agent.failed', { while: while_, code: fault.code, detail: fault.message });
  }

  function arrivalBy(root: RegionRoot, identity: Identity): Assignment | null {
    const { arrival } = moves();
    const envelope = arrival === null ? null : heldEnvelope(arrival);
    if (envelope === null) return null;
    const { deviceId, region } = identity;
    const checked = checkAssignment({
      ...{ envelope, regionRoot: root, deviceId, region },
      ...{ current: null, nowMs: 0 },
    });
    return checked.ok ? checked.value.assignment : null;
  }

  function arrival(): Assignment | null {
    const [authority, identity] = [parts.authority(), parts.identity()];
    return authority === null || identity === null ? null : arrivalBy(authority.regionRoot(), identity);
  }

  async function sweep(): Promise<void> {
    const { outbox, chains } = moves();
    const known = new Set([outbox, ...chains.map((chain) => chain.outbox)].map(outboxFileOf));
    const disk = place.disk('.');
    for (const file of await disk.list('.')) {
      const [name = ''] = /^outbox(-\d+)?\.sqlite(?=(-wal|-shm)?$)/.exec(file) ?? [];
      if (name !== '' && !known.has(name)) await disk.unlink(file);
    }
  }

  async function openCarried(): Promise<void> {
    if (moves().chains.length === 0) return;
    const { createCarried } = await loadCarried();
    const { outbox, batchAgeMs, carriedAnswerMs } = parts.terms;
    carried ??= createCarried({
      ...{ place, moves, clock, entropy, deflate, log },
      save: keeper.moves,
      onRefused: parts.remember,
      ...(outbox === undefined ? {} : { limits: outbox }),
      ...(batchAgeMs === undefined ? {} : { batchAgeMs }),
      ...(carriedAnswerMs === undefined ? {} : { answerMs: carriedAnswerMs }),
    });
    await carried.open();
  }

  async function switchTo(next: NextRegion): Promise<boolean> {
    await parts.leave();
    let moved = false;
    try {
      // Nothing new is assigned from here on.
      if (inTheMiddle(parts.models()) === null) {
        await keeper.moved(next);
        moved = true;
      }
    } finally {
      await arrive(moved ? next.identity : null);
    }
    return moved;
  }

  /** Whatever fails on the way (a full disk): the device is of that region now, and must get there. */
  async function arrive(next: Identity | null): Promise<void> {
    while (!stopped) {
      try {
        return await parts.arrive(next);
      } catch (thrown) {
        failed('going online', thrown);
        const timer = clock.timer(againMs);
        await Promise.race([timer.done, stopping]);
        timer.cancel();
      }
    }
  }

  async function startMover(): Promise<Mover> {
    const { startMover: start } = await loadMover();
    const present = <T>(value: T | null): T => {
      if (value === null) throw new Error('orders come to an enrolled device only');
      return value;
    };
    return start({
      ...{ keeper, clock, entropy, log, timezone: parts.timezone },
      authority: () => present(parts.authority()),
      identity: () => present(parts.identity()),
      models: parts.models,
      labels: () => parts.authority()?.assignment()?.labels ?? parts.identity()?.labels ?? {},
      agent: parts.agent,
      remember: parts.remember,
      changed: parts.changed,
      switchTo,
      connect: parts.connect,
    });
  }

  function loaded(then: (mover: Mover) => void): void {
    if (stopped) return;
    mover ??= startMover();
    mover.then(then).catch((thrown: unknown) => failed('loading what a move needs', thrown));
  }

  return {
    ordered: (envelope) => loaded((one) => one.ordered(envelope)),
    look: () => {
      if (mover !== null) loaded((one) => one.look());
    },
    resume: () => {
      if (moves().under !== null) loaded(() => undefined);
    },
    arrival,
    open: async () => {
      try {
        await sweep();
        await openCarried();
      } catch (thrown) {
        // The next start tries again; what serves does not wait for it.
        failed('opening what is carried', thrown);
      }
    },
    enter: async (identity, authority) => {
      const assignment = arrivalBy(authority.regionRoot(), identity);
      const key = assignment?.telemetry ?? null;
      // The rehearsal asked for one. Without it the outbox in use would be given to the new region, and emptied for it.
      invariant(assignment !== null && key !== null, 'a device that moved has a key of its new region');
      const { deviceId, region } = identity;
      const masking = assignment.masking ?? null;
      await parts.telemetry.moveOn({ outbox: moves().outbox, deviceId, region, key, masking });
      parts.useRules(assignment);
      await openCarried();
    },
    carried: () => carried,
    stop: async () => {
      stopped = true;
      wake();
      await (await mover)?.stop();
      await carried?.stop();
    },
  };
}
