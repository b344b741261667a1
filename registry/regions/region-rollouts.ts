// Why: rollouts across regions at the region that coordinates them, and at each that is ordered to take part: the shell of
// region-controller.ts. Trusts: the controller for every decision; each region for its devices.
// Must never: reach a device but through the region's own rollout.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RegionRolloutExplanation, RegionRolloutStatus } from '../../shared/wire/region-rollouts.ts';
import type { RegionList } from '../../shared/wire/regions.ts';
import type { RolloutFile } from '../../shared/wire/rollout-file.ts';
import { rolloutProgressSchema } from '../../shared/wire/rollout-orders.ts';
import type { RolloutPlan } from '../../shared/wire/rollout-plan.ts';
import type { RolloutHistory, RolloutSummary } from '../../shared/wire/rollouts.ts';
import type { Audit } from '../audit/audit.ts';
import type { RegistryCore } from '../core.ts';
import { toColumn } from '../fleet/columns.ts';
import type { FleetEvents } from '../fleet/events.ts';
import { regionalFile } from '../rollout/file.ts';
import type { Rollouts } from '../rollout/rollouts.ts';
import type { RegistryDb } from '../store/open.ts';
import { type RegionLimits, regionLimits } from './limits.ts';
import { abort, pause, resume } from './region-commands.ts';
import { step } from './region-controller.ts';
import type { RegionRolloutNext } from './region-facts.ts';
import {
  orderOf,
  type RegionRolloutRecord,
  readRegionHistory,
  readRegionRollout,
  writeNext,
  writePart,
  writeProgress,
  writeRegionHistory,
} from './region-rollout-records.ts';
import { explainRegions, regionStatus } from './region-rollout-view.ts';
import { createRounds } from './rounds.ts';
import type { IncomingStream, OutgoingStream } from './streams.ts';
import { createTakenOrders, type MayOrder } from './taken-orders.ts';

export interface RegionRollouts {
  /** What this region offers to others and takes of them. */
  outgoing: readonly OutgoingStream[];
  incoming: readonly IncomingStream[];
  /**
   * Begins what a file with `regions` says; `text` is the file as it was written. Refusals: `rollout-region-unknown`,
   * `rollout-file-invalid`, and those of a rollout of this region.
   */
  begin(text: string, file: RolloutFile, createdBy: string): Promise<Result<{ id: string }>>;
  /** Refusals as `begin`. */
  plan(text: string, file: RolloutFile, by: string, rate: number | null): Promise<Result<RolloutPlan>>;
  /** Newest first. */
  list(): Promise<RolloutSummary[]>;
  /** Refusal of this and the others: `rollout-unknown`. */
  status(id: string): Promise<Result<RegionRolloutStatus>>;
  explain(id: string): Promise<Result<RegionRolloutExplanation>>;
  history(id: string): Promise<Result<RolloutHistory>>;
  /** Refusal: `rollout-state`. */
  pause(id: string, by: string, comment: string | null): Promise<Result<{ id: string }>>;
  /** Refusals: `rollout-state`, `rollout-region-unknown`. */
  resume(
    id: string,
    by: string,
    words: { without: readonly string[]; comment: string | null },
  ): Promise<Result<{ id: string }>>;
  /** `revert`: null as the file says. Refusal: `rollout-state`. */
  abort(id: string, by: string, revert: boolean | null): Promise<Result<{ id: string }>>;
  start(): void;
  /** Idempotent. */
  stop(): Promise<void>;
}

export interface RegionRolloutsParts {
  rollouts: Rollouts;
  events: FleetEvents;
  /** The regions there are; null: this one is alone. */
  listIn(db: RegistryDb): RegionList | null;
  /** Absent: the home region may, and this one itself. */
  mayOrder?: MayOrder;
  audit: Pick<Audit, 'appendIn'>;
  limits?: Partial<RegionLimits>;
}

const gapMs = 200;
/** Rounds that follow each other at once: what one region does about its own order is progress at once. */
const turnsMax = 4;

const unknown = (id: string) => refuse('rollout-unknown', `there is no rollout ${id}`);

