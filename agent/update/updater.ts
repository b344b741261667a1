// Why: the shell around the update machine: it journals the next state durably, then acts, and turns
// what happened into the next event. Trusts: assignments the trust room has checked.
// Must never: act before the journal is durable, or take the result of a superseded attempt for its own.

import { asFleetError, FleetError, invariant } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type {
  Clock,
  Disk,
  Entropy,
  Fetcher,
  Rebuilder,
  Runtime,
  SqlTx,
  Store,
} from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { AssignedRelease, Assignment, Reason, ReportedModel } from '../../shared/wire/messages.ts';
import { createActs } from './acts.ts';
import { createDeferral, type DeferAnswer, type DeviceDeferral } from './deferral.ts';
import { type Around, type DeviceTime, deferTimeMs, granted, noTime } from './doors.ts';
import { type BlobLimits, type DeliveryCounters, openBlobs } from './fetch.ts';
import { deleteMachine, readMachines, writeMachine } from './journal.ts';
import type { DeviceFacts } from './judgement.ts';
import type { Act, Lane } from './lane.ts';
import {
  type Effect,
  isDeferrable,
  type MachineEvent,
  type MachineState,
  newMachine,
  step,
} from './machine.ts';
import { isSameRelease } from './machine-state.ts';
import { openRelease, reasonOf } from './release.ts';
import { createServing } from './serving.ts';
import { type Listeners, reported, tell } from './telling.ts';
import { type Others, parting, withheld } from './together.ts';
import { backoffMs, createWaits, faultsRefused } from './waits.ts';

export interface UpdaterParts extends Omit<DeviceFacts, 'arch'>, Listeners {
  store: Store;
  disk: Disk;
  clock: Clock;
  entropy: Entropy;
  fetcher: Fetcher;
  runtime: Runtime;
  /** Makes files of smaller ones; absent: every file is fetched as it is. */
  rebuilder?: Rebuilder;
  /** All files of releases together; absent: as much as the disk has. */
  storageQuotaBytes?: number;
  /** Whether catalogue and director name the same bytes, asked from local metadata before any download. */
  trust: { agree(assigned: AssignedRelease): Promise<Result<void>> };
  /** Called with all models after each change; must not block. Progress comes in steps of 5 %. */
  onChange: (models: ReportedModel[]) => void;
  /** As Node names it: `x64`, `arm64`. */
  arch: string;
  /** What the device knows of the time; absent: nothing, and windows stay closed. */
  time?: () => DeviceTime;
  /**
   * The journal was lost: which files are needed is known only once an assignment was taken, so none is collected
   * before.
   */
  journalLost?: boolean;
  /** For the simulator, which shrinks them. */
  limits?: BlobLimits & { journalWritesMax: number };
}

export interface Updater {
  /**
   * Resumes every model and serves the active releases first; resolves when each was tried once,
   * before any use of the network. Faults: `state-corrupt`, and those of the store.
   */
  start(): Promise<void>;
  /**
   * What this device is to run: models that are not listed are removed, but for those to keep. Resolves when that is durable.
   * Idempotent; call it after `start` with the assignment in force, and with each new one.
   */
  assign(assignment: Assignment): Promise<void>;
  models(): ReportedModel[];
  /** Whether exactly this release, with all that was signed of it, is the last good one of its name. */
  isLastGood(assigned: AssignedRelease): boolean;
  delivery(): DeliveryCounters;
  /**
   * Somebody at the device says "not now" to downloads and switches for so long, also to updates that come meanwhile;
   * null takes it back. Durable when it resolves. Refusal: `defer-exhausted`, where no update under way may wait longer.
   */
  defer(forMs: number | null): Promise<Result<DeferAnswer>>;
  deferral(): DeviceDeferral | null;
  /** The region told the time, or the clock was set: what waits for a time looks again. */
  timeTold(): void;
  /** The network is back: waiting retries start at once. */
  retryNow(): void;
  /**
   * The process of a release that serves died again. While it soaks it is judged at once; where it keeps dying
   * (`model-crash-loop`) the release before it takes over, if both authorities still name it.
   */
  troubled(fact: { as: string; manifestSha256: string; refusal: Refusal }): void;
  /** No effect begins after this; a transaction that is under way ends first. */
  stop(): Promise<void>;
}

