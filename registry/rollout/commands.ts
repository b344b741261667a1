// Why: what people say to a rollout that has begun: stop, go on, this wave may begin, end it; and what became of it.
// Trusts: its caller for who asks and whether they may. Must never: change what a step has not seen: every word is stored first.

import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RolloutFile } from '../../shared/wire/rollout-file.ts';
import type { RolloutExplanation, RolloutHistory } from '../../shared/wire/rollouts.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { needsApproval, waveToApprove } from './approvals.ts';
import { explain } from './explain.ts';
import { type FactOptions, readFacts } from './fact-reading.ts';
import type { RolloutFact } from './facts.ts';
import { abort, pause, resume } from './orders.ts';
import { readApprovals, readHistory, readRollout, readWaves, writeHistory, writeRollout } from './records.ts';
import { failedDevices, retryFile } from './retry.ts';

export interface RolloutCommands {
  /**
   * Ends it. `revert` takes back what was assigned; absent: what the file says under `onAbort`.
   * Refusals: `rollout-unknown`, `rollout-state`.
   */
  abort(rolloutId: string, by: string, revert: boolean | null): Promise<Result<{ id: string }>>;
  /** Assigns nothing more until `resume`. Refusals: `rollout-unknown`, `rollout-state`. */
  pause(rolloutId: string, by: string, comment: string | null): Promise<Result<{ id: string }>>;
  /** Refusals: `rollout-unknown`, `rollout-state` (not paused, or by a gate that failed). */
  resume(rolloutId: string, by: string, comment: string | null): Promise<Result<{ id: string }>>;
  /**
   * One person’s word that a wave may begin; null: the next one that waits for it. Refusals: `rollout-unknown`,
   * `rollout-state`, `approval-not-needed`, `approval-repeated`, `approval-own`.
   */
  approve(
    rolloutId: string,
    by: string,
    approval: { wave: number | null; comment: string | null },
  ): Promise<Result<{ id: string; wave: number }>>;
  /**
   * A rollout of its own for the devices on which this one failed, or for those named. Refusals: `rollout-unknown`,
   * `rollout-state` (it has not ended), `nothing-to-retry`, and those of starting one.
   */
  retry(rolloutId: string, by: string, devices: readonly string[] | null): Promise<Result<{ id: string }>>;
  /**
   * Why everything is where it is, by the facts of now; with one device alone where it is named.
   * Refusals: `rollout-unknown`, `device-unknown` (or the selector does not match it).
   */
  explain(rolloutId: string, deviceId: string | null): Promise<Result<RolloutExplanation>>;
  /** Oldest first. Refusal: `rollout-unknown`. */
  history(rolloutId: string): Promise<Result<RolloutHistory>>;
}

const unknown = (rolloutId: string) => refuse('rollout-unknown', `there is no rollout ${rolloutId}`);
const inForce: ReadonlySet<RolloutFact['state']> = new Set(['awaiting-approval', 'running', 'paused']);

