// Why: a coordinating region and others with their stores in variables: orders and progress go when the test lets them, in
// any order and more than once. Trusts: nothing. Must never: need a store, a line or a clock.

import assert from 'node:assert/strict';
import {
  decide,
  isEnded,
  type OwnStatus,
  progressOf,
  type Verdict,
} from '../../registry/regions/order-decision.ts';
import { step } from '../../registry/regions/region-controller.ts';
import {
  type PartFact,
  type RegionRolloutFact,
  type RegionRolloutNext,
  standingOf,
} from '../../registry/regions/region-facts.ts';
import type { RolloutOrder, RolloutProgress } from '../../shared/wire/rollout-orders.ts';
import type { RolloutState } from '../../shared/wire/rollouts.ts';

const orderId = `rr${'0'.repeat(16)}`;

/** What one region keeps on its disk. */
export interface SimRegion {
  name: string;
  stage: number;
  order: RolloutOrder | null;
  acted: number;
  verdict: Verdict | null;
  /** By attempt. */
  rollouts: Map<number, OwnStatus>;
  /** How many were begun, whatever became of the store. */
  begun: Map<number, number>;
}

export interface OrderSim {
  facts: RegionRolloutFact;
  regions: Map<string, SimRegion>;
  /** Every order that was ever given, by region. */
  given: Map<string, RolloutOrder[]>;
  /** Everything that was ever told, by region. */
  told: Map<string, RolloutProgress[]>;
  /** Whether regions let orders in. */
  mayBegin(region: SimRegion): boolean;
  /** Steps the coordinator and gives the orders that follow. */
  step(): void;
  say(word: (facts: RegionRolloutFact) => { ok: true; value: RegionRolloutNext } | { ok: false }): boolean;
  /** The region takes an order: the newest, or that one. */
  take(name: string, at?: number): void;
  /** It does what is to be done, and tells. */
  act(name: string): void;
  /** The coordinator hears the newest that a region told, or that one. */
  hear(name: string, at?: number): void;
  /** Something becomes of the region's rollout. */
  become(name: string, state: RolloutState, gateFailed?: boolean): void;
  pass(ms: number): void;
  cut(name: string, isCut: boolean): void;
  /** The coordinator's store as it is now, and as it was at the last `backup`. */
  backup(): void;
  restore(): void;
  /** Everything is delivered and acted on until nothing changes. */
  settle(): void;
}

