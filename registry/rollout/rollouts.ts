// Why: the shell of the rollout controller: reads facts, steps, stores and publishes; woken by reports, presence, time.
// Trusts: controller.ts for every decision. Must never: hold a decision that is not stored.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Timer } from '../../shared/kernel/ports.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { RolloutStatus, RolloutSummary } from '../../shared/wire/rollouts.ts';
import type { RegistryCore } from '../core.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { RegistryDb } from '../store/open.ts';
import type { ReferenceProfile } from '../telemetry/profiles.ts';
import { createRolloutCommands, type RolloutCommands } from './commands.ts';
import { step } from './controller.ts';
import { writeDecision } from './decision-writing.ts';
import { dueQuery, firstBarred } from './due.ts';
import { type FactOptions, readFacts } from './fact-reading.ts';
import type { RolloutFact } from './facts.ts';
import { createDeviceGroups, type DeviceGroups } from './groups.ts';
import { readRollout, specOf, writeHistory } from './records.ts';
import { createRolloutStarting, type RolloutStarting } from './starting.ts';
import { statusIn } from './status.ts';
import type { EvidenceKept } from './wave-evidence.ts';

export interface Rollouts extends RolloutCommands, RolloutStarting {
  groups: DeviceGroups;
  /** Newest first. */
  list(): Promise<RolloutSummary[]>;
  /** Refusal: `rollout-unknown`. */
  status(rolloutId: string): Promise<Result<RolloutStatus>>;
  /** Told after rollouts were stepped, or somebody said something to one. Returns how to stop. */
  onStepped(listener: () => void): () => void;
  /** Goes on with every rollout from what is stored. */
  start(): Promise<void>;
  /** Ends after the step that is under way. Idempotent. */
  stop(): Promise<void>;
}

/** Reports come in crowds: rollouts are stepped at most ten times a second, */
const stepGapMs = 100;
/** and in a large fleet rest four times as long as they worked, so that others get their turn. */
const gapShare = 4;
/** Devices looked up in one pass because they reported; the others wait for the next. */
const reportedMax = 1_000;
/** Assignments signed in one transaction: about 10 ms. */
const changesMax = 200;

type References = Pick<FactOptions, 'reference' | 'references'>;