export function createUpdater(parts: UpdaterParts): Updater {
  const { store, clock, entropy, runtime, log } = parts;
  const time = parts.time ?? (() => ({ ...noTime, wallMs: clock.wall() }));
  const deferral = createDeferral(store, time);
  const ofHouse = parts.limits ?? limits;
  const { disk, fetcher, rebuilder, storageQuotaBytes } = parts;
  const blobs = openBlobs({
    disk,
    fetcher,
    clock,
    log,
    limits: { ...ofHouse, ...(storageQuotaBytes === undefined ? {} : { storageQuotaBytes }) },
    ...(rebuilder === undefined ? {} : { rebuilder }),
  });
  const lanes = new Map<string, Lane>();
  const storeWaits = createWaits(clock);
  let started = false;
  let stopped = false;
  let tail: Promise<unknown> = Promise.resolve();
  let openGate: () => void = () => undefined;
  /** What may use the network waits until the active releases were brought up. */
  const gate = new Promise<void>((resolve) => {
    openGate = resolve;
  });

  /** Whether the assignment in force was taken since this start. */
  let told = false;
  const others: Others = (as) => lanes.get(as)?.state ?? null;
  const around = (state: MachineState): Around => {
    const now = time();
    return state.policy.together === undefined ? now : { ...now, together: withheld(state, others, now) };
  };

  const models = () => [...lanes.values()].map(reported);
  const changed = () => {
    if (!stopped) parts.onChange(models());
  };
  const acts = createActs({
    blobs,
    runtime,
    clock,
    entropy,
    log,
    agree: (assigned) => parts.trust.agree(assigned),
    time,
    around,
    device: parts,
    states: () => [...lanes.values()].map((lane) => lane.state),
    // Asked again when its turn comes: an assignment that waits before it may have changed everything.
    dispatch: ({ lane, current }, event) =>
      enqueue(async () => {
        if (current()) await take(lane.as, event);
      }),
    changed,
    stopped: () => stopped,
  });

  /** One transaction, tried until the store takes it: an event is never lost to a full disk. */
  async function journalled(work: (db: SqlTx) => void): Promise<void> {
    for (let failures = 1; !stopped; failures += 1) {
      try {
        return await store.tx(work);
      } catch (thrown) {
        const error = asFleetError(thrown);
        if (error.code === 'internal' || error.retry === 'never') throw error;
        log.emit('error', 'update.waiting', { code: error.code, detail: error.message });
        await storeWaits.pause(backoffMs(failures, entropy));
      }
    }
  }

  function makeLane(state: MachineState): Lane {
    const waits = createWaits(clock);
    const lane: Lane = {
      as: state.as,
      state,
      generation: 0,
      closed: false,
      deadline: null,
      waits,
      progress: null,
      problem: null,
      serving: createServing({
        as: state.as,
        state: () => lane.state,
        stopped: () => stopped || lane.closed,
        dispatch: (event) => void dispatch(lane.as, event),
        blobs,
        runtime,
        entropy,
        waits,
        changed,
        onCrashLoop: (manifestSha256, reason) => void crashLooped(lane, manifestSha256, reason),
      }),
    };
    lanes.set(state.as, lane);
    return lane;
  }

  async function crashLooped(lane: Lane, manifestSha256: string, reason: Reason): Promise<void> {
    const { active, previous, phase } = lane.state;
    if (active?.manifestSha256 !== manifestSha256 || (phase !== 'committed' && phase !== 'idle')) return;
    const fields = { model: lane.as, release: active.releaseId, ...reason };
    if (previous === null) return log.emit('error', 'update.crash-loop', { ...fields, fallback: null });
    const agreed = await fallbackOf(lane);
    const fallback = agreed?.ok === true ? agreed.value : null;
    log.emit('error', 'update.crash-loop', {
      ...fields,
      fallback: fallback === null ? null : previous.releaseId,
      ...(agreed === null || agreed.ok ? {} : { barredBy: agreed.refusal.code }),
    });
    await dispatch(lane.as, { type: 'crash-looped', manifestSha256, reason, fallback });
  }

  /** The release before the last good one, where it can be gone back to; null where there is none. */
  async function fallbackOf({ as, state: { previous, policy } }: Lane): Promise<Result<string> | null> {
    if (previous === null) return null;
    // It was agreed on when it was installed; a publisher may have taken it back since.
    const assigned = { as, ...previous, rolloutId: null, policy };
    return faultsRefused(async () => {
      // And its files may have made room for the release that is to go.
      const there = await openRelease(blobs, as, previous);
      const agreed = there.ok ? await parts.trust.agree(assigned) : there;
      return agreed.ok ? ok(previous.manifestSha256) : agreed;
    });
  }

  /** Events of all models are taken one after the other. */
  function enqueue(work: () => Promise<void>): Promise<void> {
    const turn = tail.then(work);
    tail = turn.then(
      () => undefined,
      () => undefined,
    );
    return turn;
  }

  function dispatch(as: string, event: MachineEvent): Promise<void> {
    return enqueue(() => take(as, event));
  }

  async function take(as: string, event: MachineEvent): Promise<void> {
    if (stopped) return;
    const known = lanes.get(as);
    if (known === undefined && event.type !== 'assigned') return;
    const before = known?.state ?? newMachine(as, clock.mono());
    const { next, effects, journal } = step(before, event, clock.mono(), {
      ...ofHouse,
      time: around(before),
    });
    if (journal) await journalled((db) => writeMachine(db, next));
    if (stopped) return;
    const lane = known ?? makeLane(next);
    lane.state = next;
    arm(lane);
    if (effects.length > 0) {
      lane.generation += 1;
      lane.problem = null;
      lane.progress = null;
    }
    if (journal) {
      tell(parts, before, next);
      changed();
      lookTogether(lane.as);
    }
    for (const effect of effects) await perform(lane, effect);
  }

  /** A model changed: those that switch together with it look again. */
  function lookTogether(as: string): void {
    for (const lane of lanes.values()) {
      if (lane.as !== as && lane.state.policy.together?.includes(as) !== true) continue;
      if (lane.as !== as) lane.waits.wake();
      if (parting(lane.state, others, told) !== null) void enqueue(() => part(lane));
    }
  }

  async function part(lane: Lane): Promise<void> {
    // Its turn may have come much later.
    const reason = parting(lane.state, others, told);
    if (reason === null || lane.closed || stopped) return;
    const fallback = lane.state.phase === 'committed' ? await fallbackOf(lane) : null;
    await take(lane.as, { type: 'parted', reason, fallback: fallback?.ok === true ? fallback.value : null });
  }

  async function perform(lane: Lane, effect: Effect): Promise<void> {
    if (effect === 'settle') return lane.serving.settle();
    if (effect === 'forget') return forget(lane);
    const { generation } = lane;
    const current = () => !stopped && !lane.closed && lane.generation === generation;
    const act: Act = { lane, sinceMs: clock.mono(), current };
    if (effect === 'collect') void gate.then(() => acts.collect());
    else void gate.then(() => (act.current() ? acts.of[effect](act) : undefined));
  }

  async function defer(forMs: number | null): Promise<Result<DeferAnswer>> {
    const nowMs = deferTimeMs(time());
    const under = [...lanes.values()].filter(({ state }) => isDeferrable(state));
    const may = ({ state: { policy, deferral: before } }: Lane): boolean =>
      forMs !== null && granted(policy, before, forMs, nowMs) !== null;
    if (forMs !== null && under.length > 0 && !under.some(may)) {
      const which = under.map(({ as, state }) => `${as} ${state.target?.releaseId ?? ''}`).join(', ');
      return refuse('defer-exhausted', which);
    }
    await deferral.say(forMs);
    for (const { as } of under) await take(as, { type: 'deferred', forMs });
    const updates = under.map(({ as, state }) => ({
      as,
      releaseId: state.target?.releaseId ?? null,
      untilMs: state.deferral?.untilMs ?? nowMs,
    }));
    log.emit('info', 'update.deferred', { forMs, updates });
    changed();
    return ok({ deferral: deferral.now(), updates });
  }

  async function forget(lane: Lane): Promise<void> {
    await journalled((db) => deleteMachine(db, lane.as));
    close(lane);
    lanes.delete(lane.as);
    changed();
  }

  function close(lane: Lane): void {
    lane.closed = true;
    lane.deadline?.cancel();
    lane.waits.close();
  }

  /** The timer only asks; the machine looks at its deadline itself. */
  function arm(lane: Lane): void {
    lane.deadline?.cancel();
    lane.deadline = null;
    const { deadlineAtMs } = lane.state;
    if (deadlineAtMs === null) return;
    const timer = clock.timer(Math.max(0, Math.ceil(deadlineAtMs - clock.mono())));
    lane.deadline = timer;
    void timer.done.then(() => {
      if (lane.deadline !== timer || stopped) return;
      lane.deadline = null;
      // Armed again first: a timer that fired early must not be the last one.
      if (clock.mono() < deadlineAtMs) return arm(lane);
      const lastProblem = lane.problem ?? lane.serving.problem();
      void dispatch(lane.as, { type: 'deadline', lastProblem });
    });
  }

  return {
    models,
    isLastGood: ({ as, ...assigned }) => {
      const lastGood = lanes.get(as)?.state.lastGood ?? null;
      return lastGood !== null && isSameRelease(lastGood, assigned);
    },
    delivery: () => blobs.counters(),

    async start() {
      invariant(!started, 'the updater was started twice');
      started = true;
      const states = await store.tx((db) => {
        deferral.load(db);
        return readMachines(db);
      });
      for (const state of states) makeLane(state);
      for (const state of states) await dispatch(state.as, { type: 'booted' });
      await Promise.all([...lanes.values()].map((lane) => lane.serving.firstTry));
      openGate();
      // What a cut left behind, also of a model that is gone: nothing else would sweep it.
      if (parts.journalLost !== true) void acts.collect();
    },

    async assign(assignment) {
      invariant(started, 'assign before start');
      const wanted = new Map(assignment.releases.map((release) => [release.as, release]));
      const kept = new Set(assignment.keep);
      await enqueue(async () => {
        for (const as of [...lanes.keys()])
          if (!wanted.has(as) && !kept.has(as)) await take(as, { type: 'removed' });
        const said = deferral.now();
        const left = said === null ? {} : { deferForMs: said.untilMs - deferTimeMs(time()) };
        // Between the first and the last of them nobody is taken for one that does not belong any more.
        told = false;
        for (const [as, release] of wanted) await take(as, { type: 'assigned', release, ...left });
        told = true;
        for (const as of wanted.keys()) lookTogether(as);
      });
      if (stopped) throw new FleetError('interrupted', 'the updater was stopped while it took an assignment');
    },

    troubled({ as, manifestSha256, refusal }) {
      const lane = lanes.get(as);
      if (lane === undefined || stopped) return;
      if (lane.state.phase === 'soaking') lane.waits.wake();
      if (refusal.code === 'model-crash-loop') void crashLooped(lane, manifestSha256, reasonOf(refusal));
    },

    defer: async (forMs) => {
      let answer: Result<DeferAnswer> = refuse('interrupted', 'the agent is stopping');
      await enqueue(async () => {
        if (!stopped) answer = await defer(forMs);
      });
      return answer;
    },

    deferral: () => deferral.now(),

    timeTold() {
      for (const { as, state, waits } of lanes.values()) {
        if (state.deferral !== null) void dispatch(as, { type: 'clock-set' });
        if (state.deferral !== null || state.policy.windows !== undefined) waits.wake();
      }
    },

    retryNow() {
      for (const lane of lanes.values()) lane.waits.wake();
    },

    async stop() {
      stopped = true;
      storeWaits.wake();
      for (const lane of lanes.values()) close(lane);
      await tail;
    },
  };
}