export function orderSim(
  stages: readonly (readonly string[])[],
  options: {
    soaksMs?: number[];
    skipAfterMs?: number | null;
    onStep?: (before: RegionRolloutFact, after: RegionRolloutFact) => void;
  } = {},
): OrderSim {
  const regions = new Map<string, SimRegion>();
  const given = new Map<string, RolloutOrder[]>();
  const told = new Map<string, RolloutProgress[]>();
  const parts = stages.flatMap((names, stage) =>
    names.map((region): PartFact => {
      regions.set(region, {
        ...{ name: region, stage, order: null, acted: 0, verdict: null },
        ...{ rollouts: new Map(), begun: new Map() },
      });
      return {
        ...{ region, stage, wish: 'wait', by: null, reason: null, wishedAtMs: 0, revision: 1, attempt: 1 },
        ...{ leftOut: false, succeededAtMs: null, progress: null, unreachableSinceMs: null },
      };
    }),
  );
  const regionOf = (name: string): SimRegion => {
    const found = regions.get(name);
    assert.ok(found);
    return found;
  };

  function give(before: readonly PartFact[] | null): void {
    for (const part of sim.facts.parts) {
      const old = before?.find(({ region }) => region === part.region);
      if (old?.revision === part.revision) {
        assert.equal(old.wish, part.wish, 'another wish is another revision');
        continue;
      }
      assert.ok(part.revision > (old?.revision ?? 0), 'revisions only rise');
      const { revision, attempt, wish, by, reason } = part;
      const order: RolloutOrder = {
        ...{ schemaVersion: 1, orderId, revision, attempt, wish, by, reason },
        ...{ name: 'sim', releases: ['acme/one@1.0.0'], file: '{}', startedBy: 'tester' },
      };
      given.set(part.region, [...(given.get(part.region) ?? []), order]);
    }
  }

  function put(next: RegionRolloutNext): void {
    const before = sim.facts;
    const { state, reason, endedAtMs } = next;
    sim.facts = { ...before, state, reason, endedAtMs, parts: next.parts };
    give(before.parts);
  }

  const sim: OrderSim = {
    facts: {
      ...{ id: orderId, state: 'running', reason: null, endedAtMs: null, nowMs: 1_000_000 },
      ...{ soaksMs: options.soaksMs ?? stages.map(() => 0), skipAfterMs: options.skipAfterMs ?? null, parts },
    },
    ...{ regions, given, told },
    mayBegin: () => true,

    step() {
      const before = sim.facts;
      put(step(before));
      options.onStep?.(before, sim.facts);
      const { state, reason, endedAtMs, parts: now } = step(sim.facts);
      const after = [sim.facts.state, sim.facts.reason, sim.facts.endedAtMs, sim.facts.parts];
      const again = JSON.stringify([state, reason, endedAtMs, now]);
      assert.equal(again, JSON.stringify(after), 'a step without new facts changes nothing');
    },

    say(word) {
      const next = word(sim.facts);
      if (next.ok) put(next.value);
      return next.ok;
    },

    take(name, at) {
      const region = regionOf(name);
      const orders = given.get(name) ?? [];
      const order = orders.at(at ?? -1);
      if (order === undefined || (region.order?.revision ?? 0) >= order.revision) return;
      if (region.order?.attempt !== order.attempt) region.verdict = null;
      region.order = order;
    },

    act(name) {
      const region = regionOf(name);
      const { order } = region;
      if (order === null) return;
      for (;;) {
        const own = region.rollouts.get(order.attempt) ?? null;
        const earlier = [...region.rollouts]
          .filter(([attempt, { state }]) => attempt < order.attempt && !isEnded(state))
          .map(([, one]) => one);
        const action = decide({ order, acted: region.acted, own, earlier, verdict: region.verdict });
        const of = (id: string): OwnStatus => {
          const found = [...region.rollouts.values()].find((one) => one.id === id);
          assert.ok(found);
          return found;
        };
        if (action.do === 'nothing') {
          if (!action.settled || region.acted < order.revision) region.acted = order.revision;
          break;
        }
        if (action.do === 'wait') {
          region.verdict = { kind: 'waits', code: 'rollout-state', rule: null, detail: '' };
          break;
        }
        if (action.do === 'begin') {
          if (!sim.mayBegin(region)) {
            region.verdict = { kind: 'refused', code: 'policy-denied', rule: 'test', detail: 'no' };
            region.acted = order.revision;
            break;
          }
          assert.equal(region.rollouts.has(order.attempt), false, 'nothing is begun twice');
          assert.ok([...region.rollouts.values()].every(({ state }) => isEnded(state)));
          region.begun.set(order.attempt, (region.begun.get(order.attempt) ?? 0) + 1);
          region.verdict = null;
          region.rollouts.set(order.attempt, {
            ...{ id: `r${name}${order.attempt}`, state: 'running', pausedByOrder: false, waveFailed: false },
            ...{ code: null, waves: [{ index: 0, state: 'running', devices: { total: 1 } }], gates: [] },
          });
          continue;
        }
        const target = of(action.rollout);
        if (action.do === 'pause') Object.assign(target, { state: 'paused', pausedByOrder: true });
        if (action.do === 'resume') Object.assign(target, { state: 'running', pausedByOrder: false });
        if (action.do === 'abort') target.state = action.revert ? 'rolling-back' : 'aborted';
      }
      tell(region);
    },

    hear(name, at) {
      const progress = (told.get(name) ?? []).at(at ?? -1);
      if (progress === undefined) return;
      sim.facts = {
        ...sim.facts,
        parts: sim.facts.parts.map((part) =>
          part.region === name && (part.progress?.attempt ?? 0) <= progress.attempt
            ? { ...part, progress }
            : part,
        ),
      };
    },

    become(name, state, gateFailed = false) {
      const region = regionOf(name);
      const own = [...region.rollouts.values()].at(-1);
      if (own === undefined || isEnded(own.state)) return;
      if (own.state === 'rolling-back' && state !== 'failed' && state !== 'aborted') return;
      Object.assign(own, { state, pausedByOrder: false });
      if (gateFailed) {
        own.waveFailed = true;
        own.waves = own.waves.map((wave) => ({ ...wave, state: 'failed' }));
      }
      tell(region);
    },

    pass(ms) {
      sim.facts = { ...sim.facts, nowMs: sim.facts.nowMs + ms };
    },

    cut(name, isCut) {
      const sinceMs = isCut ? sim.facts.nowMs : null;
      sim.facts = {
        ...sim.facts,
        parts: sim.facts.parts.map((part) =>
          part.region === name && (part.unreachableSinceMs === null) === isCut
            ? { ...part, unreachableSinceMs: sinceMs }
            : part,
        ),
      };
    },

    backup() {
      kept = sim.facts;
    },

    restore() {
      const lines = new Map(sim.facts.parts.map((part) => [part.region, part.unreachableSinceMs]));
      const restored = kept.parts.map((part) => ({
        ...part,
        unreachableSinceMs: lines.get(part.region) ?? null,
      }));
      sim.facts = { ...kept, nowMs: sim.facts.nowMs, parts: restored };
    },

    settle() {
      for (let round = 0; round < 12; round += 1) {
        for (const name of regions.keys()) {
          sim.take(name);
          sim.act(name);
          sim.hear(name);
        }
        sim.step();
      }
    },
  };

  function tell(region: SimRegion): void {
    const { order, acted, verdict, name } = region;
    if (order === null) return;
    const progress = progressOf(
      { order, acted, verdict },
      region.rollouts.get(order.attempt) ?? null,
      sim.facts.nowMs,
    );
    told.set(name, [...(told.get(name) ?? []), progress]);
  }

  give(null);
  let kept = sim.facts;
  return sim;
}

/** Regions of which the coordinator believes this. */
export const standing = (sim: OrderSim): Record<string, string> =>
  Object.fromEntries(sim.facts.parts.map((part) => [part.region, `${standingOf(part)}/${part.wish}`]));