export function createRollouts(core: RegistryCore, fleet: Fleet): Rollouts {
  const { store, releases, clock, log, region } = core;
  const stepEveryMs = core.limits.rolloutStepEveryMs;
  const { qb } = store;
  let started = false;
  let stopped = false;
  /** Something changed since the last pass; `newcomers` also: who matches which selector may have changed. */
  let changed = false;
  let newcomers = true;
  let passing: Promise<void> | null = null;
  let timer: Timer | null = null;
  let endGap: () => void = () => undefined;
  let unlisten: () => void = () => undefined;
  const kept: EvidenceKept = new Map();
  /** Devices that reported since the last pass. */
  const reported = new Set<string>();
  const listeners = new Set<() => void>();

  function wake(members: boolean): void {
    changed = true;
    if (members) newcomers = true;
    if (!started || stopped || passing !== null) return;
    passing = passes().finally(() => {
      passing = null;
      if (changed) wake(false);
    });
  }

  async function passes(): Promise<void> {
    while (changed && !stopped) {
      changed = false;
      timer?.cancel();
      const beganMs = clock.mono();
      const wakeAtMs = await passOrLater();
      if (stopped) return;
      for (const listener of listeners) listener();
      if (wakeAtMs !== null) sleepUntil(wakeAtMs);
      await gap(Math.max(stepGapMs, gapShare * (clock.mono() - beganMs)));
    }
  }

  /** Between two passes; cut short by `stop`. */
  async function gap(ms: number): Promise<void> {
    const pause = clock.timer(ms);
    const ended = new Promise<void>((resolve) => {
      endGap = resolve;
    });
    await Promise.race([pause.done, ended]);
    pause.cancel();
  }

  function sleepUntil(atMs: number): void {
    const waitMs = Math.min(Math.max(atMs - clock.wall(), stepGapMs), stepEveryMs);
    timer = clock.timer(waitMs);
    void timer.done.then(() => wake(false));
  }

  /** A store that fails now may work soon: everything is looked at again then. */
  async function passOrLater(): Promise<number | null> {
    const members = newcomers;
    try {
      return await pass();
    } catch (thrown) {
      const error = asFleetError(thrown);
      log.emit('error', 'rollout.step.failed', { code: error.code, detail: error.message });
      newcomers ||= members;
      return clock.wall() + stepEveryMs;
    }
  }

  /** Steps every rollout that may change. Returns when to look again, null where nothing is under way. */
  async function pass(): Promise<number | null> {
    const members = newcomers;
    newcomers = false;
    let wakeAtMs: number | null = null;
    const some = [...reported].slice(0, reportedMax);
    const rolloutIds = await store.tx((db) => due(db, members, some));
    for (const deviceId of some) reported.delete(deviceId);
    for (const rolloutId of rolloutIds) {
      if (stopped) return null;
      const nextMs = await advance(rolloutId, members, some);
      if (nextMs !== null) wakeAtMs = Math.min(wakeAtMs ?? nextMs, nextMs);
    }
    return wakeAtMs;
  }

  /**
   * By priority, then the latest first: a device that matches several gets what the latest says. Of one priority those
   * that queue come last, the earliest of them first, so that none takes what another is before it in line for.
   */
  function due(db: RegistryDb, members: boolean, some: readonly string[]): string[] {
    // Rare: where nothing is barred, nobody's assignment is looked through.
    const anyBarred = db.first(firstBarred(qb)) !== undefined;
    const found = db.all(dueQuery(members, anyBarred)(qb, JSON.stringify(some)));
    const queues = (row: { spec: string }): boolean => specOf(row.spec).whenBusy === 'queue';
    const inLine = [...found.filter((row) => !queues(row)), ...found.filter(queues).reverse()];
    return inLine.sort((a, b) => b.priority - a.priority).map((row) => row.rollout_id);
  }

  /** Steps one rollout until nothing more follows from what is known; `some` have reported since the last pass. */
  async function advance(
    rolloutId: string,
    members: boolean,
    some: readonly string[],
  ): Promise<number | null> {
    try {
      const references = await referencesOf(rolloutId);
      for (;;) {
        const stepped = await store.tx((db) => stepIn(db, rolloutId, members, references));
        if (stepped === null) return null;
        if (stepped.devices.length > 0) await fleet.director.publish(stepped.devices);
        if (stopped) return null;
        if (stepped.devices.length > 0) continue;
        return stepped.open ? (stepped.wakeAtMs ?? clock.wall() + stepEveryMs) : stepped.wakeAtMs;
      }
    } catch (thrown) {
      const error = asFleetError(thrown);
      log.emit('error', 'rollout.step.failed', { rolloutId, code: error.code, detail: error.message });
      // What this look would have seen is seen by the next.
      newcomers ||= members;
      for (const deviceId of some) reported.add(deviceId);
      return clock.wall() + stepEveryMs;
    }
  }

  /** What a gate on drift compares with: read once a pass, outside of the transaction. */
  async function referencesOf(rolloutId: string): Promise<References> {
    const rollout = await store.tx((db) => readRollout(db, qb, rolloutId));
    if (rollout?.spec.gates.driftPsi === undefined) return { reference: null };
    const { profiles } = fleet.evidence;
    const references: (ReferenceProfile | null)[] = [];
    for (const { release } of rollout.companions ?? []) references.push(await profiles.of(release.releaseId));
    return { reference: await profiles.of(rollout.release.releaseId), references };
  }

  function stepIn(db: RegistryDb, rolloutId: string, members: boolean, references: References) {
    const options = { region, newcomers: members, nowMs: clock.wall(), changesMax, ...references, kept };
    const facts = readFacts(db, qb, rolloutId, options);
    if (facts === undefined) return null;
    const decision = step(facts);
    writeDecision(db, qb, facts, decision, (deviceId) => fleet.director.issueIn(db, deviceId));
    transition(db, facts.rollout, decision.rollout, null);
    return {
      devices: [...decision.desired.keys()],
      wakeAtMs: decision.wakeAtMs,
      open: decision.rollout.state === 'running' || decision.rollout.state === 'rolling-back',
    };
  }

  /** Says that the rollout came into another state, in the log and among the fleet's events. */
  function transition(db: RegistryDb, before: RolloutFact, after: RolloutFact, by: string | null): void {
    if (before.state === after.state) return;
    const { id, name, state, reason } = after;
    log.emit('info', 'rollout.transition', { rolloutId: id, name, from: before.state, to: state, reason });
    const detail = reason === null ? `${id} (${name})` : `${id} (${name}): ${reason}`;
    fleet.events.recordIn(db, { source: 'registry', subject: null, code: `rollout-${state}`, detail });
    writeHistory(db, qb, id, { wave: null, what: state, by, reason, atMs: clock.wall() });
    // What was superseded or taken back may concern other rollouts of the same name.
    if (after.endedAtMs === null) return;
    newcomers = changed = true;
    for (const key of [...kept.keys()]) if (key.startsWith(`${id} `)) kept.delete(key);
  }

  const starting = createRolloutStarting({ ...core, began: () => wake(true) });

  return {
    ...starting,

    async list() {
      const rows = await store.tx((db) =>
        db.all(qb.selectFrom('rollouts').selectAll().orderBy('number', 'desc')),
      );
      return rows.map((row) => ({
        id: row.rollout_id,
        name: row.name,
        release: row.release_id,
        as: row.as_name,
        state: row.state as RolloutSummary['state'],
        reason: row.reason,
        createdBy: row.created_by,
        createdAtMs: row.created_at_ms,
        endedAtMs: row.ended_at_ms,
      }));
    },

    status: (rolloutId) => store.tx((db) => statusIn(db, qb, rolloutId)),

    onStepped(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },

    groups: createDeviceGroups(store, clock, () => wake(true)),
    ...createRolloutCommands({
      begin: starting.begin,
      region,
      store,
      clock,
      transition,
      referencesOf,
      changed: () => wake(true),
    }),

    async start() {
      started = true;
      const ends = [
        fleet.onChange(({ kind, deviceId }) => {
          if (kind === 'report') reported.add(deviceId);
          wake(kind === 'member');
        }),
        releases.onBarred({ after: () => wake(true) }),
      ];
      unlisten = () => {
        for (const end of ends) end();
      };
      wake(true);
    },

    async stop() {
      stopped = true;
      unlisten();
      timer?.cancel();
      endGap();
      await passing;
    },
  };
}
