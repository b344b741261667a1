// Why: the shell of the rollout controller: reads facts, steps, stores and publishes; woken by reports, presence, time.
// Trusts: controller.ts for every decision. Must never: hold a decision that is not stored.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Timer } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { ModelView } from '../../shared/wire/http.ts';
import type { RolloutFile, RolloutSpec } from '../../shared/wire/rollout-file.ts';
import type { RolloutPlan } from '../../shared/wire/rollout-plan.ts';
import type { RolloutStatus, RolloutSummary } from '../../shared/wire/rollouts.ts';
import { barredReleases } from '../catalog/barred.ts';
import type { RegistryCore } from '../core.ts';
import { fromColumn, toColumn } from '../fleet/columns.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { RegistryDb } from '../store/open.ts';
import type { ReferenceProfile } from '../telemetry/profiles.ts';
import { createRolloutCommands, type RolloutCommands } from './commands.ts';
import { writeCompanions } from './companions.ts';
import { step } from './controller.ts';
import type { RolloutFact, WaveFact } from './facts.ts';
import { pendingGates } from './gates.ts';
import { createDeviceGroups, type DeviceGroups, readGroups } from './groups.ts';
import { readOpen } from './others.ts';
import { planOf } from './plan.ts';
import {
  countMatching,
  type FactOptions,
  factsOf,
  readFacts,
  readRollout,
  writeDecision,
  writeHistory,
  writeWave,
} from './records.ts';
import { isRemoval, removalOf } from './removal.ts';
import { statusIn } from './status.ts';
import { namesOf } from './together.ts';
import type { EvidenceKept } from './wave-evidence.ts';
import { grown, wavesOf } from './waves.ts';