export function createRolloutCommands(parts: {
  region: string;
  begin(file: RolloutFile, createdBy: string): Promise<Result<{ id: string }>>;
  store: RegistryStore;
  clock: Clock;
  /** Tells of another state in the log, the events and the history. */
  transition(db: RegistryDb, before: RolloutFact, after: RolloutFact, by: string): void;
  /** The reference profiles of the rollout's releases, where a gate asks for them. */
  referencesOf(rolloutId: string): Promise<Pick<FactOptions, 'reference' | 'references'>>;
  /** Something changed: rollouts are stepped. */
  changed(): void;
}): RolloutCommands {
  const { region, store, clock, transition, changed } = parts;
  const { qb } = store;

  /** Stores what `decide` makes of the rollout. */
  async function put(
    rolloutId: string,
    by: string,
    decide: (rollout: RolloutFact, db: RegistryDb) => Result<RolloutFact>,
  ): Promise<Result<{ id: string }>> {
    const done = await store.tx((db): Result<{ id: string }> => {
      const rollout = readRollout(db, qb, rolloutId);
      if (rollout === undefined) return unknown(rolloutId);
      const next = decide(rollout, db);
      if (!next.ok) return next;
      writeRollout(db, qb, next.value);
      transition(db, rollout, next.value, by);
      return ok({ id: rolloutId });
    });
    if (done.ok) changed();
    return done;
  }

  return {
    abort: (rolloutId, by, revert) =>
      put(rolloutId, by, (rollout) => {
        const next = abort(rollout, by, revert ?? rollout.spec.onAbort === 'revert', clock.wall());
        return next === null ? refuse('rollout-state', `it is ${rollout.state}`) : ok(next);
      }),

    pause: (rolloutId, by, comment) =>
      put(rolloutId, by, (rollout) => {
        const next = pause(rollout, by, comment);
        return next === null ? refuse('rollout-state', `it is ${rollout.state}`) : ok(next);
      }),

    resume: (rolloutId, by, comment) =>
      put(rolloutId, by, (rollout, db) => {
        const waves = readWaves(db, qb, rolloutId);
        const next = resume(rollout, waves);
        const reason = comment === null ? null : `resumed by ${by}: ${comment}`;
        if (next !== null) return ok({ ...next, reason });
        const failed = waves.find(({ state }) => state === 'failed');
        if (rollout.state !== 'paused' || failed === undefined)
          return refuse('rollout-state', `it is ${rollout.state}, not paused`);
        return refuse(
          'rollout-state',
          `wave ${failed.index} has failed: abort it, and start one with a release that passes`,
        );
      }),

    async approve(rolloutId, by, { wave: wanted, comment }) {
      const done = await store.tx((db): Result<{ id: string; wave: number }> => {
        const rollout = readRollout(db, qb, rolloutId);
        if (rollout === undefined) return unknown(rolloutId);
        const { spec, createdBy } = rollout;
        if (!inForce.has(rollout.state)) return refuse('rollout-state', `it is ${rollout.state}`);
        const waves = readWaves(db, qb, rolloutId);
        const wave = wanted ?? waveToApprove(spec, waves);
        const state = waves.find(({ index }) => index === wave)?.state;
        if (wave === null) return refuse('approval-not-needed', `no wave of ${rolloutId} waits for it`);
        if (state !== 'pending' || !needsApproval(spec, wave))
          return refuse('approval-not-needed', `wave ${wave} of ${rolloutId} does not wait for it`);
        if (by === createdBy) return refuse('approval-own', `${by} started ${rolloutId}`);
        const nowMs = clock.wall();
        const before = readApprovals(db, qb, rolloutId).find((one) => one.wave === wave && one.by === by);
        if (before !== undefined && before.expiresAtMs > nowMs)
          return refuse('approval-repeated', `${by} has approved wave ${wave} already`);
        const row = { comment, at_ms: nowMs, expires_at_ms: nowMs + (spec.approvals?.expires ?? 0) };
        db.run(
          qb
            .insertInto('rollout_approvals')
            .values({ rollout_id: rolloutId, wave_index: wave, user: by, ...row })
            .onConflict((conflict) =>
              conflict.columns(['rollout_id', 'wave_index', 'user']).doUpdateSet(row),
            ),
        );
        writeHistory(db, qb, rolloutId, { wave, what: 'approved', by, reason: comment, atMs: nowMs });
        return ok({ id: rolloutId, wave });
      });
      if (done.ok) changed();
      return done;
    },

    async retry(rolloutId, by, devices) {
      const file = await store.tx((db): Result<RolloutFile> => {
        const options = { region, newcomers: false, nowMs: clock.wall(), changesMax: 0, reference: null };
        const facts = readFacts(db, qb, rolloutId, options);
        if (facts === undefined) return unknown(rolloutId);
        if (facts.rollout.endedAtMs === null)
          return refuse(
            'rollout-state',
            `it is ${facts.rollout.state}: abort it, or wait until it has ended`,
          );
        const failed = failedDevices(facts);
        const other = devices?.find((device) => !failed.includes(device));
        if (other !== undefined) return refuse('nothing-to-retry', `${rolloutId} did not fail on ${other}`);
        const again = devices ?? failed;
        if (again.length === 0) return refuse('nothing-to-retry', `${rolloutId} failed on no device`);
        return ok(retryFile(facts, again));
      });
      return file.ok ? parts.begin(file.value, by) : file;
    },

    async explain(rolloutId, deviceId) {
      const references = await parts.referencesOf(rolloutId);
      return store.tx((db): Result<RolloutExplanation> => {
        const options = { region, newcomers: true, nowMs: clock.wall(), changesMax: 0, ...references };
        const facts = readFacts(db, qb, rolloutId, options);
        if (facts === undefined) return unknown(rolloutId);
        const explanation = explain(facts, deviceId);
        if (deviceId !== null && explanation.devices.length === 0)
          return refuse(
            'device-unknown',
            `${deviceId} is not enrolled here, or the selector does not match it`,
          );
        return ok(explanation);
      });
    },

    history: (rolloutId) =>
      store.tx((db): Result<RolloutHistory> => {
        if (readRollout(db, qb, rolloutId) === undefined) return unknown(rolloutId);
        return ok(readHistory(db, qb, rolloutId) as RolloutHistory);
      }),
  };
}