export function createRegionRollouts(core: RegistryCore, parts: RegionRolloutsParts): RegionRollouts {
  const { store, releases, clock, entropy, log, region } = core;
  const { rollouts, events, listIn } = parts;
  const { qb } = store;
  const { orderTakenWithinMs } = { ...regionLimits, ...parts.limits };
  const everyMs = core.limits.rolloutStepEveryMs;
  let unlisten: () => void = () => undefined;

  const mayOrder: MayOrder =
    parts.mayOrder ??
    (async (from) => {
      const home = (await store.tx(listIn))?.home ?? region;
      const allowed = from === region || from === home;
      const rule = allowed ? 'default/home-orders' : 'default/others-order-nothing';
      return {
        allowed,
        rule,
        reason: allowed ? 'it is home' : `only ${home} may order rollouts in ${region}`,
      };
    });

  const taken = createTakenOrders({
    ...{ region, store, releases, rollouts, events, mayOrder, clock, log },
    audit: parts.audit,
    heardIn: (db, progress) => void writeProgress(db, qb, region, progress, clock.wall()),
    taken: () => rounds.wake(),
  });

  const look = () => ({ region, listIn, nowMs: clock.wall(), orderTakenWithinMs });
  const readIn = (db: RegistryDb, id: string): RegionRolloutRecord | undefined =>
    readRegionRollout(db, qb, id, look());

  /** Stores what was decided; this region's own order is taken in the same commit. */
  function storeIn(db: RegistryDb, before: RegionRolloutRecord, next: RegionRolloutNext, by: string | null) {
    const told = writeNext(db, qb, before, next);
    for (const part of told) if (part.region === region) taken.takeIn(db, region, orderOf(before.row, part));
    if (before.state !== next.state) sayIn(db, before, next, by);
    return told.length > 0 || before.state !== next.state;
  }

  function sayIn(
    db: RegistryDb,
    { id, state: from, row: { name } }: Pick<RegionRolloutRecord, 'id' | 'row'> & { state: string | null },
    { state, reason }: Pick<RegionRolloutNext, 'state' | 'reason'>,
    by: string | null,
  ): void {
    log.emit('info', 'regions.rollout.transition', { rolloutId: id, name, from, to: state, reason });
    const detail = reason === null ? `${id} (${name})` : `${id} (${name}): ${reason}`;
    events.recordIn(db, { source: 'registry', subject: null, code: `rollout-${state}`, detail });
    writeRegionHistory(db, qb, id, { what: state, by, reason, atMs: clock.wall() });
  }

  /** Of which regions spoke since the last turn. */
  let heard = new Set<string>();
  /** Nothing was looked at yet. */
  let isFirst = true;
  /** Those that may change: also ended ones, of which a region may know another word than this registry. */
  function dueIn(db: RegistryDb, spoken: ReadonlySet<string>): string[] {
    const rows = db.all(
      qb
        .selectFrom('region_rollouts')
        .select(['region_rollout_id as id', 'ended_at_ms as endedAtMs'])
        .orderBy('number', 'desc'),
    );
    return rows
      .filter(({ id, endedAtMs }) => endedAtMs === null || isFirst || spoken.has(id))
      .map(({ id }) => id);
  }

  /** One look at everything that is open. A look that fails is taken again. */
  async function turn(): Promise<{ again: boolean; atMs: number | null }> {
    const isOpen = await taken.work();
    const spoken = heard;
    heard = new Set();
    try {
      const stepped = await stepAll(spoken);
      isFirst = false;
      const laterMs = isOpen ? [clock.wall() + everyMs] : [];
      const times = [...laterMs, ...stepped.times];
      return { again: stepped.again, atMs: times.length === 0 ? null : Math.min(...times) };
    } catch (thrown) {
      for (const id of spoken) heard.add(id);
      throw thrown;
    }
  }

  async function stepAll(spoken: ReadonlySet<string>): Promise<{ again: boolean; times: number[] }> {
    let again = false;
    const times: number[] = [];
    for (const id of await store.tx((db) => dueIn(db, spoken))) {
      const stepped = await store.tx((db) => {
        const record = readIn(db, id);
        if (record === undefined) return null;
        const next = step(record);
        return { changed: storeIn(db, record, next, null), next };
      });
      if (stepped === null) continue;
      again ||= stepped.changed;
      const { endedAtMs, wakeAtMs } = stepped.next;
      if (endedAtMs === null) times.push(Math.min(clock.wall() + everyMs, wakeAtMs ?? Infinity));
    }
    return { again, times };
  }

  const rounds = createRounds({
    ...{ clock, log, gapMs, retryMs: everyMs },
    async work() {
      for (let turns = 1; ; turns += 1) {
        const { again, atMs } = await turn();
        if (!again || turns >= turnsMax) return again ? clock.wall() : atMs;
      }
    },
  });

  /** Stores what an operator's word makes of it; the step that follows tells the regions. */
  async function put(
    id: string,
    by: string,
    decide: (record: RegionRolloutRecord) => Result<RegionRolloutNext>,
  ): Promise<Result<{ id: string }>> {
    const done = await store.tx((db): Result<{ id: string }> => {
      const record = readIn(db, id);
      if (record === undefined) return unknown(id);
      const next = decide(record);
      if (!next.ok) return next;
      storeIn(db, record, next.value, by);
      const after = readIn(db, id);
      // In the same commit: what a word means for regions is told with it.
      if (after !== undefined) storeIn(db, after, step(after), null);
      return ok({ id });
    });
    if (done.ok) rounds.wake();
    return done;
  }

  const read = <T>(
    id: string,
    view: (record: RegionRolloutRecord, db: RegistryDb) => T,
  ): Promise<Result<T>> =>
    store.tx((db) => {
      const record = readIn(db, id);
      return record === undefined ? unknown(id) : ok(view(record, db));
    });

  /** The regions of a file are regions. */
  async function known(file: RolloutFile): Promise<Result<void>> {
    const list = await store.tx(listIn);
    const names = new Set([region, ...(list?.regions.map((one) => one.region) ?? [])]);
    const other = file.spec.regions?.flatMap((stage) => stage.names).find((name) => !names.has(name));
    return other === undefined
      ? ok()
      : refuse('rollout-region-unknown', `there is no region ${other}: lepton regions list`);
  }

  /** The plan of a rollout that has no part in this region. */
  async function elsewhere(file: RolloutFile): Promise<Result<RolloutPlan>> {
    const about = await rollouts.check(file);
    if (!about.ok) return about;
    const { release, as } = about.value;
    const releasesTogether = file.spec.releases ?? [];
    return ok({
      ...{ name: file.metadata.name, release, as },
      ...(releasesTogether.length > 1 ? { releases: releasesTogether } : {}),
      ...{ waves: [], devices: [], incompatible: [], bytes: 0, minMs: null },
      restsOn: [`the file alone: ${region} has no part in it`],
    });
  }

  const releasesOf = ({ spec }: RolloutFile): string[] =>
    spec.releases ?? [spec.release ?? spec.remove ?? ''];

  return {
    outgoing: [
      {
        name: 'rollout-orders',
        flow: 'rollout-orders',
        readIn(db, peer, after, limit) {
          const rows = db.all(
            qb
              .selectFrom('region_rollout_parts')
              .select(['region_rollout_id as id', 'order_number as number'])
              .where('region', '=', peer)
              .where('order_number', '>', after)
              .orderBy('order_number')
              .limit(limit),
          );
          return rows.flatMap(({ id, number }) => {
            const record = readIn(db, id);
            const part = record?.parts.find((one) => one.region === peer);
            return record === undefined || part === undefined
              ? []
              : [{ id: number, body: orderOf(record.row, part) }];
          });
        },
      },
      taken.outgoing,
    ],

    incoming: [
      taken.incoming,
      {
        name: 'rollout-progress',
        takeIn(db, peer, items) {
          for (const { body } of items) {
            const parsed = rolloutProgressSchema.safeParse(body);
            if (parsed.success && writeProgress(db, qb, peer, parsed.data, clock.wall())) {
              heard.add(parsed.data.orderId);
              continue;
            }
            const detail = parsed.success
              ? `about ${parsed.data.orderId}, of which this region has no part of ${peer}`
              : 'it does not parse';
            log.emit('warn', 'regions.progress.refused', { region: peer, code: 'order-invalid', detail });
          }
        },
        taken: () => rounds.wake(),
      },
    ],

    async begin(text, file, createdBy) {
      const { spec, metadata } = file;
      const found = await known(file);
      if (!found.ok) return found;
      const regional = regionalFile(text);
      if (!regional.ok) return regional;
      // Refused here and now where no region could begin it.
      const about = await rollouts.check(regional.value.file);
      if (!about.ok) return about;
      const id = `rr${Buffer.from(entropy.bytes(8)).toString('hex')}`;
      const nowMs = clock.wall();
      const stages = spec.regions ?? [];
      const names = releasesOf(file);
      const row = {
        region_rollout_id: id,
        name: metadata.name,
        releases: toColumn(names),
        as_name: about.value.as,
        file: regional.value.text,
        soaks: toColumn(stages.map(({ soak }) => soak)),
        skip_after_ms: typeof spec.onUnreachable === 'object' ? spec.onUnreachable.skipAfter : null,
        on_abort: spec.onAbort,
        state: 'running' as const,
        reason: null,
        created_by: createdBy,
        created_at_ms: nowMs,
        ended_at_ms: null,
      };
      await store.tx((db) => {
        db.run(qb.insertInto('region_rollouts').values(row));
        for (const [stage, { names: inside }] of stages.entries())
          for (const name of inside)
            writePart(db, qb, id, {
              ...{ region: name, stage, wish: 'wait', by: createdBy, reason: null, wishedAtMs: nowMs },
              ...{ revision: 1, attempt: 1, leftOut: false, succeededAtMs: null, progress: null },
              unreachableSinceMs: null,
            });
        const record = readIn(db, id);
        if (record === undefined) return;
        sayIn(db, { ...record, state: null }, record, createdBy);
        storeIn(db, record, step(record), null);
      });
      rounds.wake();
      return ok({ id });
    },

    async plan(text, file, by, rate) {
      const found = await known(file);
      if (!found.ok) return found;
      const regional = regionalFile(text);
      if (!regional.ok) return regional;
      const stages = file.spec.regions ?? [];
      const isOwn = stages.some(({ names }) => names.includes(region));
      const own = await (isOwn
        ? rollouts.plan(regional.value.file, by, rate)
        : elsewhere(regional.value.file));
      if (!own.ok) return own;
      return ok({
        ...own.value,
        stages: stages.map(({ names, soak }, index) => ({
          ...{ index, soakMs: soak },
          regions: names.map((name) => ({
            region: name,
            devices: name === region ? own.value.devices.length : null,
          })),
        })),
      });
    },

    async list() {
      const rows = await store.tx((db) =>
        db.all(qb.selectFrom('region_rollouts').selectAll().orderBy('number', 'desc')),
      );
      return rows.map((row) => ({
        ...{ id: row.region_rollout_id, name: row.name, as: row.as_name, state: row.state },
        release: (JSON.parse(row.releases) as string[])[0] ?? '',
        ...{ reason: row.reason, createdBy: row.created_by },
        ...{ createdAtMs: row.created_at_ms, endedAtMs: row.ended_at_ms },
      }));
    },

    status: (id) => read(id, regionStatus),
    explain: (id) => read(id, explainRegions),
    history: (id) =>
      read(id, (_record, db) =>
        readRegionHistory(db, qb, id).map((entry) => ({ ...entry, wave: null }) as RolloutHistory[number]),
      ),

    pause: (id, by, comment) => put(id, by, (record) => pause(record, by, comment)),
    resume: (id, by, words) => put(id, by, (record) => resume(record, by, words)),
    abort: (id, by, revert) =>
      put(id, by, (record) => abort(record, by, revert ?? record.row.on_abort === 'revert')),

    start() {
      unlisten = rollouts.onStepped(() => rounds.wake());
      rounds.start();
    },
    async stop() {
      unlisten();
      await rounds.stop();
    },
  };
}