export interface Rollouts extends RolloutCommands {
  groups: DeviceGroups;
  /**
   * Stores the rollout and begins it. Refusals: `release-unknown`, `release-not-signed` (it waits for a second
   * signature), `release-withdrawn`, `release-below-floor`, `rollout-unsupported`, `group-unknown`.
   */
  begin(file: RolloutFile, createdBy: string): Promise<Result<{ id: string }>>;
  /** What `begin` would do now, with the same refusals; nothing is stored. `rate`: bytes a second and device. */
  plan(file: RolloutFile, by: string, rate: number | null): Promise<Result<RolloutPlan>>;
  /** Newest first. */
  list(): Promise<RolloutSummary[]>;
  /** Refusal: `rollout-unknown`. */
  status(rolloutId: string): Promise<Result<RolloutStatus>>;
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

function newWave(spec: RolloutSpec, index: number): WaveFact {
  const gates = pendingGates(spec, index);
  return { index, state: 'pending', reason: null, gates, startedAtMs: null, endedAtMs: null };
}

export function createRollouts(core: RegistryCore, fleet: Fleet): Rollouts {
  const { store, releases, clock, entropy, log, region } = core;
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
      const nextMs = await advance(rolloutId, members);
      if (nextMs !== null) wakeAtMs = Math.min(wakeAtMs ?? nextMs, nextMs);
    }
    return wakeAtMs;
  }

  /**
   * By priority, then the latest first: a device that matches several gets what the latest says. Of one priority those
   * that queue come last, the earliest of them first, so that none takes what another is before it in line for.
   */
  function due(db: RegistryDb, members: boolean, some: readonly string[]): string[] {
    // One that could not run a release may have a newer agent now.
    const unfit = qb
      .selectFrom('rollout_devices')
      .select('rollout_id')
      .where('device_id', 'in', some)
      .where('step', '=', 'left')
      .where('state', '=', 'incompatible');
    // Rare: where nothing is barred, nobody's assignment is looked through.
    const anyBarred = db.first(barredReleases(qb).limit(1)) !== undefined;
    const barredAndNotRun = qb
      .selectFrom('desired as w')
      .leftJoin('device_models as r', (join) =>
        join.onRef('r.device_id', '=', 'w.device_id').onRef('r.name', '=', 'w.as_name'),
      )
      .select('w.rollout_id')
      .where('w.release_id', 'in', barredReleases(qb))
      .where('w.rollout_id', 'is not', null)
      .where((where) =>
        where.or([where('r.active', 'is', null), where('r.active', '!=', where.ref('w.release_id'))]),
      );
    const late = qb
      .selectFrom('rollout_devices')
      .select('rollout_id')
      .where('step', 'in', ['assigned', 'reverted'])
      .where('state', 'not in', ['committed', 'idle', 'incompatible']);
    const query = qb
      .selectFrom('rollouts')
      .select(['rollout_id', 'priority', 'number', 'spec'])
      .where((where) =>
        where.or([
          where('state', 'in', [
            'awaiting-approval',
            'running',
            'paused',
            'rolling-back',
            ...(members ? ['succeeded'] : []),
          ]),
          where('rollout_id', 'in', late),
          where('rollout_id', 'in', unfit),
          ...(anyBarred ? [where('rollout_id', 'in', barredAndNotRun)] : []),
        ]),
      )
      .orderBy('number', 'desc');
    const found = db.all(query);
    const queues = (row: { spec: string }): boolean => fromColumn<RolloutSpec>(row.spec).whenBusy === 'queue';
    const inLine = [...found.filter((row) => !queues(row)), ...found.filter(queues).reverse()];
    return inLine.sort((a, b) => b.priority - a.priority).map((row) => row.rollout_id);
  }

  /** Steps one rollout until nothing more follows from what is known. */
  async function advance(rolloutId: string, members: boolean): Promise<number | null> {
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

  function insert(
    db: RegistryDb,
    id: string,
    file: RolloutFile,
    { as, release, companions = [] }: About,
    createdBy: string,
  ): void {
    db.run(
      qb.insertInto('rollouts').values({
        rollout_id: id,
        name: file.metadata.name,
        release_id: release.releaseId,
        as_name: as,
        manifest_sha256: release.manifestSha256,
        manifest_bytes: release.manifestBytes,
        counter: release.counter,
        spec: toColumn(file.spec),
        state: 'running',
        reason: null,
        ends_as: null,
        created_by: createdBy,
        created_at_ms: clock.wall(),
        ended_at_ms: null,
        priority: file.spec.priority,
      }),
    );
    writeCompanions(db, qb, id, companions);
    writeHistory(db, qb, id, {
      wave: null,
      what: 'running',
      by: createdBy,
      reason: null,
      atMs: clock.wall(),
    });
    for (const index of wavesOf(file.spec).keys()) writeWave(db, qb, id, newWave(file.spec, index));
  }

  /** `growth` becomes waves for as many devices as match now, so that everybody can see them. */
  function withWaves(file: RolloutFile, db: RegistryDb): RolloutFile {
    const { growth, ...spec } = file.spec;
    if (growth === undefined) return file;
    return {
      ...file,
      spec: { ...spec, waves: grown(growth, countMatching(db, qb, { selector: spec.selector, region })) },
    };
  }

  async function unknownRelease(namespace: string, releaseId: string) {
    const waiting = await releases.pending(namespace);
    if (waiting?.releaseId !== releaseId)
      return refuse('release-unknown', `the catalogue does not name ${releaseId}`);
    const { signatures, threshold } = waiting;
    return refuse('release-not-signed', `${releaseId} has ${signatures} of ${threshold} signatures`);
  }

  type About = Pick<RolloutFact, 'as' | 'release' | 'companions'>;

  /** One release of the catalogue. Refusals as `begin`. */
  async function releaseNamed(
    releaseId: string,
  ): Promise<Result<{ name: string; release: About['release'] }>> {
    const name = parseReleaseId(releaseId);
    if (name === null) return refuse('release-unknown', `${releaseId} is no NS/NAME@VERSION`);
    const found = await releases.find(releaseId);
    if (found === null) return unknownRelease(name.namespace, releaseId);
    if (found.barred !== null) return { ok: false, refusal: found.barred };
    const { manifestSha256, manifestBytes, counter, requires } = found;
    return ok({ name: name.name, release: { releaseId, manifestSha256, manifestBytes, counter, requires } });
  }

  /** What a file is about. Refusals as `begin`. */
  async function resolved(file: RolloutFile): Promise<Result<About>> {
    const { spec } = file;
    if (spec.remove !== undefined) {
      const known = await releases.show(spec.remove);
      if (!known.ok) return refuse('release-unknown', `the catalogue names no release of ${spec.remove}`);
      const [, name = ''] = spec.remove.split('/');
      return ok({ as: spec.as ?? name, release: removalOf(spec.remove) });
    }
    const [first = '', ...others] = spec.releases ?? [spec.release ?? ''];
    const own = await releaseNamed(first);
    if (!own.ok) return own;
    const { name, release } = own.value;
    const companions: { as: string; release: About['release'] }[] = [];
    for (const releaseId of others) {
      const other = await releaseNamed(releaseId);
      if (!other.ok) return other;
      companions.push({ as: other.value.name, release: other.value.release });
    }
    return ok({ as: spec.as ?? name, release, ...(companions.length === 0 ? {} : { companions }) });
  }

  /** Refusal: `group-unknown`. */
  function checkGroups(db: RegistryDb, { selector }: RolloutSpec): Result<void> {
    const known = readGroups(db, qb, selector.groups);
    const gone = selector.groups?.find((group) => !known.has(group));
    return gone === undefined
      ? ok(undefined)
      : refuse('group-unknown', `there is no group ${gone}: lepton groups list`);
  }

  async function begin(file: RolloutFile, createdBy: string): Promise<Result<{ id: string }>> {
    const about = await resolved(file);
    if (!about.ok) return about;
    const id = `r${Buffer.from(entropy.bytes(8)).toString('hex')}`;
    const stored = await store.tx((db) => {
      const checked = checkGroups(db, file.spec);
      if (checked.ok) insert(db, id, withWaves(file, db), about.value, createdBy);
      return checked;
    });
    if (!stored.ok) return stored;
    log.emit('info', 'rollout.transition', {
      rolloutId: id,
      name: file.metadata.name,
      from: null,
      to: 'running',
    });
    wake(true);
    return ok({ id });
  }

  async function plan(file: RolloutFile, by: string, rate: number | null): Promise<Result<RolloutPlan>> {
    const about = await resolved(file);
    if (!about.ok) return about;
    const { as, release, companions = [] } = about.value;
    const models: ModelView[] = [];
    for (const one of isRemoval(release) ? [] : [release, ...companions.map((other) => other.release)]) {
      const shown = await releases.show(one.releaseId.split('@')[0] ?? '');
      if (!shown.ok) return shown;
      models.push(shown.value);
    }
    return store.tx((db) => {
      const checked = checkGroups(db, file.spec);
      if (!checked.ok) return checked;
      const { metadata, spec } = withWaves(file, db);
      const rollout: RolloutFact = {
        ...{ id: '', number: Number.MAX_SAFE_INTEGER, name: metadata.name, as, release, spec },
        ...{ createdBy: by, priority: spec.priority, waves: wavesOf(spec), state: 'running' },
        ...{ reason: null, endsAs: null, endedAtMs: null },
        ...(companions.length === 0 ? {} : { companions }),
      };
      const waves = [...wavesOf(spec).keys()].map((index) => newWave(spec, index));
      const options = { region, newcomers: true, nowMs: clock.wall(), changesMax: 0, reference: null };
      return ok(
        planOf({
          facts: factsOf(db, qb, rollout, waves, options),
          models,
          others: readOpen(db, qb, namesOf(rollout)),
          bytesPerSecond: rate,
        }),
      );
    });
  }

  return {
    begin,
    plan,

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

    groups: createDeviceGroups(store, clock, () => wake(true)),
    ...createRolloutCommands({
      begin,
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
